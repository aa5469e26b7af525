// Package thread is the fold of a thread: the pure function from (state, event, position, log time) to (state, verdict)
// that the edge, both projectors and the verifier share. Direct threads and groups go through the same rules.
//
// Promise: the same events in the same order give the same state and verdicts, whoever folds them, whenever, from
// whatever cut. The fold reads no clock, no store and no other subject.
//
// Order: events of helio.threads must be applied in position order. An event before State.Next is Stale and changes
// nothing, so a batch may be applied twice. Watermarks (helio.receipts) are not part of State: they only grow, so
// Watermark merges them in any order and without looking at membership, which lives on another topic whose relative
// order is not fixed.
//
// Non-obvious:
//   - A retry is found by (sender, message id) within Window of log time. State.Recent holds what is needed for that
//     and nothing older; whoever loads a state from a store must load it too, or look up each key before it is needed
//     (State.Unsure). What is left out are the earliest by log time, or all: a stamp that was ahead stays in the window
//     for longer than the clock tells.
//   - One wrong clock harms nobody: a stamp counts for at most MaxAhead beyond the thread's clock and the moment in the
//     message's id. The clock is the thread's and not its slot's: an edge sees the events of its own threads alone, and
//     after a night without any a slot's clock says as little as a thread's; the id of a message does.
//   - Former members stay in Members with their spans: they may read what was written while they were in.
//   - An invitation does not end by itself: no clock need be asked, and how many a group has is bounded. It is the
//     group's, so it outlives its inviter's membership.
//   - A direct thread begins with its first message, by the direct_peer that it carries; DirectThread(sender, peer)
//     must be the thread's id.
//   - Edits, deletions and reactions name (author, message id), which needs no look at the message itself.
package thread
