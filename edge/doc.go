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
// What devices at rest cost: a keep-alive of the SDK (a frame, wire 1.7) takes an edge some 180 us of CPU time, 110
// bytes in and 60 out with their headers; one of QUIC's own 85 us, and 57 bytes each way (BenchmarkKeepAlive, on a busy
// machine of two cores; most of it is the kernel's and quic-go's). For a million devices at once that is, over all
// edges:
//
//	a frame every 5 s   (in the foreground)       36 cores   22 MB/s in   12 MB/s out
//	a frame every 20 s  (Background)               9 cores    6 MB/s in    3 MB/s out
//	QUIC's own every 25 s                        3.4 cores    2 MB/s in    2 MB/s out
//
// A device that is written to writes none. Few are in the foreground at a time: reckon with those.
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
