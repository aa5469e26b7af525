package hub

import (
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// encode makes a frame. It fails only for a string that is not UTF-8, which the folds have excluded.
func encode(f *wirev1.ServerFrame) []byte {
	b, err := frame.Append(make([]byte, 0, proto.Size(f)+8), f)
	if err != nil {
		panic("hub: " + err.Error())
	}
	return b
}

func eventFrame(t id.ThreadID, r row) []byte {
	return encode(wirev1.ServerFrame_builder{Event: wirev1.Event_builder{
		ThreadId: t[:], Position: int64(r.position), Ordinal: r.ordinal, LogTimeMs: r.logTimeMS, Event: r.event,
	}.Build()}.Build())
}

func rejectedFrame(t id.ThreadID, message []byte, at topic.Position, reason thread.Reason) []byte {
	return encode(wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
		ThreadId: t[:], MessageId: message, Position: int64(at), Code: codeOf(reason),
	}.Build()}.Build())
}

func changedFrame(s *wirev1.ThreadSummary) []byte {
	return encode(wirev1.ServerFrame_builder{ThreadChanged: wirev1.ThreadChanged_builder{Thread: s}.Build()}.Build())
}

var syncComplete = encode(wirev1.ServerFrame_builder{SyncComplete: &wirev1.SyncComplete{}}.Build())

func markOf(u id.UserID, w thread.Watermark) *memberMark {
	return wirev1.MemberWatermark_builder{
		UserId: u[:], DeliveredPosition: int64(w.DeliveredPosition), DeliveredOrdinal: w.DeliveredOrdinal,
		ReadPosition: int64(w.ReadPosition), ReadOrdinal: w.ReadOrdinal,
	}.Build()
}

// marksOfAll returns the watermarks of all who are or were members. The caller holds the slot's lock.
func (t *threadSub) marksOfAll() []*memberMark {
	if t.all == nil {
		t.all = make([]*memberMark, 0, len(t.state.watermarks))
		for u, w := range t.state.watermarks {
			if t.state.Members[u] != nil {
				t.all = append(t.all, markOf(u, w))
			}
		}
	}
	return t.all
}

// summary is the thread as a list shows it to a user who is or was a member, on a device that is shown nothing before
// floorMS. The caller holds the slot's lock.
func (t *threadSub) summary(u id.UserID, floorMS int64) *wirev1.ThreadSummary {
	s, m := t.state, t.state.Members[u]
	own := s.watermarks[u]
	b := wirev1.ThreadSummary_builder{
		ThreadId: t.id[:], Kind: wirev1.ThreadKind(s.Kind), Title: s.Title, LastPosition: int64(s.LastPosition),
		LastOrdinal: s.LastOrdinal,
		LastTimeMs:  s.LastTimeMS, Preview: s.Preview, Own: markOf(u, own), MemberCount: uint32(s.ActiveMembers()),
		Member: m.Active(),
		Unread: m.Unread(s.LastOrdinal, own.ReadOrdinal),
	}
	if s.Kind == thread.Direct {
		peer := s.Peer(u)
		b.DirectPeer = peer[:]
	}
	if !s.LastSender.IsZero() {
		b.LastSender = s.LastSender[:]
	}
	if m.Active() {
		b.Role = eventv1.Role(m.Role)
	} else { // what came after his time is not for him
		end := m.Spans[len(m.Spans)-1].To
		b.LastPosition, b.LastOrdinal, b.MemberCount = int64(end), m.EndOrdinal, 0
		if s.LastPosition > end { // the state has only the latest title
			b.Title, b.LastTimeMs, b.LastSender, b.Preview = "", 0, nil, ""
		}
	}
	// nor the last message from before it, or from before the device's
	if s.LastOrdinal <= m.BaseOrdinal || s.LastTimeMS < floorMS {
		b.LastSender, b.Preview = nil, ""
	}
	return b.Build()
}
