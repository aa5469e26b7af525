// Package budget bounds the memory that a process lets others fill: frames that wait for devices or on links, events
// that are held back or wait for a snapshot, events and watermarks on their way to the log, requests under way, records
// that were fetched and not yet applied. Each such place has a bound of its own; this is the bound of their sum.
//
// Promise: Used stays below the limit but for what one holder puts into an empty place at a time, and it comes down
// with what is released. Nobody waits for memory that only he could give back: a place that is empty always takes one
// item, and what Work hands out is given back without asking for more.
//
// When much is in use the largest give way first: one holder may have a part of what is free (Most), so that when many
// hold much the bound of each falls, and who is above it is refused, while those that hold little are served (dynamic
// thresholds, Choudhury and Hahne 1998). No list of holders is kept and none is searched.
//
// What an edge keeps of its threads' last day, for the rule on repeats, cannot be let go: without it each message would
// wait for the views. It is some 112 bytes for each message, 40 once the thread is idle, so an edge whose threads get
// a hundred messages a second has up to 1 GiB of it after a day; of one thread at most 65,536 messages are loaded. It
// is counted (Keep, helio_budget_kept_bytes) and has a quarter of the memory; what it takes beyond that, less may wait,
// until places hold no more than the little that each may have in any case. So the sum of the two stays below half of
// the memory while what is kept does: an edge that keeps more needs more memory, or others beside it.
//
// Non-obvious:
//   - Sizes are of payload, with an allowance per item. What the runtime keeps beside it (fragmentation, garbage that
//     waits for its collection) is why the limit is a quarter of the memory and not most of it.
//   - The memory is the cgroup's (v1 and v2, the tightest of all levels), unless GOMEMLIMIT says otherwise. Where there
//     is none it is half of the machine's, since a laptop has other work.
//   - A nil *Budget has no limit.
package budget
