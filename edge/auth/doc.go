// Package auth registers phone numbers and proves devices (the bytes that are signed: wire 4.1).
//
// Promise: a PIN is used at most once, lives for five minutes, takes at most five tries, is good only for the device
// key that asked for it, and is stored only as a keyed, salted hash. Limits per phone number, address and network,
// number range, country and deployment are shared by every edge through Postgres and fail closed: when they cannot be
// read, no SMS is sent and no PIN is judged. A registration is answered only once the log has it.
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
//   - A wrong number, a wrong PIN and an expired PIN get the same answer, after the same time.
//   - Nobody locks a number's owner out: a stranger's tries count against the stranger's PIN and address. When many
//     addresses guess at a number, its PINs take one try each; the owner has the PIN. What strangers have sent to a
//     number in a day is bounded; a network from which the number was registered in the last 400 days does not share
//     that bound. An owner elsewhere, while strangers in four networks ask for his number all day, waits.
//   - A wrong try has 1 in 10^6. At one number 30 a day and one for each PIN are judged: at most 50 on the first day
//     from networks that are not its own.
//   - A try is counted before the PIN is compared, in one statement, so that parallel guesses cannot share a try.
package auth
