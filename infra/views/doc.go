// Package views asks the thread views in Postgres: every question to them is here, and every
// caller gets typed rows; what a write or a trim reads of them stands with that.
// What writes them is projector/threads, their tables are in schemas/postgres; the history in ClickHouse has a room of
// its own, infra/history.
//
// Promise: an answer is what the views hold, and names what moment it sees. A question that is asked alone sees one
// moment. Questions that are asked by Moment see the same one: with the freshness among them, all that lies before its
// positions is in the answer, and nothing after them. Questions that are asked by Together see a moment each, in the
// order in which they were put.
//
// Order: as each question says; rows of a question that says nothing come in any order.
//
// Durability: nothing is written.
//
// When slow or down: the error of the database, with the question's name around it; infra/postgres tells whether it is
// transient. Nothing is cached or tried again here. However many questions are put together, they are one round trip.
//
// Units: positions and ordinals as in the log, times are log times.
//
// Non-obvious:
//   - A row that is handed to a function is valid until that returns: the next one is read into the same place. Slices
//     in it are new for each.
//   - A search by several keys is a LATERAL with OFFSET 0, which keeps it a search for one after the other. A join
//     would be planned by how many rows there were when the connection first asked, and might read all of them from
//     then on.
//   - Numbers of kinds stand in the text, not among the parameters: a partial index (messages_by_id) is used by a
//     prepared statement only when its condition is seen in it.
//   - The statements name no schema: the pool's search_path says which generation of the views is asked.
//   - A topic that this version does not know is "" in a row: the caller decides whether it may pass over it.
package views
