// Package client is the Go SDK of Heliograph: a device. It speaks the wire protocol (heliograph/schemas/wire/v1), keeps
// itself connected, keeps what is not acknowledged in an outbox and gives what comes in to the application exactly once
// and in order.
//
// A Client is made by New, does nothing until Run, and ends when Run's context does. With no identity in its Store it
// connects and waits for RequestPin and Register; with one it authenticates, synchronises, sends the outbox again and
// then lives.
//
// Promise: Send returns once the Store has the message; it then stays in the outbox, over reconnects and restarts,
// until the log has it or the server refuses it for good. What is refused, or rejected by the fold after the log has
// it, keeps its text (Unsent) until it is forgotten. Events yields each event of a thread once and in position
// order; an event counts as applied when the loop asks for the next one, and only then does the cursor move and the
// server learn of it. So an application that stops inside the loop sees that event again.
//
// When the application is slow: the reader stops reading, the server's outbox for this device fills, and the server
// makes it resume from its cursor. Nothing is lost and memory stays bounded.
//
// When the edge dies: it says nothing, or a stateless reset if something has taken its place. A device that has heard
// nothing for Config.KeepAlive (5 s) writes a frame that a reset can answer, and goes to another edge when it hears
// nothing for 4 s more. Measured with 150 devices at rest: live again within 3 s of a restart, and within 9 s of the
// death of an edge that does not come back. After an outage, however long, an address that says nothing is asked again
// within four seconds of an attempt of five, and the waits begin anew with the first answer. Probe asks at once: an
// application calls it when the network has changed or the machine has slept, and Foreground when it is looked at
// again.
//
// What that costs: a device at rest sends some 85 bytes and gets some 35 (28 of UDP and IP to each) every 5 s, 130 KB
// an hour, and the radio of a telephone, which falls asleep after some 10 s, stays awake. Beside a lit screen that is
// little. After Background it is every 20 s, 33 KB an hour and the radio awake for about half of the time: for minutes,
// such as until something is sent. An application that is out of sight for longer lets Run end, and is woken by a push.
// QUIC's idle timeout is 60 s, and many a router forgets a silent connection after 30, so rarer keep-alives keep none.
// What it costs the edges stands in package edge: a million devices in the foreground keep some 36 cores busy.
//
// When it cannot work: a Fault (certificate, clock, no edge at the address) is named by the first attempt, in
// Disconnected and by every call that waits for a connection. The client goes on trying.
//
// Non-obvious:
//   - One goroutine at a time may range over Events. All other methods may be called concurrently, also from inside the
//     loop.
//   - A retry after a timeout or a lost connection has the same message id; the fold drops the second copy.
//   - A message sent by this device comes back as an Event like everybody's, with its place; until then it has only its
//     Ack.
package client
