// Package session is a device's connection on the edge: its frames, its state, its requests and its outbox. The
// protocol is specified in schemas/wire/v1/wire.proto; handlers cite its sections.
//
// Promise: a request with an id is answered exactly once or the connection ends. A message is acknowledged only when
// the log has it. A read is not older than what the same connection was told by pushes and acks before it: it waits for
// the views, for viewWait at most, and is then refused with CODE_UNAVAILABLE. No push is left out between two that are
// sent, unless Resync comes in between.
//
// Order: frames to the device leave in the order in which they were handed over. Messages of one connection to one
// thread are appended in the order in which they came in: behind one that is refused for now, later ones are refused
// too until it comes again. Other requests run side by side.
//
// Durability: none; a session that ends takes nothing along that a device does not send, or is not sent, again.
//
// When slow: the outbox is bounded in frames and bytes. A push that does not fit is refused to the fanout, which then
// calls Lagged: waiting pushes are dropped and counted, and the device is told to Sync again (wire 8.1). A device that
// reads nothing for Config.WriteTimeout, or does not answer Resync in time, is closed with CODE_SLOW_CONSUMER. An
// answer is never dropped: where not even that fits, the connection is closed.
//
// States: hello (only Hello) -> unauthenticated (RequestPin, Register, Authenticate) -> authenticated (everything
// else). Sync moves what is live in the fanout, not what is allowed here.
//
// Non-obvious:
//   - An idle session is one goroutine, blocked in a read of one byte, and no buffer: connections are many and mostly
//     idle. A writer goroutine exists only while there is something to write, and read buffers come from a pool with
//     the first byte of a frame.
//   - Acks come on the producer's goroutine and go straight to the outbox, so sending costs no goroutine. Only a
//     message to a thread that this edge does not know yet waits, in a lane of its thread, with all that follow it to
//     that thread.
//   - Whoever begins a thread appends ThreadJoined first, and then waits until this edge has read its own: by then it
//     has also read an earlier one by the other side, so that both listen from the thread's true beginning.
//   - Edges believe a ThreadJoined that says that its thread is new, so it is only said of a direct thread, whose id
//     names its members, or of a group whose state was looked at and is empty.
//   - Whose device a session is, and from when on it is shown anything, is taken from the fold after Attach, not from
//     what registration appended.
//   - Frames before authentication are bound by maxEarlyFrame, not by the limit announced in Welcome.
package session
