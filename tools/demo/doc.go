// Package demo plays a conversation of five people over a real deployment on this machine (package cluster), kills an
// edge and a delivery instance on the way, asks the history by SQL, and then compares both views with the log row by
// row (package verify), and every device with it event by event.
//
// Promise: everything that the people do goes through the client over QUIC, and what is compared was read from where it
// lies: the log's records raw, folded here anew; the rows of both stores; and what each device was given, in the order
// in which it was given. A verdict of no difference means that every row of both views is as the log gives it, and
// every message on every device where it belongs, once, in order, with the same content, and nowhere else.
//
// Order: steps run one after another; within a step people act side by side where people would.
//
// Durability: data, device files and logs lie under the deployment's directory, which the caller keeps or removes.
//
// When slow or restarted: every wait has a deadline (45 s); a step whose wait ends names what did not come.
// Nothing is repeated: a demo that fails is evidence.
//
// Non-obvious:
//   - Steps are measured from their own beginning; times of single messages stand in their notes.
//   - Devices are closed before the comparison, so that no receipt moves while it is made.
//   - A device is expected to have what its user may see since the device came in; a linked device inherits that from
//     the one that approved it.
package demo
