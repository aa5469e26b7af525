package fanout

import (
	"testing"
	"time"

	"heliograph/schemas/id"
)

// A phone that was away pages through what it missed. In: 20 threads with a message each, a window of 5. Expected: the
// 5 latest and SyncComplete with 15 left; then 4 more, the latest of the rest; one that gets a new message comes by
// itself, with what it missed before; then all others. In a thread that was left nothing came before what it missed.
func TestAWindowOfThreads(t *testing.T) {
	for _, restored := range []bool{false, true} {
		inBench(t, 1, func(t *testing.T, b *bench) {
			ann, bob := b.person(1), b.person(2)
			bob.window, bob.own = 5, restored
			b.settle()
			defer b.online(ann, 0).leave()
			var all []id.ThreadID
			for range 20 {
				all = append(all, b.group(ann.user, bob.user))
				b.settle()
			}
			if restored { // he has acknowledged all, and has nothing any more
				s := b.online(bob, 0)
				b.settle()
				_, err := s.next(0)
				mustBe(t, "all came", err, nil)
				b.settle()
				for _, g := range all {
					bob.acknowledge(b.world, g, false)
				}
				b.settle()
				s.leave()
				bob.restore(newPhone(bob.user, bob.id, 0).backup())
			}
			for _, g := range all {
				b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				time.Sleep(10 * time.Millisecond) // a stamp counts no further than ids allow
			}
			b.settle()
			has := func() (threads int) {
				for n, g := range all {
					switch got := bob.count(g); {
					case got == 2 && n >= 11:
						threads++
					case got != 0 && n < 11:
						t.Errorf("thread %d of 20 came: %d events", n, got)
					}
				}
				return threads
			}
			s := b.online(bob, 0)
			defer s.leave()
			b.settle()
			mustBe(t, "threads of the window", has(), 5)
			mustBe(t, "left", bob.rest, 15)
			rest, err := s.next(4)
			mustBe(t, "more", err, nil)
			b.settle()
			mustBe(t, "threads with 4 more", has(), 9)
			mustBe(t, "left then", rest, 11)
			b.world.Send(all[3], ann.user, ann.id, id.NewMessage(), id.UserID{})
			b.settle()
			b.settle()
			mustBe(t, "events of one with a new message", bob.count(all[3]), 3)
			rest, err = s.next(0)
			mustBe(t, "the rest", err, nil)
			mustBe(t, "left at the end", rest, 0)
			b.settle()
			mustBe(t, "lacks", bob.lacks(b.world), "")
			mustBe(t, "resyncs", bob.resyncs, 0)
			mustBe(t, "behind", b.edges[0].Fanout.OldestUndelivered(), time.Duration(0))
		})
	}
}
