// Package engine holds what the three embedded engines have in common: the one error that an operator sees, the lock
// and the format note of a data directory, and the choice of a port.
//
// Promise: a data directory that Open returned belongs to this process alone until Close, is writable, and was written
// by an engine of the same kind and format. Everything that stands in the way of that is an *Error, one line that ends
// with what mends it.
//
// Durability: the format note is written once, with fsync, before the engine puts any data beside it.
//
// Slow or restarted: a lock held by a process that has said it is stopping is waited for (StopWait); one held by a
// process that goes on is waited for only HeldWait, enough for a signal to arrive. The kernel drops the lock of a
// killed process, so nothing is ever cleaned up by hand.
//
// Non-obvious:
//   - The lock is flock(2) on the file "lock", not the file's existence: a stale file means nothing.
//   - Ports are picked below 32768, outside the kernel's ephemeral range. A client that redials a port of the
//     ephemeral range while its server is down can be given that very port as its own source and connect to itself.
//   - Error crosses a process boundary as JSON and arrives without its cause; errors.Is with a Fault still holds.
package engine
