package edge

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	"heliograph/edge/fanout"
	"heliograph/edge/replica"
	"heliograph/edge/session"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestMessageTravels(t *testing.T) {
	f := start(t, nil)
	a, b := f.join(t, "+491"), f.join(t, "+492")
	me, peer := identity(a), identity(b)
	data, err := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
	if err != nil {
		t.Fatal(err)
	}
	o := client.Outgoing{Thread: id.DirectThread(me, peer), ID: id.NewMessage(), Data: data, DirectPeer: peer}
	if err := a.SendRaw(o); err != nil {
		t.Fatal(err)
	}
	sent := awaited(t, a, func(e client.Sent) bool { return e.ID == o.ID })
	slot := topic.SlotOf(topic.Subject(o.Thread), partitions)
	if sent.Ack.Thread != o.Thread || sent.Ack.Slot != slot || sent.Ack.Time.IsZero() {
		t.Fatalf("got %v, want the place in the log", sent.Ack)
	}
	got := awaited(t, b, func(e client.Message) bool { return e.ID == o.ID })
	if got.Thread != o.Thread || got.Position != sent.Ack.Position || got.Ordinal != 1 || got.Text != "hello" ||
		got.Sender != me {
		t.Errorf("the other device got %+v", got)
	}
	// The thread was announced to both before its first event, which carries the peer.
	var kinds []string
	for _, r := range f.world.log() {
		switch {
		case r.ev.HasThreadJoined():
			kinds = append(kinds, fmt.Sprintf("joined new=%v", r.ev.GetThreadJoined().GetNewThread()))
		case r.ev.HasMessageSent():
			kinds = append(kinds, fmt.Sprintf("sent peer=%v", len(r.ev.GetMessageSent().GetDirectPeer()) > 0))
		}
	}
	if diff := cmp.Diff(kinds, []string{"joined new=true", "joined new=true", "sent peer=true"}); diff != "" {
		t.Errorf("log (-got +want):\n%s", diff)
	}
	// The same message again is acknowledged with its first place, and nothing is appended.
	if err := a.SendRaw(o); err != nil {
		t.Fatal(err)
	}
	sents := 0 // the one at which the events were left comes again
	again := awaited(t, a, func(e client.Sent) bool { sents++; return e.ID == o.ID && sents == 2 })
	if again.Ack.Position != sent.Ack.Position || len(f.world.log()) != 3 {
		t.Errorf("retry answered by %v, log of %d", again.Ack, len(f.world.log()))
	}
	// In a known thread neither announcement nor peer.
	m, err := a.Send(client.To{Thread: o.Thread, Peer: peer}, "more")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client.Client{a, b} {
		awaited(t, c, func(e client.Message) bool { return e.ID == m })
	}
	if r := f.world.log(); len(r) != 4 || len(r[3].ev.GetMessageSent().GetDirectPeer()) != 0 {
		t.Errorf("second message: %v", r[len(r)-1].ev)
	}
}

func TestFirstMessagesKeepTheirOrder(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	f.world.mu.Lock()
	f.world.hold = true // the replica is slow: the thread is begun late, and stays unknown for long
	f.world.mu.Unlock()
	const n = 100
	var want []string
	reqs := map[uint64]bool{}
	for k := range n {
		m := direct(a, b, fmt.Sprint(k))
		want = append(want, string(m.SendMessage.GetMessageId()))
		reqs[a.send(m)] = true
	}
	until(t, "announcement", func() bool { return len(f.world.log()) >= 2 })
	f.world.release()
	for len(reqs) > 0 {
		got, err := a.read()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetRequestId() != 0 {
			if got.WhichBody() != wirev1.ServerFrame_Ack_case {
				t.Fatalf("got %v, want an ack", got)
			}
			delete(reqs, got.GetRequestId())
		}
	}
	var have []string
	for _, r := range f.world.log() {
		if r.ev.HasMessageSent() {
			have = append(have, string(r.ev.GetMessageSent().GetMessageId()))
		}
	}
	if !slices.Equal(have, want) {
		t.Error("messages lie in another order than they were sent in")
	}
}

func TestSendRefusals(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	a.ask(direct(a, b, "hello"))
	th, m, group := id.DirectThread(a.user, b.user), id.NewMessage(), id.NewGroup()
	stranger := id.UserID{9, 9}
	with := func(mend func(*wirev1.SendMessage_builder)) wirev1.ClientFrame_builder {
		s := wirev1.SendMessage_builder{ThreadId: th[:], MessageId: m[:], Content: text("x")}
		mend(&s)
		return wirev1.ClientFrame_builder{SendMessage: s.Build()}
	}
	toStranger := id.DirectThread(a.user, stranger)
	for _, x := range []struct {
		name string
		from *device
		msg  wirev1.ClientFrame_builder
		want wirev1.Code
	}{
		{"another's thread", c, with(func(s *wirev1.SendMessage_builder) {}), wirev1.Code_CODE_NOT_A_MEMBER},
		{"no such group", a, with(func(s *wirev1.SendMessage_builder) {
			s.ThreadId = group[:]
		}), wirev1.Code_CODE_NOT_A_MEMBER},
		{"short thread id", a, with(func(s *wirev1.SendMessage_builder) {
			s.ThreadId = []byte{1}
		}), wirev1.Code_CODE_INVALID},
		{"message id of another version", a, with(func(s *wirev1.SendMessage_builder) {
			s.MessageId = make([]byte, 16)
		}), wirev1.Code_CODE_INVALID},
		{"wrong peer", a, with(func(s *wirev1.SendMessage_builder) {
			s.DirectPeer = c.user[:]
		}), wirev1.Code_CODE_INVALID},
		{"unknown peer", a, with(func(s *wirev1.SendMessage_builder) {
			s.ThreadId, s.DirectPeer = toStranger[:], stranger[:]
		}), wirev1.Code_CODE_UNKNOWN_USER},
	} {
		t.Run(x.name, func(t *testing.T) { x.from.refused(x.from.ask(x.msg), x.want) })
	}
	f.world.mu.Lock()
	f.world.down = true
	f.world.mu.Unlock()
	a.refused(a.ask(direct(a, b, "while the log is down")), wirev1.Code_CODE_UNAVAILABLE)
}

func TestGroup(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g := id.NewGroup()
	create := wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{
			ThreadId:  g[:],
			Title:     "walk",
			MemberIds: [][]byte{b.user[:], b.user[:], a.user[:]},
		}.Build(),
	}
	acked := func(got *wirev1.ServerFrame) {
		t.Helper()
		if got.WhichBody() != wirev1.ServerFrame_Ack_case || string(got.GetAck().GetThreadId()) != string(g[:]) {
			t.Fatalf("got %v, want an ack", got)
		}
	}
	acked(a.ask(create))
	n := len(f.world.log())
	acked(a.ask(create)) // repeating is safe
	if len(f.world.log()) != n {
		t.Error("a repeated CreateGroup was appended")
	}
	c.refused(c.ask(create), wirev1.Code_CODE_CONFLICT)
	// Nor where this edge does not know the group: announced as new, it would be c's at every edge like this one.
	f.world.mu.Lock()
	f.world.cold = map[id.ThreadID]bool{g: true}
	f.world.mu.Unlock()
	n = len(f.world.log())
	c.refused(c.ask(create), wirev1.Code_CODE_CONFLICT)
	if len(f.world.log()) != n {
		t.Error("a group with the id of another was announced")
	}
	m := id.NewMessage()
	say := wirev1.ClientFrame_builder{
		SendMessage: wirev1.SendMessage_builder{ThreadId: g[:], MessageId: m[:], Content: text("hi")}.Build(),
	}
	c.refused(c.ask(say), wirev1.Code_CODE_NOT_A_MEMBER)
	add := wirev1.ClientFrame_builder{
		AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{c.user[:]}}.Build(),
	}
	acked(a.ask(add))
	acked(a.ask(add))
	acked(c.ask(say))
	remove := wirev1.ClientFrame_builder{
		RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: c.user[:]}.Build(),
	}
	acked(a.ask(remove))
	acked(a.ask(remove))
	// c left a watermark behind although no longer in; what it claims is clamped to what there is, which the edge knows
	// of what it has read.
	f.world.mu.Lock()
	f.world.next[topic.Threads] = 1<<60 + 1
	f.world.mu.Unlock()
	w := wirev1.Watermark_builder{
		ThreadId:          g[:],
		DeliveredPosition: 1 << 60,
		DeliveredOrdinal:  1 << 60,
		ReadPosition:      -5,
	}.Build()
	c.tell(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{w}}.Build()})
	until(t, "watermark", func() bool { f.world.mu.Lock(); defer f.world.mu.Unlock(); return len(f.world.marks) == 1 })
	v, _ := readSide{f.world}.View(g)
	want := thread.Watermark{DeliveredPosition: v.LastPosition, DeliveredOrdinal: v.LastOrdinal}
	if diff := cmp.Diff(f.world.marks[0].w, want); diff != "" {
		t.Errorf("watermark (-got +want):\n%s", diff)
	}
}

// Whatever a request leads to names it, and an event that another led to names that one too.
func TestEventsNameTheirRequestAndCause(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g := id.NewGroup()
	seen := len(f.world.log())
	// does makes a request and compares what was appended for it: each event's topic and kind, and its cause.
	does := func(d *device, b wirev1.ClientFrame_builder, want ...string) {
		t.Helper()
		if got := d.ask(b); got.WhichBody() == wirev1.ServerFrame_Error_case {
			t.Fatalf("refused: %v", got)
		}
		var got []string
		onThread := map[int64]record{} // by position
		for i, r := range f.world.log() {
			if r.topic == topic.Threads {
				onThread[int64(len(onThread))] = r
			}
			if i < seen {
				continue
			}
			kind := event.TypeOf(r.ev).String()
			if name := wire.RequestID(d.nonce, d.req); !bytes.Equal(r.ev.GetRequestId(), name) || len(name) == 0 {
				t.Errorf("%s names request %x, want %x", kind, r.ev.GetRequestId(), name)
			}
			if c := r.ev.GetCause(); c != nil {
				by, ok := onThread[c.GetPosition()]
				slot := topic.SlotOf(by.subject, partitions)
				if !ok || c.GetTopic() != topic.Threads.Number() || c.GetSlot() != int32(slot) {
					t.Errorf("%s names the cause %v", kind, c)
					continue
				}
				kind += " by " + event.TypeOf(by.ev).String()
			}
			got = append(got, kind)
		}
		seen = len(f.world.log())
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("appended (-got +want):\n%s", diff)
		}
	}
	m := id.NewMessage()
	does(a, direct(a, b, "hi"), "thread_joined", "thread_joined", "message_sent")
	does(a, direct(a, b, "again"), "message_sent")
	does(a, wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{
		ThreadId: g[:], Title: "walk", MemberIds: [][]byte{b.user[:]},
	}.Build()}, "thread_joined", "thread_joined", "thread_created")
	does(a, wirev1.ClientFrame_builder{AddMembers: wirev1.AddMembers_builder{
		ThreadId: g[:], MemberIds: [][]byte{c.user[:]},
	}.Build()}, "thread_joined", "member_added")
	does(c, wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: g[:], MessageId: m[:], Content: text("hi"),
	}.Build()}, "message_sent")
	does(a, wirev1.ClientFrame_builder{RemoveMember: wirev1.RemoveMember_builder{
		ThreadId: g[:], MemberId: c.user[:],
	}.Build()}, "member_removed", "thread_left by member_removed")
	leave := wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}
	does(b, leave, "member_left", "thread_left by member_left")
	does(b, leave, "thread_left") // again: where the leaving lies is not known any more
	does(a, wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: "Ann"}.Build()}, "profile_changed")
}

func TestOrderOfStates(t *testing.T) {
	f := start(t, nil)
	t.Run("nothing before authentication", func(t *testing.T) {
		d := f.dial(t)
		d.refused(d.ask(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}}), wirev1.Code_CODE_NOT_AUTHENTICATED)
		d.hello()
		m, th := id.NewMessage(), id.NewGroup()
		early := wirev1.SendMessage_builder{ThreadId: th[:], MessageId: m[:]}.Build()
		d.refused(d.ask(wirev1.ClientFrame_builder{SendMessage: early}), wirev1.Code_CODE_NOT_AUTHENTICATED)
		if len(f.world.log()) != 0 {
			t.Error("something was appended")
		}
	})
	t.Run("authentication before hello", func(t *testing.T) {
		d := f.dial(t)
		d.send(wirev1.ClientFrame_builder{Authenticate: &wirev1.Authenticate{}})
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
	t.Run("second hello", func(t *testing.T) {
		d := f.dial(t).hello()
		d.send(wirev1.ClientFrame_builder{Hello: &wirev1.Hello{}})
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
	t.Run("second authentication", func(t *testing.T) {
		d := f.dial(t).register("+491")
		d.send(wirev1.ClientFrame_builder{Authenticate: d.proof()})
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
	t.Run("too many early frames", func(t *testing.T) {
		d := f.dial(t)
		for range 100 {
			if _, err := d.str.Write([]byte{0}); err != nil {
				break // closed meanwhile
			}
		}
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
}

func TestHostileFrames(t *testing.T) {
	f := start(t, nil)
	witness := f.dial(t).register("+490").sync()
	t.Run("4 GiB before authentication", func(t *testing.T) {
		d := f.dial(t)
		d.raw([]byte{0xc0, 0, 0, 1, 0, 0, 0, 0})
		d.closed(wirev1.Code_CODE_FRAME_TOO_LARGE)
	})
	t.Run("4 GiB after authentication", func(t *testing.T) {
		d := f.dial(t).register("+491")
		d.raw([]byte{0xc0, 0, 0, 1, 0, 0, 0, 0})
		d.closed(wirev1.Code_CODE_FRAME_TOO_LARGE)
	})
	t.Run("large before authentication", func(t *testing.T) {
		d := f.dial(t)
		d.raw(frame.AppendLength(nil, wire.MaxFrame))
		d.closed(wirev1.Code_CODE_FRAME_TOO_LARGE)
	})
	t.Run("lengths not in shortest form", func(t *testing.T) {
		d := f.dial(t).register("+493").sync()
		for k, length := range [][]byte{{0x40, 6}, {0x80, 0, 0, 6}, {0xc0, 0, 0, 0, 0, 0, 0, 6}} {
			d.raw(append(length, 0x08, byte(99+k), 0xf2, 0x07, 1, 'x'))
			d.refused(d.answer(uint64(99+k)), wirev1.Code_CODE_UNKNOWN_REQUEST)
		}
	})
	t.Run("not protobuf", func(t *testing.T) {
		d := f.dial(t)
		d.raw([]byte{2, 0xff, 0xff})
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
	t.Run("cut frame", func(t *testing.T) {
		d := f.dial(t)
		d.raw([]byte{10, 1})
		d.str.Close()
		d.closed(wirev1.Code_CODE_PROTOCOL)
	})
	t.Run("unknown kind", func(t *testing.T) {
		d := f.dial(t).register("+492").sync()
		d.raw([]byte{4, 0xf2, 0x07, 1, 'x'})           // field 126, no request id: skipped (section 1)
		d.raw([]byte{6, 0x08, 99, 0xf2, 0x07, 1, 'x'}) // the same as request 99
		d.refused(d.answer(99), wirev1.Code_CODE_UNKNOWN_REQUEST)
		d.raw([]byte{0}) // empty frame: skipped
		d.sync()
	})
	t.Run("further stream", func(t *testing.T) {
		d := f.dial(t).hello()
		if s, err := d.conn.OpenStream(); err == nil {
			t.Errorf("a second bidirectional stream %d was allowed", s.StreamID())
		}
		if s, err := d.conn.OpenUniStream(); err == nil {
			t.Errorf("a unidirectional stream %d was allowed", s.StreamID())
		}
	})
	witness.sync() // nothing else was disturbed
}

func TestReplayedProofIsWorthNothing(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491")
	first := f.dial(t).hello()
	first.key, first.id, first.user = d.key, d.id, d.user
	heard := first.proof() // as somebody who reads everything would have it
	second := f.dial(t).hello()
	second.refused(second.ask(wirev1.ClientFrame_builder{Authenticate: heard}), wirev1.Code_CODE_AUTHENTICATION_FAILED)
	got := first.ask(wirev1.ClientFrame_builder{Authenticate: heard})
	if got.WhichBody() != wirev1.ServerFrame_Authenticated_case {
		t.Errorf("the rightful owner got %v", got)
	}
}

func TestNewConnectionOfADeviceWins(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	n := f.again(t, d)
	d.closed(wirev1.Code_CODE_SUPERSEDED)
	n.sync()
	if f.Sessions() != 1 {
		t.Errorf("%d sessions, want 1", f.Sessions())
	}
}

func TestSlowReaderIsToldToSyncThenClosed(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Session.OutboxFrames, c.Session.OutboxBytes = 64, 64<<10
		c.Session.WriteTimeout = 300 * time.Millisecond
	})
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hello"))
	// b reads nothing any more. Its events are small, so push large ones by hand.
	var sb fanout.Session
	f.world.mu.Lock()
	for s := range f.world.sessions {
		if s.User() == b.user {
			sb = s
		}
	}
	f.world.mu.Unlock()
	big, err := frame.Append(
		nil, wirev1.ServerFrame_builder{Event: wirev1.Event_builder{Event: make([]byte, 32<<10)}.Build()}.Build(),
	)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a full outbox", func() bool { return !sb.Push(big) })
	if f.Waiting() == 0 || f.OldestWaiting() <= 0 {
		t.Errorf("%d frames wait in a full outbox, the oldest for %v", f.Waiting(), f.OldestWaiting())
	}
	sb.Lagged()
	if err := sb.PushWait(t.Context(), big); err == nil {
		t.Error("a push was taken after pushes were dropped, before the device has synced again")
	}
	b.closed(wirev1.Code_CODE_SLOW_CONSUMER)
	a.sync() // nothing else was disturbed
	until(t, "outboxes empty", func() bool { return f.Waiting() == 0 && f.OldestWaiting() == 0 })
}

func TestLaggingDeviceGetsResync(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	var s fanout.Session
	f.world.mu.Lock()
	for s = range f.world.sessions {
	}
	f.world.mu.Unlock()
	s.Lagged()
	s.Lagged() // told once
	if s.Push([]byte{0}) {
		t.Error("pushed while lagging")
	}
	d.push("Resync", func(f *wirev1.ServerFrame) bool { return f.WhichBody() == wirev1.ServerFrame_Resync_case })
	d.sync()
	if !s.Push([]byte{0}) {
		t.Error("not pushed after the device has synced")
	}
}

func TestReceiptsAreCoalesced(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	var s fanout.Session
	f.world.mu.Lock()
	for s = range f.world.sessions {
	}
	f.world.mu.Unlock()
	th, u := id.NewGroup(), id.UserID{7}
	for k := range int64(1000) {
		s.PushReceipts(th, []replica.Mark{{
			User: u, Watermark: thread.Watermark{DeliveredPosition: topic.Position(k), DeliveredOrdinal: k},
		}})
	}
	last := int64(-1)
	for last < 999 {
		r := d.push(
			"Receipts", func(f *wirev1.ServerFrame) bool { return f.WhichBody() == wirev1.ServerFrame_Receipts_case },
		).GetReceipts()
		if got := r.GetItems()[0].GetDeliveredPosition(); got <= last {
			t.Fatalf("watermark %d after %d", got, last)
		} else {
			last = got
		}
	}
}

// A receipt that an edge writes late, after its device has gone on here, does not stay the log's last word.
func TestLateReceiptIsMended(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	var s fanout.Session
	f.world.mu.Lock()
	for s = range f.world.sessions {
	}
	f.world.mu.Unlock()
	th, other := id.NewGroup(), id.NewGroup()
	said := func(delivered, read int64) thread.Watermark {
		return thread.Watermark{
			DeliveredPosition: topic.Position(delivered), DeliveredOrdinal: delivered,
			ReadPosition: topic.Position(read), ReadOrdinal: read,
		}
	}
	for _, step := range []struct {
		name string
		th   id.ThreadID
		at   topic.Position
		w    thread.Watermark
		want []thread.Watermark // all that was said again
	}{
		{"the first", th, 5, said(10, 4), nil},
		{"a further one", th, 7, said(12, 4), nil},
		{"again, by a link that repeats itself", th, 5, said(10, 4), nil},
		{"the same again", th, 8, said(12, 4), nil},
		{"lower in another thread", other, 9, said(3, 3), nil},
		{"lower", th, 9, said(11, 3), []thread.Watermark{said(12, 4)}},
		{"mended", th, 10, said(12, 4), []thread.Watermark{said(12, 4)}},
		{"lower in part", th, 11, said(13, 2), []thread.Watermark{said(12, 4), said(13, 4)}},
	} {
		s.Logged(step.th, step.at, step.w)
		f.world.mu.Lock()
		var got []thread.Watermark
		for _, m := range f.world.marks {
			if m.thread != th || m.user != d.user || m.device != d.id {
				t.Errorf("%s: said of %v, %v, %v", step.name, m.thread, m.user, m.device)
			}
			got = append(got, m.w)
		}
		f.world.mu.Unlock()
		if diff := cmp.Diff(got, step.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", step.name, diff)
		}
	}
}

func TestSyncOutlastsAStoreThatIsDown(t *testing.T) {
	f := start(t, nil)
	var tries atomic.Int32
	f.world.sync = func(context.Context, fanout.Session) error {
		if tries.Add(1) < 3 {
			return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "down")
		}
		return nil
	}
	d := f.dial(t).register("+491")
	d.sync()
	if tries.Load() != 3 {
		t.Errorf("synced at try %d", tries.Load())
	}
	f.world.mu.Lock()
	f.world.sync = func(context.Context, fanout.Session) error {
		return wire.Errorf(wirev1.Code_CODE_DEVICE_REVOKED, "")
	}
	f.world.mu.Unlock()
	d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
	d.closed(wirev1.Code_CODE_DEVICE_REVOKED)
}

func TestSyncAgainCutsTheOneBefore(t *testing.T) {
	f := start(t, nil)
	entered := make(chan bool, 8)
	f.world.sync = func(ctx context.Context, _ fanout.Session) error {
		entered <- true
		<-ctx.Done()
		return ctx.Err()
	}
	d := f.dial(t).register("+491")
	one := d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
	<-entered
	f.world.mu.Lock()
	f.world.sync = nil
	f.world.mu.Unlock()
	two := d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
	d.refused(d.answer(one), wirev1.Code_CODE_UNAVAILABLE)
	if got := d.answer(two); got.WhichBody() != wirev1.ServerFrame_Done_case {
		t.Errorf("got %v", got)
	}
}

func TestHistoryComesOnItsOwnStream(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	th := id.NewGroup()
	want := map[uint64]int64{}
	for k := range int64(20) {
		req := d.send(wirev1.ClientFrame_builder{
			GetHistory: wirev1.GetHistory_builder{ThreadId: th[:], BeforePosition: k + 1}.Build(),
		})
		want[req] = k + 1
	}
	for len(want) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := d.conn.AcceptUniStream(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		p := &device{t: t}
		got := p.page(s)
		if before, ok := want[got.GetRequestId()]; !ok || got.GetHistoryPage().GetNextBefore() != before {
			t.Fatalf("page %v", got)
		}
		delete(want, got.GetRequestId())
	}
	req := d.send(wirev1.ClientFrame_builder{
		GetHistory: wirev1.GetHistory_builder{ThreadId: th[:], BeforePosition: 1 << 62}.Build(),
	})
	d.refused(d.answer(req), wirev1.Code_CODE_INVALID)
}

func TestPanicEndsOneSession(t *testing.T) {
	f := start(t, nil)
	d, other := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	th := id.NewGroup()
	d.send(wirev1.ClientFrame_builder{GetThread: wirev1.GetThread_builder{ThreadId: th[:]}.Build()})
	d.closed(wirev1.Code_CODE_INTERNAL)
	other.sync()
}

func TestLimits(t *testing.T) {
	t.Run("send rate", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Session.SendRate, c.Session.SendBurst = 1, 1 })
		a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
		a.ask(direct(a, b, "1"))
		got := a.ask(direct(a, b, "2"))
		a.refused(got, wirev1.Code_CODE_RATE_LIMITED)
		if got.GetError().GetRetryAfterMs() == 0 {
			t.Error("not told when to try again")
		}
	})
	t.Run("in flight", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Session.MaxInflight = 1 })
		f.world.sync = func(ctx context.Context, _ fanout.Session) error { <-ctx.Done(); return ctx.Err() }
		d := f.dial(t).register("+491")
		d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
		d.refused(
			d.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}), wirev1.Code_CODE_TOO_MANY_REQUESTS,
		)
	})
	t.Run("authentication deadline", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Session.HelloTimeout = 50 * time.Millisecond })
		f.dial(t).hello().closed(wirev1.Code_CODE_TIMEOUT)
	})
	t.Run("early connections of an address", func(t *testing.T) {
		f := start(t, func(c *Config) { c.maxEarlyPerAddress = 2 })
		a, b := f.dial(t).hello(), f.dial(t).hello()
		f.turnedAway(t, wirev1.Code_CODE_RATE_LIMITED)
		_ = a.conn.CloseWithError(0, "")
		until(t, "room", func() bool {
			f.early.mu.Lock()
			defer f.early.mu.Unlock()
			return f.early.counts[place(remote(b.conn))] == 1
		})
		c := f.dial(t).register("+491") // authenticated ones do not count
		f.dial(t).hello()
		c.sync()
	})
	t.Run("connections", func(t *testing.T) {
		f := start(t, func(c *Config) { c.MaxConnections = 1 })
		d := f.dial(t).hello()
		f.turnedAway(t, wirev1.Code_CODE_DRAINING)
		if err := d.conn.Context().Err(); err != nil {
			t.Error("the one that was in was thrown out")
		}
	})
}

func TestDrain(t *testing.T) {
	f := start(t, nil)
	var ds []*device
	for k := range 5 {
		ds = append(ds, f.dial(t).register(fmt.Sprint("+49", k)).sync())
	}
	done := make(chan error, 1)
	go func() { done <- f.Drain(context.Background()) }()
	for _, d := range ds {
		d.push("GoAway", func(f *wirev1.ServerFrame) bool { return f.WhichBody() == wirev1.ServerFrame_GoAway_case })
	}
	f.turnedAway(t, wirev1.Code_CODE_DRAINING)
	for _, d := range ds {
		d.closed(wirev1.Code_CODE_DRAINING)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if f.Ready(t.Context()) == nil {
		t.Error("ready while draining")
	}
}

func TestPortInUse(t *testing.T) {
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := newWorld()
	cfg := Config{
		Listen:  taken.LocalAddr().String(),
		Session: session.Config{Partitions: partitions},
	}
	identify(t, &cfg)
	e, err := New(cfg, readSide{w}, readSide{w}, gate{w}, reads{w}, w, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v, want an error that names the flag", err)
	}
}

func TestConfigValidateReportsEveryFault(t *testing.T) {
	err := Config{
		Listen:         "nowhere",
		CertFile:       "x",
		Secret:         "short",
		MaxConnections: -1,
	}.Validate()
	for _, want := range []string{
		"partitions", "host:port", "certificate and its key", "32 bytes", "at most -1",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}
