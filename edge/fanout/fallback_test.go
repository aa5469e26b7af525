package fanout

import (
	"math/rand/v2"
	"testing"
	"time"

	"heliograph/schemas/id"
)

// all is a crash that takes back so many events of everything.
func all(n int) func() int { return func() int { return n } }

// A Postgres that crashed comes back with older rows just when a device that was away syncs. What it does not have at
// that moment comes once it has it again, and before what is newer.
func TestViewsGoBackDuringSync(t *testing.T) {
	for name, stays := range map[string]time.Duration{
		"for a moment": 500 * time.Millisecond, "for longer than a sync waits": 10 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 1, func(t *testing.T, b *bench) {
				ann, bob := b.person(1), b.person(2)
				b.settle()
				defer b.online(ann, 0).leave()
				s := b.online(bob, 0)
				g := b.group(ann.user, bob.user)
				b.settle()
				s.leave()
				for range 7 {
					b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				b.world.Mu.Lock()
				b.world.Views.BeforeTails = func() {
					b.world.Views.Stopped = true
					b.world.Views.Crash(all(4))
				}
				b.world.Mu.Unlock()
				defer b.online(bob, 0).leave()
				time.Sleep(stays)
				b.world.Mu.Lock()
				b.world.Views.Stopped = false
				b.world.Mu.Unlock()
				b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				time.Sleep(10 * time.Second)
				b.settle()
				mustBe(t, "lacks", bob.lacks(b.world), "")
			})
		})
	}
}

// While the views are behind where they once were, a subject that waits for them is not loaded over and over.
func TestViewsGoBackBeforeLoad(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user)
		for range 7 {
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		b.settle()
		s := b.online(bob, 0) // so that the clock has seen everything
		b.settle()
		s.leave()
		b.cluster.Trim(0)
		b.world.Mu.Lock()
		b.world.Views.Stopped = true
		b.world.Views.Crash(all(1))
		b.world.Views.Queries = 0
		b.world.Mu.Unlock()
		time.Sleep(5 * time.Second) // bob is forgotten
		b.world.AddMember(g, ann.user, bob.user)
		b.world.Join(g, -1, bob.user)
		b.world.Mu.Lock()
		before := b.world.Views.Queries
		b.world.Mu.Unlock()
		attached := make(chan *testSession, 1)
		go func() {
			for { // the client asks again
				if s, err := bob.connect(b.edges[0], 1000, 0, rand.New(rand.NewPCG(1, 1))); err == nil {
					attached <- s
					return
				}
			}
		}()
		time.Sleep(2 * time.Second)
		b.world.Mu.Lock()
		asked := b.world.Views.Queries - before
		b.world.Views.Stopped = false
		b.world.Mu.Unlock()
		if asked > 60 { // every 100 ms, and what else is asked on the way
			t.Errorf("the views were asked %d times in two seconds", asked)
		}
		defer (<-attached).leave()
		time.Sleep(10 * time.Second)
		b.settle()
		mustBe(t, "lacks", bob.lacks(b.world), "")
	})
}
