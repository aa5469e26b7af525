// Package projector is the skeleton of every view of the log: a Sink reads batches into events, puts those that cannot
// be applied into quarantine, folds the others, has a Store write what came of them with the positions behind it, and
// counts, logs and reports. projector/threads keeps the thread views in Postgres, projector/history the history in
// ClickHouse, projector/verify a reference in memory, with which it compares either: they load and write, no more.
//
// Promise: whether an event is applied, ignored or put into quarantine depends on the log alone, so every view puts the
// same events there.
//
// Order: within a (topic, subject) events keep the order of the log, those in quarantine too.
//
// The log: with each position a store keeps the mark of the record before it, so that a view knows its log again and
// stands still in another one. See infra/kafka.
//
// Durability: the store's. What a Sink knows of a slot is what the store has written, or is forgotten.
//
// When slow: a slot's calls come one at a time and wait for its store. When restarted: nothing of this package outlives
// a slot's session but which subjects still wait for a newer version; Open reads what is stored, and states are loaded
// as events ask for them.
//
// When upgraded: what an older version has put into quarantine for a newer one is drained by Open, before anything else
// of the slot: its events are read from the log again and folded as of where their subject stopped, part by part, up to
// the next one that this version cannot apply either. Each part is stored whole, its rows and what leaves quarantine
// for them, so that a drain may be cut off anywhere and goes on from there; the view is then what a fold by this
// version would have made of the log from the beginning. While the log or the store does not answer, Open fails and is
// tried again; what is wrong with one subject keeps that subject in quarantine, and says so.
//
// What an operator drops out of quarantine (kafka.Releases) is taken out by Open too, and what was parked behind it is
// drained. Whether the drop was known before the event came or after makes no difference to the rows: the consumer
// brings what is dropped without a value, which is no one's event. What he wants tried again is drained like what a
// newer version takes over, once for each time that he asks; where it cannot be applied still, that is reported.
//
// Non-obvious:
//   - A batch that failed may have changed the states that it touched: they leave the caches and are loaded again.
//   - What has an effect is the fold's to say, so a store is only told of accepted events.
//   - An event is parked, not skipped: once one of a subject could not be read, all later ones of that subject on that
//     topic are parked behind it, because the fold after a hole would be a guess. Other subjects, and the same subject
//     on other topics, go on.
//   - What is in quarantine for another reason than a newer version is not drained unless an operator asks: nothing
//     says that it would be right now. Nor is a subject of which the log has lost an event. Receipts may be gone, since
//     a later one says the same.
//   - The first event of a subject in quarantine with the reason Parked is where a drain was cut off, or stands behind
//     one that was dropped.
//   - A drop of an event that a view has taken in, since a version that can apply it came first, takes nothing out of
//     it: the tool refuses to say it, and verify finds it.
//   - A key of the wrong length has no subject. Such an event is recorded under the zero subject and nothing is parked
//     behind it.
//   - An event on which the fold panics is treated as one that cannot be read. See Intake.Fold.
//   - An event that can be read but breaks a rule (not a member, a field too long) is the fold's to reject: it has no
//     effect and is not parked.
//   - Tombstones and LogOpened are no one's events and are passed over.
package projector
