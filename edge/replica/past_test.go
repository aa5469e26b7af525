package replica_test

import (
	"errors"
	"testing"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestPast: what a user and his threads have taken in is known without a question, and who waits for the views to have
// it waits no longer than that, and not for ever.
func TestPast(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g, other := b.inSlot(2, ann.user), b.inSlot(3, ann.user)
		b.settle()
		stop := func(yes bool) {
			b.world.Mu.Lock()
			defer b.world.Mu.Unlock()
			b.world.Views.Stopped = yes
		}
		needs := func(fill func(n replica.Needs)) replica.Needs { n := replica.Needs{}; fill(n); return n }
		past := func(n replica.Needs) error { return b.replica.Past(t.Context(), n) }
		mustBe(t, "as far as both are", past(needs(func(n replica.Needs) {
			b.replica.TakenInBy(ann.user, true, n)
		})), nil)
		stop(true)
		b.settle()
		at := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		thread := needs(func(n replica.Needs) { b.replica.TakenIn(g, n) })
		same(t, "of the thread", thread, replica.Needs{{topic.Threads, 2}: at})
		mustBe(t, "of another", past(needs(func(n replica.Needs) { b.replica.TakenIn(other, n) })), nil)
		mustBe(t, "of the user alone", past(needs(func(n replica.Needs) {
			b.replica.TakenInBy(ann.user, false, n)
		})), nil)
		all := needs(func(n replica.Needs) { b.replica.TakenInBy(ann.user, true, n) })
		mustBe(t, "of his threads", all[replica.Part{Topic: topic.Threads, Slot: 2}], at)
		for what, n := range map[string]replica.Needs{"the thread": thread, "his threads": all} {
			if err := past(n); !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
				t.Errorf("%s, of which the views lack the last: %v", what, err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- past(all) }()
		b.settle()
		mustBe(t, "returned before the views had it", len(done), 0)
		stop(false)
		mustBe(t, "once they do", <-done, nil)
		b.world.Revoke(ann.user, d)
		stop(true)
		b.settle()
		if err := past(needs(func(n replica.Needs) { b.replica.TakenInBy(ann.user, false, n) })); err == nil {
			t.Error("the views were taken to have what the user has taken in since")
		}
	})
}
