package fanout

import (
	"slices"
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// TestRejectedWhileAway: who was away when the fold rejected what he had sent hears of it when he syncs, on the device
// that sent it, and also when the views are behind.
func TestRejectedWhileAway(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		tablet := id.NewDevice()
		b.world.LinkDevice(bob.user, bob.id, tablet)
		b.settle()
		same := func(what string, want ...topic.Position) {
			t.Helper()
			if !slices.Equal(bob.rejected, want) {
				t.Errorf("%s: %v, want %v", what, bob.rejected, want)
			}
		}
		stop := func(yes bool) {
			b.world.Mu.Lock()
			defer b.world.Mu.Unlock()
			b.world.Views.Stopped = yes
		}
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.settle()
		s := b.online(bob, 0)
		b.settle()
		s.leave()
		b.world.RemoveMember(g, ann.user, bob.user)
		first := b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.settle()
		s = b.online(bob, 0)
		b.settle()
		same("told", first)
		s.leave()
		other := newPhone(bob.user, tablet, bob.floor)
		defer b.online(other, 0).leave()
		b.settle()
		mustBe(t, "the device that did not send it", len(other.rejected), 0)

		// This edge has seen the next before the views have, and bob comes back in between.
		stop(true)
		second := b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.settle()
		bob.rejected = nil
		defer b.online(bob, 0).leave()
		time.Sleep(time.Second)
		stop(false)
		b.settle()
		same("once the views have it", first, second)
	})
}
