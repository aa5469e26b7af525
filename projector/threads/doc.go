// Package threads keeps the thread views in Postgres: users, devices, threads, members, watermarks and the recent tail
// of messages, folded from helio.threads, helio.receipts and helio.users.
//
// Promise: every row is a pure function of the log. A batch's rows and the positions behind it are one transaction, so
// each event takes effect exactly once. Two writers on one slot cannot both succeed: the second fails with
// kafka.ErrFenced and drops what it knew.
//
// Order: within a subject that of the log.
//
// Durability: synchronous_commit is off for these transactions. A crash of Postgres may take the last of them, rows and
// position alike, and the log brings them again.
//
// When slow or down: the slot's batch is tried again with backoff and its lag grows; nothing is skipped. A server that
// falls silent is given up after Config.Timeout, and asked again over a new connection. When restarted: each slot goes
// on from its stored positions and loads the states that it needs as events ask for them.
//
// Non-obvious:
//   - A batch is folded in memory first, so no row is written twice by a statement; rows are sorted by primary key, so
//     two slots cannot deadlock.
//   - A small batch is one round trip: its statements form one pipeline, which Postgres runs as one transaction. A
//     batch of CopyRows rows and more goes through COPY.
//   - A thread is loaded without its recent messages: those that a batch may repeat are looked up by their ids, since a
//     busy thread has thousands within the window.
//   - After a failed write the states that the batch touched are forgotten: they are ahead of the tables.
//   - What is drained from quarantine is one transaction with what leaves it, which fails as fenced unless positions
//     and quarantine are as they were when it was read. It waits for the disk: the positions do not move, so nothing
//     else would tell that a crash has taken it back.
//   - A schema holds one generation of the views, and another may take its place under the same name at any moment (see
//     projector/generation). Names of tables are looked up statement by statement, so each transaction begins by
//     holding the generation that its slot was opened with: it is of that one as a whole, or fails as fenced, and the
//     slot is opened anew and takes no state along. Trim is one statement at a time, and touches nothing that it did
//     not find.
//   - Per-user and per-thread rows of one batch come from different topics and mean nothing to each other.
//   - The tail is trimmed by log time, not by the clock: a view that is rebuilt years later keeps the same rows.
//     Retention is at least 48 hours, twice what the rule on repeated message ids looks back, so trimming takes nothing
//     that loading a state needs; a thread in quarantine is not trimmed at all, since it is folded on from where it
//     stopped. The table trimmed tells how far each thread was: it is no function of the log, but of when a projector
//     trimmed, and says nothing that is not so.
package threads
