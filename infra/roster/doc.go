// Package roster is which processes of a deployment there are: each says so itself (Announcer), and an operator's
// command reads it (Read) without being told any address.
//
// It lies on the log, in a topic of its own with one partition (Topic), because the log is the one thing that every
// role reaches: neither a delivery instance nor the projector of the history knows Postgres. It is not part of the
// truth: no fold reads it, no view is made of it, and it is kept for a day.
//
// Promise: a process that runs and reaches the log is in the roster, with what it said within the last Every; one that
// was stopped says so; one that died is there with the time at which it was heard last.
//
// Order: what a process said last counts, by the order of the log.
//
// Durability: an announcement is acknowledged by one broker. One that is lost is made up for by the next.
//
// When slow: one announcement is under way at a time, for Every/2 at most. A log that takes none costs the process a
// line in its log and nothing else.
//
// When restarted: a process is another instance, with a name of its own (Role.Instance), so two of one name are seen as
// two.
//
// Non-obvious:
//   - When a process was heard is told by the log's clock where the broker stamps records, and else by its own.
//   - An address that is bound to all interfaces is announced as that of the interface which leads to the log.
package roster
