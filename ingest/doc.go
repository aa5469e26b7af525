// Package ingest appends events to the log. It is a library in the edge's process and the only code that produces to
// the topics that are folded.
//
// Promise: an event is acknowledged only when the log has it with acks=all; its Receipt is the place where anyone can
// find it again. Every Append ends in exactly one call of its callback.
//
// Order: events of one subject and topic lie in the log in the order in which Append was called for them, as far as
// they are acknowledged. Watermarks have no order; they are coalesced per (device, thread), because they only grow.
//
// Durability: what is acknowledged is on every in-sync replica. What failed with ErrUnavailable may be in the log all
// the same (a timeout is unknown, not failed): whoever sends again does it under the same message id, and the fold
// drops the second.
//
// When its machine's clock is more than a minute off that of Postgres, which all edges have in common: events are
// refused (ErrUnavailable), since folds go by their stamps. With Postgres down the last answer stands.
//
// When the log is not the one that it was (set back, made anew, changed, cut): nothing in such a partition is
// acknowledged (ErrUnavailable, with a *kafka.LogError), until the right log is back or an operator has adopted it.
// From each new connection to a broker on, acknowledgements are held until the last record known of each partition,
// from here or from where the views stand, was found in its place; those held too long end as unavailable.
//
// When slow: the buffer is bounded in records and bytes, and by the process's budget, against which it counts, and so
// do the watermarks that wait; a full one refuses at once (ErrUnavailable), it never blocks. With the log down, what is
// in flight fails after two seconds, and everything new fails at once until a probe reaches a broker again. Watermarks
// wait for it, the newest of each (device, thread) only; those that still wait when Run ends are dropped and counted,
// and the devices' next ones make up for them.
//
// One partition that takes nothing (no leader, too few replicas) has its own events refused, and is tried with one of
// them at growing intervals; the others go on. An event that a broker refuses for what it is (too large, invalid) is
// refused for good (*event.Invalid), and nobody else's is.
//
// Release is the entry of operators: it appends one decision about quarantine with a connection of its own.
//
// When restarted: nothing is kept. Devices send what was not acknowledged again.
//
// Non-obvious:
//   - Callbacks run one after the other on the producer's goroutine (or, for an event that is refused at once, on the
//     caller's, before Append returns). One that blocks stops every ack of the process.
//   - A broker refuses a batch, and the producer fails with it all that it holds for the partition: which event was the
//     one is not told. So all are asked to come again, and the partition takes one event at a time for a minute: what
//     is refused alone is refused for good. Those that wait for their turn keep their order.
//   - Two producers: a message must not wait for a batch of watermarks to fill.
//   - Log time of a Receipt is the record's stamp as this process knows it. With LogAppendTime the broker sets its own
//     a moment later, which the produce answer's client does not pass on: Apache Kafka's may differ by the clock skew.
//     The log's is the one that counts.
//   - The clients are made by New, which connects to nothing; Run closes them.
package ingest
