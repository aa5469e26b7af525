// Package generation builds a view anew beside the live one, from the log, and has it take the live one's place: what
// 'helio replay' does.
//
// A generation is one building of a view with everything that belongs to it: tables, positions, quarantine, version of
// its migrations. Of the thread views it is a schema of Postgres beside the live one, of the history a database of
// ClickHouse. A replay fills it, follows the log, compares it with a fold of the log, and switches. The one that was
// live is kept until it is dropped, and a rollback is the same again: it is filled from where it stopped, and switched
// to. So no read ever goes back, in either direction.
//
// One thread or user can be mended in place (Mend): its records alone are folded into a generation beside, and its rows
// there take the place of those that are live.
//
// Promise: whoever reads sees the one generation or the other, as a whole, and nothing older than he could have seen
// before; roles follow without a restart. A replay that is killed at any moment goes on from where it was when the same
// command is given again. It writes nothing but the generation: no log, no device, no other store hears of it.
//
// Order: within a subject that of the log; all partitions are read in parallel.
//
// Durability: as that of the view (see projector/threads, projector/history): positions lie beside the rows. The switch
// waits for the disk.
//
// When slow: a replay takes what the budget of its process and Options.Rate let it, and the live view goes on
// meanwhile. The switch waits for whoever reads for long, and is tried again until it gets its moment.
//
// Two replays of a view: the second is refused (BusyError).
//
// Non-obvious:
//   - A replay belongs to no group of consumers: it takes no partition from the live view's projectors.
//   - The switch of the thread views is one transaction that renames two schemas. Every statement names tables without
//     a schema, and Postgres looks names up again when a schema was renamed, prepared statements included. A
//     transaction could so begin in the one generation and end in the other; so the switch first takes every table of
//     the live one for itself, which waits for all that have touched one, and holds off those that have not.
//   - It waits for a lock for a moment only, gives up everything, and tries again: who waits behind it waits no longer
//     than that, and of a deadlock it is always the one that gives up.
//   - The table generation is the gate of those that write: they hold it first. Once the switch has it, positions stand
//     still, and what is built catches up with them exactly.
//   - ClickHouse has no transaction over tables. The switch of the history says that it is under way, which keeps
//     writers from taking slots over, takes theirs away, lets what is built catch up, and exchanges table by table;
//     whoever is killed on the way leaves word of what was to become what, and the next brings it to its end. Until
//     then the writers wait. Each table is complete all the time, and positions are exchanged last, so that none of
//     them is ahead of the rows.
//   - An exchange that is made twice is none. So tables are known by what identifies them and not by their names, and
//     whoever does not have the lock any more exchanges nothing. Between that look and the exchange somebody could be
//     held up for longer than the lock lives: that is the one hole.
//   - Objects outside of the schema that read its tables (views of analysts, publications) go by identity and not by
//     name: they go on reading the retired tables. The switch warns of such views, and a drop refuses.
package generation
