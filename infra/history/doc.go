// Package history asks the message history in ClickHouse: every SELECT of ours over its tables is here, and every
// caller gets typed rows. What writes them is projector/history, their tables and the analysts' views are in
// schemas/clickhouse; the thread views in Postgres have a room of their own, infra/views.
//
// Promise: an answer holds each event once, however often its range was inserted, save where a question says that one
// may come twice. There is no moment over several questions: each sees what was inserted when it began. What lies
// before the freshness that was asked first is in every later answer, and what lies behind it may be; a question with a
// position to end before does not see it.
//
// Order: as each question says; rows of a question that says nothing come in any order.
//
// Durability: nothing is written.
//
// When slow or down: the error of the database, with the question's name around it; infra/clickhouse tells whether it
// is transient. Nothing is cached or tried again here.
//
// Units: positions and ordinals as in the log, times are log times in milliseconds.
//
// Non-obvious:
//   - FINAL makes one row of those that ReplacingMergeTree has yet to make one. It is cheap inside a few threads, since
//     their key range is small. Questions that see a row twice with the same outcome (a maximum, one by its key) do
//     without.
//   - In quarantine the row that was written last at a position counts, so it is always asked with FINAL, and what is
//     released is in no answer.
//   - A rebuild in place takes a higher generation. How far the history is says its latest: what an earlier one had may
//     be gone.
//   - Several ids go into the text: the number that one question takes is bounded by the server's max_query_size. See
//     AtOnce.
//   - A topic that this version does not know is "" in a row: the caller decides whether it may pass over it.
//   - The statements name no database: the connection's default database says which one is asked.
package history
