// Package hub is an edge's side of delivery: which threads and users its sessions are interested in, their states, and
// the events that go to each device.
//
// Promise: a device that is attached and syncs gets every event of its user's threads that he may see, and none that he
// may not; on one connection it never gets an event of a thread before an earlier one of that thread that it still
// lacks. An event may come again, at or below the position that the device has applied: the device ignores it (wire
// section 6), and so each is applied exactly once. A session whose device is revoked is cut as soon as the event is
// read.
//
// Order: events of a thread go to a session in position order. There is no order between threads. Receipts have none:
// they only grow.
//
// Durability: none. All that the hub holds can be had again from the log's ring in delivery and from the thread views
// in Postgres; the device's cursor is its delivered watermark, which is in the log.
//
// When slow: reading a link never waits for Postgres or for a session. What a session cannot take is dropped and the
// session told (Lagged); it syncs anew. Events for a subject that waits for its snapshot are held, up to a bound, and
// then the subject is subscribed anew. Postgres down: what is live stays live; what is new waits, and after Config.Wait
// the client is told CODE_UNAVAILABLE and asks again. Delivery down or moved: sending goes on against the states as
// they are; events come once a link is back, from the cursor where they ended. Meanwhile the views are asked which
// devices were revoked, so that one whose user's slot is not heard is cut all the same, as soon as the views know.
//
// When restarted: sessions are gone, so everything begins anew with their Attach.
//
// How a subject (a thread, or a user) turns live:
//
//  1. Subscribe without a cursor; the answer's live_from L is the oldest that the ring has. From then on events are
//     held.
//  2. A snapshot in one repeatable-read transaction that reads the subject's rows and the slot's positions S. Only when
//     S has reached L in each topic of the subject does it count: then events before S are in it, and those from S on
//     are held or will come. The fold drops what comes twice.
//  3. A thread of which ThreadJoined says that it has no event before a position that L does not exceed needs no
//     snapshot.
//
// When a link breaks, live subjects resume from the slot's cursor. If the answer's live_from is beyond it (and beyond
// what the subject has applied), there is a gap: back to 2, and when the snapshot shows that events were missed, the
// sessions concerned catch up with that thread.
//
// Non-obvious:
//   - Locks are taken in this order: linkMu, slot, user, client, session. No two slots' locks together: what concerns
//     another slot is put into actions, which run after the lock was released. Nothing waits for I/O under any of them.
//   - A slot's cursor comes from Progress only, and stands still while a live subject is not subscribed with the slot's
//     owner. A subject that turns live takes the cursor back to where its snapshot stands, unless a Progress has come
//     since it was subscribed.
//   - A catch-up's threads are captured under their slots' locks: what is up to the captured position comes from the
//     views, what is after it is held back. See sync.
//   - A live session that missed something of one thread catches up with that thread alone (catchUpNow): the others'
//     events are pushed meanwhile. If the store does not answer, that thread waits and nothing else does.
//   - The tail in Postgres is trimmed by age. What a device lacks of it comes from the history; threads that need it
//     come last in a Sync, since with a history that is down or behind the Sync ends there, and is tried again. What
//     was trimmed is told by thread, so whoever lacks nothing of it does not depend on the history.
//   - The views may go back: Postgres commits without waiting for its disk, and after a crash it has older rows and
//     positions. So what is read for a catch-up counts only if the same transaction saw the slot beyond the range; else
//     it is read again once the views are there.
//   - A thread that the user has left stays of interest while he is connected: his other devices must see him leave.
//   - Positions begin at 0, so "nothing" is -1 here. A cursor row that names position 0 and ordinal 0 counts as
//     nothing: position 0 may come again.
//   - A user is held without contacts and blocks, and idle sessions have neither a goroutine nor a timer here.
package hub
