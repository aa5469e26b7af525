// Package lag tells how far the views are behind the log, asked of the stores and of the log itself (Meter), and not of
// the processes that fold: a view of which every projector is dead has a lag too, and nobody of its own to tell of it.
// Watch exports it from one process of a deployment at a time.
//
// Promise: a lag in records is of records that the log had before the view was asked, so a view that keeps up has none,
// however busy the log. A lag in seconds is the age of the oldest record that is not taken in, or less (Place.AtLeast
// tells), and never more.
//
// Order: the log's ends are asked for before the views' positions. A view that seems ahead of the log is judged by ends
// that were asked for after.
//
// Durability: none.
//
// When slow: each question to the log or to a store is bounded by AskTime, and all are asked at the same time. A store
// that does not answer is told (View.Error) and costs the others nothing.
//
// When restarted: a Meter that has asked before knows, from the ends that it saw, how old what is missing must be. One
// that asks for the first time reads a record of each partition that lags, at most Config.Reads of them.
//
// Non-obvious:
//   - A record's age is by its log time and this machine's clock.
//   - In a compacted topic a lag counts offsets, and fewer records may be left to read.
//   - Who watches is decided by a consumer group over the roster's topic, which has one partition: whoever owns that
//     one. It reads nothing there.
package lag
