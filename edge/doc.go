// Package edge is the place where devices connect: the QUIC listener with its limits, the registry of sessions and the
// orderly drain. What a connection says is package edge/session's.
//
// Promise: a connection beyond the limits is refused with a code, not left hanging. A device has at most one session on
// this edge; the newer one wins.
//
// Order: none between connections.
//
// Durability: none of its own. With a secret shared by all edges (Config.Secret), a client whose edge died learns it at
// once by a stateless reset instead of waiting out the idle timeout.
//
// When slow: the accept loop only hands connections on. Above 2,000 handshakes a second a client's address
// is verified first (Retry); above 10,000 handshakes are refused.
//
// When restarted: Drain tells every device to go away, spread over five seconds, and flushes the log's producers
// before it closes what is left.
//
// Non-obvious:
//   - While draining the socket stays open and new connections are closed with CODE_DRAINING: with a closed listener
//     their handshake would just hang.
//   - 0-RTT is off. Sessions are resumed by ticket, and the exporter that proofs are bound to differs in each
//     connection all the same.
//   - Flow control windows are small: what an unauthenticated client can make us hold is their sum, not megabytes.
//   - The listener dispatches by ALPN; there is one protocol now (wire.Protocol), and WebTransport has its place beside
//     it.
package edge
