package hub

import (
	"math/rand/v2"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// all is a crash that takes back so many events of everything.
func all(n int) func() int { return func() int { return n } }

// A Postgres that crashed comes back with older rows just when a device that was away syncs. What it does not have at
// that moment comes once it has it again, and before what is newer.
func TestViewsGoBackDuringSync(t *testing.T) {
	for name, stays := range map[string]time.Duration{"for a moment": 500 * time.Millisecond, "for longer than a sync waits": 10 * time.Second} {
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
					b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				b.world.mu.Lock()
				b.world.views.beforeTails = func() {
					b.world.views.stopped = true
					b.world.views.crash(all(4))
				}
				b.world.mu.Unlock()
				defer b.online(bob, 0).leave()
				time.Sleep(stays)
				b.world.mu.Lock()
				b.world.views.stopped = false
				b.world.mu.Unlock()
				b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
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
			b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		b.settle()
		s := b.online(bob, 0) // so that the clock has seen everything
		b.settle()
		s.leave()
		b.cluster.trim(0)
		b.world.mu.Lock()
		b.world.views.stopped = true
		b.world.views.crash(all(1))
		b.world.views.queries = 0
		b.world.mu.Unlock()
		time.Sleep(5 * time.Second) // bob is forgotten
		b.world.addMember(g, ann.user, bob.user)
		b.world.join(g, -1, bob.user)
		b.world.mu.Lock()
		before := b.world.views.queries
		b.world.mu.Unlock()
		attached := make(chan *testSession, 1)
		go func() {
			for { // the client asks again
				if s, err := bob.connect(b.hubs[0], 1000, 0, rand.New(rand.NewPCG(1, 1))); err == nil {
					attached <- s
					return
				}
			}
		}()
		time.Sleep(2 * time.Second)
		b.world.mu.Lock()
		asked := b.world.views.queries - before
		b.world.views.stopped = false
		b.world.mu.Unlock()
		if asked > 60 { // every 100 ms, and what else is asked on the way
			t.Errorf("the views were asked %d times in two seconds", asked)
		}
		defer (<-attached).leave()
		time.Sleep(10 * time.Second)
		b.settle()
		mustBe(t, "lacks", bob.lacks(b.world), "")
	})
}

// The clock follows the views back, but not an answer that was only late.
func TestViewClockGoesBack(t *testing.T) {
	back := 0
	v := newViewClock(nil, 2, testConfig(), nil, func() { back++ })
	first := v.answered()
	v.advance(first, []topic.Cursor{{10, 1, 1}, {5, 5, 5}})
	v.advance(first, []topic.Cursor{{9, 2, 1}, {5, 5, 5}})
	mustBe(t, "a late answer", v.slot(0), topic.Cursor{10, 2, 1})
	_, moved := v.look()
	v.advance(v.answered(), []topic.Cursor{{8, 2, 1}, {5, 5, 5}})
	mustBe(t, "after a crash", v.slot(0), topic.Cursor{8, 2, 1})
	mustBe(t, "the other slot", v.slot(1), topic.Cursor{5, 5, 5})
	mustBe(t, "counted", back, 1)
	select {
	case <-moved:
		t.Error("told that the views are further when they went back")
	default:
	}
	v.take(v.answered(), seen{0, topic.Threads, 9})
	select {
	case <-moved:
	default:
		t.Error("not told that the views are further again")
	}
}

// Events of a topic that a later version added are dropped and counted; the link goes on.
func TestEventsOfAnUnknownTopicDoNotEndTheLink(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		h := b.hubs[0]
		m := linkv1.ToEdge_builder{Events: linkv1.Events_builder{
			Topic: 99, Records: []*linkv1.Record{linkv1.Record_builder{Key: make([]byte, id.Size)}.Build()},
		}.Build()}.Build()
		if err := h.frame(&conn{}, m); err != nil {
			t.Errorf("the link ends: %v", err)
		}
		var c dto.Metric
		if err := h.metrics.drops.WithLabelValues("unknown_topic").Write(&c); err != nil {
			t.Fatal(err)
		}
		mustBe(t, "dropped", c.GetCounter().GetValue(), 1.0)
	})
}
