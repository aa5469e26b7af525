// Package delivery pushes the events of the log to the edges that asked for their subjects. An instance owns slots (a
// Kafka consumer group shares them out), reads partition p of the threads, receipts and users topics for each slot p,
// and serves links (infra/link, schemas/link/v1/link.proto).
//
// Promise: on a link, every event of a subscribed subject at or after the live_from of its Subscribed comes, while the
// instance owns the slot and the link stands, and within a topic of a slot in position order. Events are passed on as
// the bytes that the log has; nothing here decodes or filters by content. Events may come again: after a takeover, and
// when a subject is subscribed twice.
//
// Order: within one topic of one slot. Between topics and between slots none.
//
// Durability: none. Interest and the ring are in memory; the log has everything. Kafka commits are made each second; a
// new owner takes them as a hint only, for how far back its ring should begin.
//
// When slow: a link whose bounded queue is full is closed, with the reason counted (helio_delivery_links_closed_total);
// the edge connects again and resumes from its cursors. Nothing waits for a link but the catch-up of that link's own
// subscription in one slot. A slow log or a stalled slot shows in helio_kafka_lag_seconds{view="delivery"}.
//
// When restarted: links break and slots move, at once after an orderly stop (the instance leaves the group),
// after the session timeout otherwise. The new owner begins at the earlier of what the group had committed and the tail
// less the ring's window, so that an edge's cursor is in its ring. Messages are late, never lost.
//
// Non-obvious:
//   - What an operator has dropped out of quarantine is pushed like everything else: edges know what they pass over.
//   - The ring keeps what was read in the last seconds by the clock, not by log time: after a backlog it covers the
//     edges all the same.
//   - A cursor that is older than the ring is served from the log itself, if it is not too far back (100,000 positions
//     of a topic, an hour), so that edges resume with Postgres down; beyond that live_from is the ring's start and the
//     edge takes a snapshot.
//   - While a subscription catches up, the link gets no live events and no Progress of that slot (they are taken from
//     the ring afterwards): so Progress after Subscribed says that the subscription is complete. In the usual case all
//     of it happens under the slot's lock and nothing is held.
//   - A slot's lock is held while frames are put into links' queues, never while one is written.
//   - A zombie (paused beyond its session) goes on pushing for a moment. Its events are the log's own, so who drops by
//     position is not misled.
package delivery
