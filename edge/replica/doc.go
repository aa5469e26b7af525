// Package replica is what an edge has of the log: the states of the users whom it follows and of their threads, kept
// current by the links from delivery, with the thread views in Postgres behind them. It knows no session, and a device
// only as part of a user's state; whoever follows a user is told of events through the interface Follower.
//
// Promise: a follower is told once of every event of his threads that he may see, and of none that he may not, in the
// order of each thread; where he is not told of some (a gap), he is told so, before what comes after it. He is told how
// each of his invitations stands when that has changed; after a gap, how it stands then. Whoever has a thread changed
// is told the fold's verdict on his own event (Judge). WaitFor, WaitThread and Await cost nothing while they wait, and
// nothing here polls a state that it could be told of.
//
// Order: what followers are told of one slot comes in the order in which it was taken in, one after the other. There is
// none between slots. Receipts only grow.
//
// Durability: none. All of it can be had again from the log's ring in delivery and from the views.
//
// When slow: reading a link never waits for Postgres. Events of a subject that waits for its snapshot are its backlog,
// which is bounded, by itself and by the process's budget: without room they are dropped, and it is subscribed anew
// from where the views are. What threads keep for the rule on repeats is counted too, and takes from that room.
// Postgres down: what is live stays live; what is new waits, and after Config.Wait the caller is told CODE_UNAVAILABLE.
// The exception to this is a thread with more messages within the window of the rule on repeats than a snapshot loads:
// it waits, too. Delivery disconnected or moved: states stay as they are, and go on from the cursor once there is a
// link again; meanwhile the views are asked which devices were revoked. A follower that is slow to be told holds up the
// slots of the same link.
//
// When restarted: everything begins anew.
//
// A subject (a thread, or a user) is in one of four phases:
//
//	          Follow, Enter       Subscribe        Subscribed{live_from}
//	(nothing) ─────────────▶ wanted ─────▶ asked ──────────────────────▶ loading ─────────────────▶ live
//	    ▲                      ▲             │                             │  ▲   a snapshot has      │ │
//	    │                      └─────────────┴─────────────────────────────┘  │   reached live_from   │ │
//	    │                       owner changed; when loading: backlog full     └───────────────────────┘ │
//	    │                                                                       resumed, with a gap     │
//	    └───────────────────────────────────────────────────────────────────────────────────────────────┘
//	                           nobody has been interested for Linger, in any phase
//
// While it is loading its events are its backlog, which it takes in when it turns live. A thread that is known to begin
// after live_from needs no snapshot. A live subject whose slot gets another owner stays live: it is subscribed from the
// slot's cursor (resumed), and there is a gap when the answer's live_from is beyond that and what it has taken in.
//
// What has not turned live after five seconds, or is not subscribed with its slot's owner by then, is late: that is
// said in the log, counted by what it waits for, and asked for again; instances are asked once more what they own.
// Their list of slots alone says who the owner is: "not owner" answers one request, and is void when the slot was given
// up and taken again since that was sent. A subject for which the link has no room is refused by itself: its followers
// are told so once (Late), it is asked for again in the same way, and once it is live they are told that, behind what
// they have missed.
//
// A snapshot is one repeatable-read transaction that reads the subject's rows and the slot's positions S. It counts
// only when S has reached live_from in each topic of the subject: then events before S are in it, and those from S on
// are in the backlog or will come. The fold drops what comes twice. When a snapshot after a gap shows that events were
// missed, the followers concerned are told so.
//
// Locks: a slot's, and inside it those of a user's threads, a link's list, the agenda, the silent slots, the
// quarantine, the queues of the loaders and the views' clock, inside which none is taken. No two slots' together: what
// concerns another slot is put into actions, which run after the lock was released. Neither I/O nor a call out happens
// under any of them: what is to be told is noted in order, and told by whoever noted it, or by whoever is telling the
// slot's followers already.
//
// Non-obvious:
//   - A slot's cursor comes from Progress only, and stands still while a live subject is not subscribed with the slot's
//     owner. A subject that turns live takes the cursor back to where its snapshot stands, unless a Progress has come
//     since it was subscribed.
//   - A follower is told of an event a moment after the state has it: a state that is asked meanwhile is ahead, never
//     behind.
//   - A thread's followers hear of its events by a list that is made anew when members, followers or the state change,
//     so that a group of a thousand costs no look-ups for each message.
//   - The views may go back: Postgres commits without waiting for its disk, and after a crash it has older rows and
//     positions. So what Tails reads counts only if the same transaction saw the slot beyond the range; else it is read
//     again once the views are there.
//   - A subject of which an event cannot be applied, or of which the views hold something in quarantine, takes nothing
//     more in that topic. The views are asked now and then whether they have got past it, and then it is loaded anew:
//     an edge that is older than what was written goes on with what the views made of it.
//   - What operators drop out of quarantine is read from helio.quarantine by the edge itself, all that was said before
//     anything is taken in. A drop opens nothing by itself: the subject is loaded anew when the views have drained what
//     was parked, about which they are asked often for ten seconds, so that senders are let in within one.
//   - Of a thread's window at most 65,536 messages are loaded, those with the latest log times. Where there are more, a
//     message that is not among them is looked up in the views before it is judged, and all events of the thread wait
//     behind it in order: what the projectors drop as a repeat is told to nobody. They are bounded like a backlog, and
//     while the views are down such a thread stands still, until it has been followed for a day of its own clock. A
//     look-up counts only if the views have reached where the thread was loaded from.
//   - A thread that a user has left is followed while he is: his devices must see him leave.
//   - The state of a thread that was of no use for a while is packed into a few hundred bytes and unpacked by its first
//     event or question. It is not dropped: what only the views had could not be had while they are down, and idle
//     threads too go on then.
//   - Positions begin at 0, so "nothing" is -1 here. A cursor row that names position 0 and ordinal 0 counts as
//     nothing: position 0 may come again.
//   - What waits for a time is an appointment of its slot in one agenda: a slot without users has none, however many
//     there are.
package replica
