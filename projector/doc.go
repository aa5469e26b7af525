// Package projector is what the two projectors have in common: how a batch of the log is read into events, which
// subjects are parked, and a bounded cache of fold states. projector/threads keeps the thread views in Postgres,
// projector/history the history in ClickHouse, and projector/verify compares either with a fresh fold of the log.
//
// Promise: whether an event is applied, ignored or parked depends on the log alone, so every view parks the same
// events.
//
// Order: within a (topic, subject) events keep the order of the log, parked ones too.
//
// Durability: none here; a view stores its parked events with its rows.
//
// When slow or restarted: nothing of this package outlives a slot's session.
//
// Non-obvious:
//   - An event is parked, not skipped: once one of a subject could not be read, all later ones of that subject on that
//     topic are parked behind it, because the fold after a hole would be a guess. Other subjects, and the same subject
//     on other topics, go on.
//   - A key of the wrong length has no subject. Such an event is recorded under the zero subject and nothing is parked
//     behind it.
//   - An event on which the fold panics is treated as one that cannot be read. See Intake.Fold.
//   - An event that can be read but breaks a rule (not a member, a field too long) is the fold's to reject: it has no
//     effect and is not parked.
//   - Tombstones and LogOpened are no one's events and are passed over.
package projector
