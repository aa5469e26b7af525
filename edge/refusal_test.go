package edge

import (
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
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
