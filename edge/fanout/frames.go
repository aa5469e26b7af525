package fanout

import (
	"errors"

	"heliograph/edge/replica"
	"heliograph/edge/wording"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// encode makes a frame. It fails only for a string that is not UTF-8, which the folds have excluded.
func encode(f *wirev1.ServerFrame) []byte {
	b, err := frame.Append(nil, f)
	if err != nil {
		panic("fanout: " + err.Error())
	}
	return b
}

func eventFrame(t id.ThreadID, r replica.Row) []byte {
	return encode(wirev1.ServerFrame_builder{Event: wirev1.Event_builder{
		ThreadId: t[:], Position: int64(r.Position), Ordinal: r.Ordinal, LogTimeMs: r.LogTimeMS, Event: r.Event,
	}.Build()}.Build())
}

func rejectedFrame(r *replica.Rejected) []byte {
	return encode(wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
		ThreadId: r.Thread[:], MessageId: r.Message, Position: int64(r.Position), Code: CodeOf(r.Reason),
	}.Build()}.Build())
}

func invitationFrame(i *replica.Invitation) []byte {
	b := wirev1.Invitation_builder{ThreadId: i.Thread[:], Ended: i.Ended}
	if !i.Ended {
		b.Title, b.InviterId, b.TimeMs = i.Title, i.By[:], i.TimeMS
	}
	return encode(wirev1.ServerFrame_builder{Invitation: b.Build()}.Build())
}

// CodeOf is how a device is told why the fold rejects an event of its user.
func CodeOf(r thread.Reason) wirev1.Code {
	switch r {
	case thread.NotMember, thread.Missing:
		return wirev1.Code_CODE_NOT_A_MEMBER
	case thread.NotAdmin, thread.NotInvited:
		return wirev1.Code_CODE_NOT_ALLOWED
	case thread.Full:
		return wirev1.Code_CODE_GROUP_FULL
	}
	return wirev1.Code_CODE_INVALID
}

func changedFrame(g *replica.Glance, unread replica.Counted, floor user.Floor) []byte {
	return encode(wirev1.ServerFrame_builder{
		ThreadChanged: wirev1.ThreadChanged_builder{Thread: summary(g, unread, floor)}.Build(),
	}.Build())
}

// unreadNew is what somebody has not read of a thread at the event that makes him a member: that event, when it is the
// first message of a direct thread and not his own.
func unreadNew(g *replica.Glance) (c replica.Counted) {
	if g.LastSender != g.User {
		c.Messages = g.Member.Unread(g.LastOrdinal, g.Own).Most()
	}
	return c
}

// lateFrame tells that a thread is not live, and why, or with nil that it is (wire 5.8).
func lateFrame(t id.ThreadID, why error) []byte {
	b := wirev1.ThreadLate_builder{ThreadId: t[:]}
	if e := (&wire.Error{}); errors.As(why, &e) {
		b.Error = wirev1.Error_builder{
			Code: e.Code, Message: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds()),
		}.Build()
	}
	return encode(wirev1.ServerFrame_builder{ThreadLate: b.Build()}.Build())
}

func syncComplete(rest int) []byte {
	return encode(wirev1.ServerFrame_builder{
		SyncComplete: wirev1.SyncComplete_builder{Rest: uint32(rest)}.Build(),
	}.Build())
}

// summary is the thread as a list shows it to a user who is or was a member, on a device that is shown nothing before
// its floor.
func summary(g *replica.Glance, unread replica.Counted, floor user.Floor) *wirev1.ThreadSummary {
	m := &g.Member
	b := wirev1.ThreadSummary_builder{
		ThreadId: g.Thread[:], Kind: wirev1.ThreadKind(g.Kind), Title: g.Title, LastPosition: int64(g.LastPosition),
		LastOrdinal: g.LastOrdinal, LastTimeMs: g.LastTimeMS, Preview: wording.Preview(g.Preview),
		Own: wirev1.MemberWatermark_builder{
			UserId: g.User[:], DeliveredPosition: int64(g.Own.DeliveredPosition),
			DeliveredOrdinal: g.Own.DeliveredOrdinal, ReadPosition: int64(g.Own.ReadPosition),
			ReadOrdinal: g.Own.ReadOrdinal,
		}.Build(),
		MemberCount: uint32(g.ActiveMembers), Member: m.Active(), Unread: unread.Messages,
		PastElsewhere: unread.Past,
	}
	if g.Kind == thread.Direct {
		b.DirectPeer = g.Peer[:]
	}
	if !g.LastSender.IsZero() {
		b.LastSender = g.LastSender[:]
	}
	if m.Active() {
		b.Role = eventv1.Role(m.Role)
	} else { // what came after his time is not for him
		end := m.Spans[len(m.Spans)-1].To
		b.LastPosition, b.LastOrdinal, b.MemberCount = int64(end), m.EndOrdinal, 0
		if g.LastPosition > end { // the state has only the latest title
			b.Title, b.LastTimeMs, b.LastSender, b.Preview = "", 0, nil, ""
		}
	}
	// nor the last message from before it, or from before the device's
	from, ms := floor.In(g.Slot)
	if g.LastOrdinal <= m.BaseOrdinal || g.LastTimeMS < ms || from > 0 && g.LastMessage < from {
		b.LastSender, b.Preview = nil, ""
	}
	return b.Build()
}
