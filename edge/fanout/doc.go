// Package fanout is the users and devices that are connected to this edge: it brings each device up to date and then
// pushes what the replica tells of its user's threads.
//
// Promise: a device that is attached and syncs gets every event of its user's threads that he may see, and none that he
// may not; a device hears of each message that it has sent and the fold has rejected, and while it is live of the
// user's invitations, which it asks for after a Sync; on one connection it never gets an event of a thread before an
// earlier one of that thread that it still lacks. An event may come again, at or below the position that the device has
// applied: the device ignores it (wire 6.1), and so each is applied exactly once. A session whose device is revoked is
// cut as soon as the event is read.
//
// Order: events of a thread go to a session in position order. There is no order between threads. Receipts have none:
// they only grow.
//
// Durability: none; the device's cursor is its delivered watermark, which is in the log, or what it says itself when it
// syncs, if that is less: it was restored from a backup.
//
// When slow: pushing never waits for a device. What its session cannot take is dropped and the session told (Lagged);
// it syncs anew. What is held back for a device that catches up is bounded, and beyond that it lags too. With the store
// or the history down, a Sync is refused with CODE_UNAVAILABLE and the client asks again; a catch-up that nobody asked
// for is tried again.
//
// When restarted: sessions are gone, so everything begins anew with their Attach.
//
// What happens to a device's pushes:
//
//	Attach ──▶ off ────────────────▶ syncing ─────────────────▶ open
//	           ▲     Sync: all is       │  all was sent, and      │  events of threads that are caught up
//	dropped:   │     held back          │  what was held back     │  with are held back, others pushed
//	the next   │                        │                         │
//	Sync makes ├────────────────────────┴─────────────────────────┤
//	up for it  │  lagged: outbox full, or too much held back; Sync failed
//	           │                                                  │
//	           └───────────────── Detach, revoked, superseded ────┴──▶ closed
//
// A catch-up takes one thread after the other: it takes down its last position (the target), compares the device's
// cursor, and reads what lies between from the views once they are there. What was held back up to the target is then
// superfluous. One that nobody asked for (catchUpNow) concerns only the threads of which the device was found to have
// missed something.
//
// A Sync may have a window: then the threads beyond it are left, and nothing of them is pushed until the device asks
// for them (More) or something new comes in them, which catches up with them by itself.
//
// A thread that the replica does not follow for now, since the link has no room for it, is shelved (late.go): the Sync,
// or the catch-up, goes on without it and the device is told which one it is. It is caught up with when it is live.
//
// Locks: the list of people, and a device's, never one inside the other. What pushes to a
// Session is called under the device's, which keeps its pushes in order: so it must not call back.
//
// Non-obvious:
//   - The replica tells a moment after its state has something. So all of a thread is held back before its target is
//     taken, and a Missed that comes between the look at the state and the target has the target taken again.
//   - A device that was restored from a backup has less than its watermark says, and this edge may be behind that. So a
//     thread that its Sync did not get to is caught up with from where the device said that it was, and one that was
//     followed with a gap from before the gap, whatever the watermark says.
//   - The tail in Postgres is trimmed by age. What a device lacks of it comes from the history; threads that need it
//     come last in a Sync, since with a history that is down or behind the Sync ends there, and is tried again. What
//     was trimmed is told by thread, so whoever lacks nothing of it does not depend on the history.
//   - If a thread is not live, or its views do not get on, a catch-up that nobody asked for leaves the threads of its
//     slot for later, and nothing else waits: neither the device's other threads nor other devices. How long a device
//     that is on line has been behind is a metric, and said in the log after five seconds.
//   - An event is encoded once, by whoever is told of it first, for all devices of all users.
//   - An idle session has neither a goroutine nor a timer here.
package fanout
