package edge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestParkedThreadTellsItsMembers(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g, unborn := id.NewGroup(), id.NewGroup()
	a.ask(wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g", MemberIds: [][]byte{b.user[:]}}.Build()})
	f.world.mu.Lock()
	f.world.threads[unborn] = thread.New(unborn)
	f.world.parked = map[id.ThreadID]bool{g: true, unborn: true}
	f.world.mu.Unlock()
	send := func(t id.ThreadID) wirev1.ClientFrame_builder {
		m := id.NewMessage()
		return wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{ThreadId: t[:], MessageId: m[:], Content: text("x")}.Build()}
	}
	leave := wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}
	for _, x := range []struct {
		name string
		from *device
		msg  wirev1.ClientFrame_builder
		want wirev1.Code
	}{
		{"a member sends", b, send(g), wirev1.Code_CODE_THREAD_PARKED},
		{"a member leaves", b, leave, wirev1.Code_CODE_THREAD_PARKED},
		{"another sends", c, send(g), wirev1.Code_CODE_NOT_A_MEMBER},
		{"another leaves", c, leave, wirev1.Code_CODE_NOT_A_MEMBER},
		{"its first event is the bad one", a, send(unborn), wirev1.Code_CODE_THREAD_PARKED},
		{"created again", a, wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g"}.Build()},
			wirev1.Code_CODE_THREAD_PARKED},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := x.from.ask(x.msg)
			x.from.refused(got, x.want)
			if parked := x.want == wirev1.Code_CODE_THREAD_PARKED; wire.Lookup(x.want).Retriable != parked || (got.GetError().GetRetryAfterMs() > 0) != parked {
				t.Errorf("retriable %v, after %d ms", wire.Lookup(x.want).Retriable, got.GetError().GetRetryAfterMs())
			}
		})
	}
	if got := a.ask(direct(a, b, "other threads go on")); !got.HasAck() {
		t.Errorf("another thread: %v", got)
	}
}

// TestReceiptIsNeverLower: an edge that lags behind what a device has seen elsewhere writes nothing of it, rather than less, until it has caught up.
func TestReceiptIsNeverLower(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	th := id.DirectThread(a.user, b.user)
	claim := func(position, ordinal int64) {
		b.send(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{wirev1.Watermark_builder{
			ThreadId: th[:], DeliveredPosition: position, DeliveredOrdinal: ordinal, ReadPosition: position, ReadOrdinal: ordinal,
		}.Build()}}.Build()})
	}
	marks := func(want ...thread.Watermark) {
		t.Helper()
		until(t, "the receipts", func() bool {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			return len(f.world.marks) >= len(want)
		})
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		var got []thread.Watermark
		for _, m := range f.world.marks {
			got = append(got, m.w)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("receipts (-want +got):\n%s", d)
		}
	}
	at := func(position topic.Position, ordinal int64) thread.Watermark {
		return thread.Watermark{DeliveredPosition: position, DeliveredOrdinal: ordinal, ReadPosition: position, ReadOrdinal: ordinal}
	}
	a.ask(direct(a, b, "0"))
	a.ask(direct(a, b, "1"))
	claim(1, 2)
	marks(at(1, 2))
	f.world.mu.Lock()
	f.world.hold = true
	f.world.mu.Unlock()
	for range 4 {
		a.ask(direct(a, b, "another edge has it already"))
	}
	claim(3, 4)
	claim(5, 6)
	claim(4, 5)
	b.ask(wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}}) // the claims were taken before
	marks(at(1, 2))
	f.world.release()
	marks(at(1, 2), at(5, 6))
	claim(99, 99) // more than there is, which must be seen as that once the edge has read so far
	b.ask(wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}})
	marks(at(1, 2), at(5, 6))
	f.world.mu.Lock()
	f.world.next[topic.Threads] = 200 // of other threads
	f.world.known = thread.Watermark{ReadPosition: 7, ReadOrdinal: 7}
	f.world.mu.Unlock()
	marks(at(1, 2), at(5, 6), thread.Watermark{DeliveredPosition: 5, DeliveredOrdinal: 6, ReadPosition: 7, ReadOrdinal: 7})
}
