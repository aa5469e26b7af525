// Package history keeps the message history in ClickHouse: messages, all other events of threads, changes to messages,
// memberships and receipts, folded from helio.threads and helio.receipts.
//
// Promise: every row is a pure function of the log, and each event's rows are there exactly once in effect: before a
// batch is inserted its range is written down as begun, each insert carries a token made of view, generation, range,
// table, month, chunk and the positions of its rows, and afterwards the range is done. After a crash exactly the begun
// range is inserted again under the same tokens, and the engine drops what it has already. Verdicts come from fold
// states loaded from ClickHouse alone: Postgres is never asked.
//
// Order: within a subject that of the log.
//
// Durability: an insert that was answered is in a part on disk; async_insert is off.
//
// When slow or down: the slot's batch is tried again with backoff and its lag grows; an engine that falls silent is
// given up after Config.Timeout. When restarted: each slot goes on from its highest done position, after the begun
// range behind it, if there is one.
//
// Non-obvious:
//   - ClickHouse has no compare-and-set; this takes its place. Who takes a slot over writes down an epoch above all
//     that there are (owners), and only then reads positions. A writer looks who is the owner after a range is stored
//     as begun and before any of its rows are, and again after it is done; if it is not the owner any more it stops
//     (kafka.ErrFenced). So of a writer that was replaced nothing can land any more, with one exception: the range that
//     it had begun before. That one its successor has found, and inserts it too, exactly, under the same tokens, which
//     keep each row single. Where the two are of different versions and judge that range differently, rows of the older
//     may replace those of the newer: 'helio verify' shows it, and a rebuild mends it.
//   - That holds where a query sees what was answered before it: on one server, or on replicas with
//     insert_quorum and select_sequential_consistency.
//   - The tokens are remembered for the last non_replicated_deduplication_window inserts of a table. A rebuild in place
//     must take a new generation, since tokens outlive deleted rows.
//   - An insert keeps to one month of log time, the partition, so that it is one block and all of it or nothing of it
//     is there.
//   - States are loaded as of a position (rows before it), so the rows of a half-inserted range are not seen by its own
//     repetition.
//   - Another version may make more of a begun range than the one that began it. Its inserts have other tokens then,
//     and what the range had in quarantine and has not any more is taken back.
//   - In quarantine the row that was written last at a position counts: one that is released says that there is nothing
//     in quarantine any more. Its inserts have tokens that never come again, or what was said before could not be said
//     again: without a token newer servers compare the rows, whatever insert_deduplicate says. When
//     quarantine is drained the rows come first and what releases their events last; who is cut off in between drains
//     them again, as of where each subject stopped.
//   - A thread is loaded with the Config.Recent messages of the window for retries that have the latest log times;
//     beyond those, messages are looked up by their ids.
//   - A busy slot gathers on purpose (Config.Consumer.LingerBusy): its lag in seconds then swings up to about that, and
//     it is no fault.
//   - In helio.receipts records vanish by compaction. A begun range that is inserted again long after may have fewer of
//     them: those that are newer say the same and more.
package history
