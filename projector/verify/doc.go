// Package verify compares a view with a fresh fold of the log, in memory: what an operator asks when he does not trust
// a view, and what the tests of the promise that every view is a pure function of the log ask.
//
// Promise: a comparison with no differences means that every row that the log gives is in the view with the same
// contents, and no other.
//
// Order: the reference takes records in the order of the log, slot by slot.
//
// Durability: none; the reference is in memory and as large as the log's rows, of which the long ones are kept as
// digests.
//
// When slow: the view is read in one snapshot (Postgres) or with FINAL (ClickHouse), whole tables at a time. Threads
// and History then fold the log up to the positions that the view had by then, however far either goes on meanwhile.
// CompareThreads and CompareHistory take a reference that was filled before: there a view that is behind it, or ahead
// of it, differs.
//
// Restart: it writes nothing, produces nothing and joins no group, so it may be ended at any time and begun again.
//
// Non-obvious:
//   - The reference shares the folds and the skeleton with the projectors, and nothing else: rows are made here anew.
//   - A row of the history at or after the position that the history had is of an event that was just being taken in,
//     and is not compared; one beyond the end of the log is of no event, and differs.
//   - Messages that the tail may have lost by now, by log time, are left out of the comparison with Postgres.
//   - Receipts are compacted in the log: the history may hold more of them than a fresh fold, and that is not a
//     difference. For the same reason a watermark of the thread views cannot be judged when its device told of more
//     after the moment of the comparison; the Report counts those.
//   - Memory holds the rows of a view and those of the log at the same time. To need less, compare some partitions at a
//     time; each time whole tables are read, and the log of those partitions alone.
package verify
