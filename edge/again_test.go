package edge

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"heliograph/edge/auth"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestLeaveAgain: leaving is repeated when its answer was lost, on this edge or on another, which does not know the
// group any more.
func TestLeaveAgain(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	b := f.dial(t).register("+492").sync()
	stranger := f.dial(t).register("+493").sync()
	g := id.NewGroup()
	made := a.ask(wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{
			ThreadId:  g[:],
			Title:     "walk",
			MemberIds: [][]byte{b.user[:]},
		}.Build(),
	})
	if made.WhichBody() != wirev1.ServerFrame_Ack_case {
		t.Fatalf("got %v, want an ack", made)
	}
	change := func(fn func(*world)) {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		fn(f.world)
	}
	count := func() (left, told int) {
		for _, r := range f.world.log() {
			if r.ev.HasMemberLeft() {
				left++
			}
			if r.topic == topic.Users && r.subject == topic.Subject(b.user) && r.ev.HasThreadLeft() {
				told++
			}
		}
		return left, told
	}
	leave := wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}
	// The log takes the end of the membership and then not the event that tells b's list.
	change(func(w *world) { w.refuse = func(ev *eventv1.Event) (bool, bool) { return ev.HasThreadLeft(), false } })
	b.refused(b.ask(leave), wirev1.Code_CODE_UNAVAILABLE)
	change(func(w *world) { w.refuse = nil })
	if left, told := count(); left != 1 || told != 0 {
		t.Fatalf("%d members left and the list was told %d times, want 1 and 0", left, told)
	}
	again := func() {
		t.Helper()
		if got := b.ask(leave); got.WhichBody() != wirev1.ServerFrame_Done_case {
			t.Fatalf("leaving again: got %v, want done", got)
		}
		if left, told := count(); left != 1 || told == 0 {
			t.Errorf("%d members left and the list was told %d times, want 1 and at least 1", left, told)
		}
	}
	again()
	change(func(w *world) { w.cold = map[id.ThreadID]bool{g: true} })
	again()
	stranger.refused(stranger.ask(leave), wirev1.Code_CODE_NOT_A_MEMBER)
}

// A stranger names threads that this edge does not know, to leave them and to create them again. Expected: nothing is
// loaded for him, unless he pays for it.
func TestStrangersHaveNothingLoaded(t *testing.T) {
	f := start(t, nil)
	a, stranger := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	g := id.NewGroup()
	create := wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g"}.Build()}
	if got := a.ask(create); !got.HasAck() {
		t.Fatalf("got %v", got)
	}
	f.world.mu.Lock()
	f.world.cold = map[id.ThreadID]bool{g: true}
	clear(f.world.ensured)
	f.world.mu.Unlock()
	none := id.NewGroup()
	for _, th := range []id.ThreadID{g, none} {
		leave := wirev1.LeaveThread_builder{ThreadId: th[:]}.Build()
		stranger.refused(
			stranger.ask(wirev1.ClientFrame_builder{LeaveThread: leave}), wirev1.Code_CODE_NOT_A_MEMBER,
		)
	}
	f.world.mu.Lock()
	f.world.broke = auth.Groups
	f.world.mu.Unlock()
	stranger.refused(stranger.ask(create), wirev1.Code_CODE_RATE_LIMITED)
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if len(f.world.ensured) != 0 {
		t.Errorf("%d threads were loaded", len(f.world.ensured))
	}
}

// TestLinkDeviceAgain: the approval of a device is repeated when its answer was lost.
func TestLinkDeviceAgain(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	link := func(d id.DeviceID, key byte) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{
			LinkDevice: wirev1.LinkDevice_builder{
				DeviceId:  d[:],
				PublicKey: bytes.Repeat([]byte{key}, ed25519.PublicKeySize),
			}.Build(),
		}
	}
	done := func(got *wirev1.ServerFrame) {
		t.Helper()
		if got.WhichBody() != wirev1.ServerFrame_Done_case {
			t.Fatalf("got %v, want done", got)
		}
	}
	first := id.NewDevice()
	done(a.ask(link(first, 1)))
	n := len(f.world.log())
	done(a.ask(link(first, 1)))
	if len(f.world.log()) != n {
		t.Error("a repeated LinkDevice was appended")
	}
	a.refused(a.ask(link(first, 2)), wirev1.Code_CODE_CONFLICT)
	for have := 2; have < user.MaxDevices; have++ {
		done(a.ask(link(id.NewDevice(), 1)))
	}
	a.refused(a.ask(link(id.NewDevice(), 1)), wirev1.Code_CODE_NOT_ALLOWED)
	done(a.ask(link(first, 1))) // also where no further one may be linked
}
