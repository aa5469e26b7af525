// Package load measures a deployment through the real client: what is delivered, how late, to how many, and what it
// costs the servers.
//
// Promise: every figure rests on messages that the recipient's client has parsed. Each message carries the run, its
// flow and its number; each recipient's copy is counted once, and a message that is lost, comes twice, comes under
// another id or is acknowledged twice fails the run, whatever its speed.
//
// Order: the parts run one after the other, and each ends only when all it sent has arrived. Durability: identities are
// kept in a state file, if one is named, so that further runs against the same deployment register nobody.
//
// When the servers are slow: the closed loops (throughput, fan-out) slow down with them. The latency part does not: it
// sends by a schedule that was fixed before, and measures from the scheduled time, so a stall is seen in every message
// that it held up.
//
// Non-obvious:
//   - The generator shares the machine with the servers; CPU and memory are read from /proc for the servers' processes
//     alone, and stay unknown elsewhere.
//   - A figure that was not measured is null in the result, never zero.
//   - Many clients share a UDP socket, so that the generator is not bound by file descriptors.
package load
