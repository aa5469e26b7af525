package client

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// What a device cannot read is kept and shown as unknown, at its place if it has one. The connection goes on: on the
// next the same would come again, for ever.
func TestUnreadableIsKept(t *testing.T) {
	th, other, m := id.NewGroup(), identity(t), id.NewMessage()
	event := func(at topic.Position, raw []byte) *wirev1.Event {
		return wirev1.Event_builder{ThreadId: th[:], Position: int64(at), Event: raw}.Build()
	}
	encode := func(b eventv1.Event_builder) []byte {
		raw, err := proto.Marshal(b.Build())
		must(t, err)
		return raw
	}
	newer := protowire.AppendTag(encode(eventv1.Event_builder{UserId: other.User[:]}), 1500, protowire.BytesType)
	newer = protowire.AppendBytes(newer, []byte("of a version to come"))
	torn := encode(eventv1.Event_builder{UserId: other.User[:], MessageSent: &eventv1.MessageSent{}})
	torn = torn[:len(torn)-1]
	events := []*wirev1.Event{
		event(1, []byte{0xff}),
		event(2, torn),
		event(3, newer),
		event(4, encode(eventv1.Event_builder{UserId: other.User[:], MessageSent: &eventv1.MessageSent{}})),
		wirev1.Event_builder{ThreadId: []byte("nowhere"), Position: 5, Event: newer}.Build(),
		wirev1.Event_builder{ThreadId: th[:], Position: -5, Event: newer}.Build(),
	}
	short := []byte("short")
	frames := []*wirev1.ServerFrame{
		wirev1.ServerFrame_builder{Receipts: wirev1.Receipts_builder{ThreadId: short}.Build()}.Build(),
		wirev1.ServerFrame_builder{Receipts: wirev1.Receipts_builder{
			ThreadId: th[:], Items: []*wirev1.MemberWatermark{wirev1.MemberWatermark_builder{UserId: short}.Build()},
		}.Build()}.Build(),
		wirev1.ServerFrame_builder{ThreadChanged: &wirev1.ThreadChanged{}}.Build(),
		wirev1.ServerFrame_builder{ThreadLate: &wirev1.ThreadLate{}}.Build(),
		wirev1.ServerFrame_builder{
			Rejected: wirev1.Rejected_builder{ThreadId: th[:], MessageId: short}.Build(),
		}.Build(),
	}
	read := eventFrame(t, th, 9, other, m, "read")
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Sync_case:
			if p.n > 0 {
				t.Error("the device connected again")
			}
			for _, e := range events {
				p.write(wirev1.ServerFrame_builder{Event: e}.Build())
			}
			for _, f := range frames {
				p.write(f)
			}
			p.mu.Lock()
			_, err := p.stream.Write([]byte{3, 0xff, 0xff, 0xff}) // a frame that is no message
			p.mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			p.write(read)
		case wirev1.ClientFrame_GetHistory_case:
			page, err := frame.Append(nil, wirev1.ServerFrame_builder{
				RequestId: f.GetRequestId(), HistoryPage: wirev1.HistoryPage_builder{Events: events}.Build(),
			}.Build())
			s, err2 := p.quic.OpenUniStream()
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
				return true
			}
			_, err = s.Write(page)
			if err := errors.Join(err, s.Close()); err != nil {
				t.Error(err)
			}
			return true
		}
		return false
	})
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	ctx := within(t)
	var got []string
	for e := range c.Events(ctx) {
		got = append(got, say(e))
		if _, ok := e.(Synced); ok {
			break
		}
	}
	want := []string{
		"unknown at 1, of 1 bytes", fmt.Sprintf("unknown at 2, of %d bytes", len(torn)),
		fmt.Sprintf("unknown at 3, of %d bytes", len(newer)),
		fmt.Sprintf("unknown at 4, of %d bytes", len(events[3].GetEvent())),
		"unreadable", "unreadable", "unreadable", "unreadable", "unreadable", "unreadable", "unreadable",
		"unreadable", "message at 9", "client.Synced",
	}
	if d := cmp.Diff(want, got[len(got)-len(want):]); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if at := c.Watermark(th).DeliveredPosition; at != 9 {
		t.Errorf("the cursor is at %d, want 9", at)
	}
	page, _, err := c.History(ctx, th, 0, 10)
	must(t, err)
	got = nil
	for _, e := range page {
		got = append(got, say(e))
	}
	if d := cmp.Diff(append(want[:4:4], "unreadable", "unreadable"), got); d != "" {
		t.Errorf("page (-want +got):\n%s", d)
	}
}

// A thread that is not live is told by name, with the reason, and so is that it is again.
func TestThreadLate(t *testing.T) {
	th := id.NewGroup()
	why := wirev1.Error_builder{Code: wirev1.Code_CODE_UNAVAILABLE, Message: "full", RetryAfterMs: 5000}.Build()
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() == wirev1.ClientFrame_Sync_case {
			for _, e := range []*wirev1.Error{why, nil} {
				p.write(wirev1.ServerFrame_builder{
					ThreadLate: wirev1.ThreadLate_builder{ThreadId: th[:], Error: e}.Build(),
				}.Build())
			}
		}
		return false
	})
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	var got []ThreadLate
	for e := range c.Events(within(t)) {
		if l, ok := e.(ThreadLate); ok {
			got = append(got, l)
		}
		if _, ok := e.(Synced); ok {
			break
		}
	}
	want := []ThreadLate{{th, errorOf(why)}, {th, nil}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// say names what an event is for the application.
func say(e Event) string {
	switch e := e.(type) {
	case Message:
		return fmt.Sprintf("message at %d", e.Position)
	case ThreadEvent:
		if e.Unknown() {
			return fmt.Sprintf("unknown at %d, of %d bytes", e.Position, len(e.Raw))
		}
	case Unreadable:
		if e.Err != nil && len(e.Frame) > 0 {
			return "unreadable"
		}
	}
	return fmt.Sprintf("%T", e)
}
