// Package client is the Go SDK of Heliograph: a device. It speaks the wire protocol (heliograph/schemas/wire/v1), keeps
// itself connected, keeps what is not acknowledged in an outbox and gives what comes in to the application exactly once
// and in order.
//
// A Client is made by New, does nothing until Run, and ends when Run's context does. With no identity in its Store it
// connects and waits for RequestPin and Register; with one it authenticates, synchronises, sends the outbox again and
// then lives.
//
// Promise: Send returns once the Store has the message; it then stays in the outbox, over reconnects and restarts,
// until the log has it or the server refuses it for good. Events yields each event of a thread once and in position
// order; an event counts as applied when the loop asks for the next one, and only then does the cursor move and the
// server learn of it. So an application that stops inside the loop sees that event again.
//
// When the application is slow: the reader stops reading, the server's outbox for this device fills, and the server
// makes it resume from its cursor. Nothing is lost and memory stays bounded.
//
// Non-obvious:
//   - One goroutine at a time may range over Events. All other methods may be called concurrently, also from inside the
//     loop.
//   - A retry after a timeout or a lost connection has the same message id; the fold drops the second copy.
//   - A message sent by this device comes back as an Event like everybody's, with its place; until then it has only its
//     Ack.
package client
