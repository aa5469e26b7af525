// Package operator is what those who run Heliograph ask of it: the log as it lies on the brokers (Log, Tail, Topics),
// an event in words (Event), how far the views have got (Views, Lag) and whether that is well (Judge), which processes
// run (Processes) and what waits in them (Scrape, Look), and what became of one message (Trace). The commands parse
// flags and print; what they print is found here.
//
// Promise: nothing here writes, joins a group or commits. An answer about a message rests on the log: what the views
// know of it says only where to look, and is told beside it.
//
// Order: the events of a slot come in the order of the log. Between slots there is none, and none is made up but for
// the last events of a Tail, which are sorted by log time.
//
// Durability: none; nothing is kept.
//
// When slow: each question to the brokers is bounded by 20 s, each to a view by 10 s and each to a process by 2 s. The
// reading of the log is bounded by its caller alone. What does not answer is told in the answer (Place.LogError,
// ViewPlace.Error, lag.View.Error, Gauges.Error) and costs the rest nothing.
//
// Restart: an answer is of one moment, the one at which the Log was opened. What comes later is beyond its ends, so
// reading comes to an end also in a busy log.
//
// Non-obvious:
//   - Tail reads a subject backwards, in ever longer stretches, so that one that was heard of lately costs little in a
//     long log.
//   - Trace searches a message that no view has among what was logged around the time in its id, which is the clock of
//     the device that wrote it: a wrong clock needs a wider window.
//   - Why a message was refused is told by folding its thread anew, unless more than two million records lie before
//     it.
//   - What messages say is shown only when asked for. People wrote it: who prints it to a terminal cleans it first.
package operator
