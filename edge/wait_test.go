package edge

import (
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// What a request needs and is on its way is waited for; it is asked for again when something has changed, and not by
// the clock.
func TestRequestsWaitForWhatIsOnItsWay(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	change := func(fn func(*world)) {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		fn(f.world)
	}
	waiting := func(what string) {
		t.Helper()
		until(t, what, func() bool { return f.world.waiting.Load() > 0 })
	}
	g := id.NewGroup()
	create := wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "walk"}.Build(),
	}
	if got := a.ask(create); got.WhichBody() != wirev1.ServerFrame_Ack_case {
		t.Fatalf("got %v, want an ack", got)
	}
	rename := func(d *device, title string) uint64 {
		return d.send(wirev1.ClientFrame_builder{
			RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: title}.Build(),
		})
	}

	change(func(w *world) { w.hold = true })
	req := rename(a, "run") // which the log has, and this edge has not judged
	waiting("an answer that waits for its event")
	f.world.release()
	if got := a.answer(req); got.WhichBody() != wirev1.ServerFrame_Ack_case {
		t.Errorf("got %v, want an ack", got)
	}
	if v, _ := (readSide{f.world}).View(g); v.Next <= topic.Position(1) {
		t.Errorf("answered when this edge had read to %d", v.Next)
	}

	// A thread that is being loaded; the session has not synced yet.
	early := f.again(t, a)
	change(func(w *world) { w.cold = map[id.ThreadID]bool{g: true} })
	req = rename(early, "swim")
	waiting("a request for a thread that is loaded")
	change(func(w *world) { delete(w.cold, g); w.news() })
	if got := early.answer(req); got.WhichBody() != wirev1.ServerFrame_Ack_case {
		t.Errorf("got %v, want an ack", got)
	}

	// A user who has just registered: the view gets to know him as this edge reads on.
	b := f.dial(t).register("+492")
	change(func(w *world) { delete(w.users, b.user) })
	req = early.send(wirev1.ClientFrame_builder{AddMembers: wirev1.AddMembers_builder{
		ThreadId: g[:], MemberIds: [][]byte{b.user[:]},
	}.Build()})
	waiting("a request for a user who has just registered")
	change(func(w *world) { w.users[b.user] = true; w.seen++; w.news() })
	if got := early.answer(req); got.WhichBody() != wirev1.ServerFrame_Ack_case {
		t.Errorf("got %v, want an ack", got)
	}
}

// While the view is behind the log a user who has just registered is not in it. A message to him is refused for now, so
// that it stays in its outbox, and not for ever.
func TestNewUserWhileTheViewIsBehind(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492")
	change := func(behind bool) {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		f.world.behind, f.world.users[b.user] = behind, false
	}
	g := id.NewGroup()
	create := wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{
		ThreadId: g[:], Title: "walk", MemberIds: [][]byte{b.user[:]},
	}.Build()}
	message := direct(a, b, "welcome")
	for _, x := range []struct {
		behind bool
		want   wirev1.Code
	}{
		{true, wirev1.Code_CODE_UNAVAILABLE},
		{false, wirev1.Code_CODE_UNKNOWN_USER},
	} {
		change(x.behind)
		a.refused(a.ask(create), x.want)
		a.refused(a.ask(message), x.want) // which is sent again
	}
}
