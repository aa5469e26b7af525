package link

import (
	"encoding/hex"
	"flag"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/goldentest"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

var write = flag.String("golden", "", "write a new file of this name; a file that exists is never changed")

// corpus is what each released version wrote on a link: while a deployment is upgraded, edges and delivery instances of
// two versions read each other's.
var corpus = goldentest.Frames{
	Dir:    "../../schemas/link/testdata",
	Limits: map[proto.Message]int{(*linkv1.ToDelivery)(nil): MaxFrame, (*linkv1.ToEdge)(nil): MaxFrame},
	Say: func(m proto.Message, g *goldentest.Frame) error {
		body, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		var cursors []*linkv1.Cursor
		switch m.(type) {
		case *linkv1.ToDelivery:
			f, err := decodeToDelivery(body)
			if err != nil {
				return err
			}
			if s := f.GetSubscribe(); s.HasFrom() {
				cursors = append(cursors, s.GetFrom())
			}
		case *linkv1.ToEdge:
			f, err := decodeToEdge(body)
			if err != nil {
				return err
			}
			if s := f.GetSubscribed(); s.HasLiveFrom() {
				cursors = append(cursors, s.GetLiveFrom())
			}
			for _, s := range f.GetProgress().GetSlots() {
				cursors = append(cursors, s.GetNext())
			}
		}
		for _, c := range cursors {
			says := map[topic.Topic]topic.Position{}
			for i, at := range DecodeCursor(c) {
				if at != 0 {
					says[topic.Folded[i]] = at
				}
			}
			g.Cursors = append(g.Cursors, says)
		}
		return nil
	},
}

// TestGolden: what any version wrote is read as it was, by every kind of frame.
func TestGolden(t *testing.T) { corpus.Check(t) }

// TestWriteGolden writes samples as a file of goldens. It is run by hand when a version is released, with the name of a
// file that is not there yet.
func TestWriteGolden(t *testing.T) {
	if *write != "" {
		corpus.Write(t, *write, samples(t))
	}
}

// samples are frames of every kind, with every field set somewhere, and such as the receiver refuses.
func samples(t *testing.T) []goldentest.Frame {
	t.Helper()
	ann := id.User([]byte("golden"), "+491510000001", 1)
	bob := id.User([]byte("golden"), "+491510000002", 1)
	th := id.DirectThread(ann, bob)
	phone := id.DeviceID{1, 2, 3}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(eventv1.Event_builder{
		UserId: ann[:], DeviceId: phone[:],
		WatermarksMoved: eventv1.WatermarksMoved_builder{DeliveredPosition: 9, DeliveredOrdinal: 5}.Build(),
	}.Build())
	if err != nil {
		t.Fatal(err)
	}
	cursor := EncodeCursor(topic.Cursor{300, 5, 1 << 33})
	record := func(position int64, key []byte) *linkv1.Record {
		return linkv1.Record_builder{Position: position, LogTimeMs: 1_790_000_000_000, Key: key, Value: value}.Build()
	}
	subscribe := func(s linkv1.Subscribe_builder) proto.Message {
		return linkv1.ToDelivery_builder{Subscribe: s.Build()}.Build()
	}
	events := func(e linkv1.Events_builder) proto.Message { return linkv1.ToEdge_builder{Events: e.Build()}.Build() }
	progress := func(slots ...*linkv1.SlotProgress) proto.Message {
		return linkv1.ToEdge_builder{Progress: linkv1.Progress_builder{Slots: slots}.Build()}.Build()
	}
	var out []goldentest.Frame
	add := func(name string, m proto.Message) { out = append(out, corpus.Of(t, name, m)) }
	add("hello", linkv1.ToDelivery_builder{Hello: linkv1.EdgeHello_builder{Edge: "edge-1"}.Build()}.Build())
	add("subscribe from a cursor", subscribe(linkv1.Subscribe_builder{
		Id: 7, Slot: 3, Subjects: [][]byte{ann[:], th[:]}, From: cursor,
	}))
	add("subscribe from the beginning", subscribe(linkv1.Subscribe_builder{
		Id: 8, Slot: 3, Subjects: [][]byte{th[:]}, From: &linkv1.Cursor{},
	}))
	add("subscribe without a cursor", subscribe(linkv1.Subscribe_builder{Id: 1 << 63, Subjects: [][]byte{th[:]}}))
	add("unsubscribe", linkv1.ToDelivery_builder{
		Unsubscribe: linkv1.Unsubscribe_builder{Slot: 1023, Subjects: [][]byte{ann[:]}}.Build(),
	}.Build())
	add("ask who owns", linkv1.ToDelivery_builder{AskOwned: &linkv1.AskOwned{}}.Build())
	add("owned", linkv1.ToEdge_builder{Owned: linkv1.Owned_builder{Slots: []int32{0, 3, 1023}}.Build()}.Build())
	add("nothing owned", linkv1.ToEdge_builder{Owned: &linkv1.Owned{}}.Build())
	add("subscribed", linkv1.ToEdge_builder{
		Subscribed: linkv1.Subscribed_builder{Id: 7, Slot: 3, LiveFrom: cursor}.Build(),
	}.Build())
	add("not the owner", linkv1.ToEdge_builder{
		Subscribed: linkv1.Subscribed_builder{Id: 8, Slot: 3, NotOwner: true}.Build(),
	}.Build())
	add("live events", events(linkv1.Events_builder{
		Topic: 1, Slot: 3, Records: []*linkv1.Record{record(0, th[:]), record(1<<33, ann[:])},
	}))
	add("events from the ring", events(linkv1.Events_builder{
		Topic: 3, Slot: 3, Records: []*linkv1.Record{record(12, ann[:])}, Subscription: 7,
	}))
	add("a receipt under thread and device", events(linkv1.Events_builder{
		Topic: 2, Slot: 3, Records: []*linkv1.Record{record(12, append(th[:], phone[:]...))},
	}))
	add("a receipt under thread, device and user", events(linkv1.Events_builder{
		Topic: 2, Slot: 3, Records: []*linkv1.Record{record(12, event.ReceiptKey(th, phone, ann))},
	}))
	add("progress", progress(
		linkv1.SlotProgress_builder{Slot: 3, Next: cursor}.Build(), linkv1.SlotProgress_builder{Slot: 4}.Build(),
	))
	add("a cursor with a topic of a later version", progress(linkv1.SlotProgress_builder{
		Next: linkv1.Cursor_builder{Threads: 300, Entries: []*linkv1.CursorEntry{
			linkv1.CursorEntry_builder{Topic: 1, Position: 300}.Build(),
			linkv1.CursorEntry_builder{Topic: 99, Position: 1}.Build(),
		}}.Build(),
	}.Build()))
	add("events of a topic of a later version", events(linkv1.Events_builder{
		Topic: 99, Slot: 3, Records: []*linkv1.Record{record(12, ann[:])},
	}))
	add("a cursor that names a topic twice", progress(linkv1.SlotProgress_builder{
		Next: linkv1.Cursor_builder{Entries: []*linkv1.CursorEntry{
			linkv1.CursorEntry_builder{Topic: 1, Position: 300}.Build(),
			linkv1.CursorEntry_builder{Topic: 1, Position: 301}.Build(),
		}}.Build(),
	}.Build()))
	add("events out of order", events(linkv1.Events_builder{
		Topic: 1, Slot: 3, Records: []*linkv1.Record{record(12, th[:]), record(12, th[:])},
	}))
	add("an event without a subject", events(linkv1.Events_builder{
		Topic: 1, Slot: 3, Records: []*linkv1.Record{record(12, nil)},
	}))
	add("a subject of 15 bytes", subscribe(linkv1.Subscribe_builder{Subjects: [][]byte{th[:15]}}))
	add("a slot that cannot be", linkv1.ToEdge_builder{Owned: linkv1.Owned_builder{Slots: []int32{-1}}.Build()}.Build())
	name := func(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }
	sign := goldentest.Frame{Name: "a sign of life, of a kind that nobody knows", Message: name(&linkv1.ToDelivery{})}
	sign.Bytes = hex.EncodeToString(signOfLife())
	return append(
		out, sign,
		goldentest.Frame{Name: "no bytes", Message: name(&linkv1.ToEdge{}), Bytes: "00"},
		goldentest.Frame{Name: "above the limit", Message: name(&linkv1.ToEdge{}), Bytes: "80400001"},
	)
}
