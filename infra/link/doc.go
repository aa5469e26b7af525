// Package link carries the link protocol (schemas/link/v1/link.proto) between an edge and a delivery instance: its two
// ends, in one process (Pipe, Local) or over QUIC with mutual TLS (Dial, Listen), and the Directory of who runs
// delivery now.
//
// Promise: frames of one end arrive at the other in the order in which Send was called, each at most once, or the link
// is closed. Nothing is sent again: after a link has closed, the edge opens another one and resumes from its cursors.
//
// Order: first in, first out, each way. There is no order between two links.
//
// Durability: none; what was queued when a link closes is gone.
//
// When slow: both queues are bounded in frames and bytes, and what waits for edges by the process's budget.
// DeliveryEnd.Send never blocks: on ErrFull the instance closes the link. EdgeEnd.Send and DeliveryEnd.SendWait wait
// for room. When restarted: links break, edges dial again.
//
// What an edge may rely on, beyond link.proto:
//
//  1. Owned comes first on a link and again at each change. An instance that has opened a slot anew sends Owned without
//     it and then with it: subscriptions are void at the first of them, even when the second lists the slot again.
//  2. The answer to a Subscribe comes as one run of its slot: Subscribed, then its Events (they carry its id), then
//     live Events. From Subscribed until the last of them no other Events and no Progress of that slot come on the
//     link.
//  3. So the next Progress of the slot after Subscribed says that the subscription has caught up. An edge takes its
//     cursor of a slot from Progress alone, never from an Events frame, and resumes a subscription that has not seen a
//     Progress yet from its own `from`.
//  4. A new owner may begin before the edge's cursor: events may come again, and Progress may be lower than what
//     another instance said. Both are harmless to who drops what is at or below its position and takes the higher
//     cursor.
//  5. live_from above `from` means a gap: what lies between comes from Postgres, and the edge sees no Events for it.
//
// Non-obvious:
//   - Frames that went through a Pipe are shared, not copied: whoever receives one only reads it.
//   - A frame whose kind is unknown is skipped, so that either side may be the newer one; a known kind that is
//     malformed closes the link.
//   - Both sides verify the other's certificate against the cluster's CA and for the name in TLS.ServerName: the CA may
//     serve other purposes too.
//   - Close drops what is queued; there is nothing worth flushing.
//   - An instance that was killed and is back answers old links with a stateless reset, under a key made from its
//     certificate's: its slots go on at once, and not after the idle timeout of ten seconds.
package link
