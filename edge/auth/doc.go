// Package auth registers phone numbers and proves devices (the bytes that are signed: wire protocol, section 4).
//
// Promise: a PIN is used at most once, lives for five minutes, takes at most five tries, and is stored only as
// a keyed, salted hash. Limits per phone number, address and number range are shared by every edge through
// Postgres and fail closed: when they cannot be read, no SMS is sent and no PIN is judged. A registration is answered
// only once the log has it.
//
// Order: two registrations of one number are ordered by the log; the later one revokes the earlier one's devices, on
// every edge.
//
// When Postgres is down: nobody registers (CODE_UNAVAILABLE), and devices that this edge does not have live cannot
// authenticate.
//
// When the thread views are empty, behind or hold something of the user in quarantine: nobody is told that he is not
// known, and nobody registers, until they have what the log had at the request (CODE_UNAVAILABLE).
//
// Non-obvious:
//   - The phone number itself is in no event, no view and no log line: only its keyed hash is.
//   - A wrong number, a wrong PIN and an expired PIN get the same answer.
//   - A try is counted before the PIN is compared, in one statement, so that parallel guesses cannot share a try.
package auth
