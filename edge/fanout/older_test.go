package fanout

import (
	"testing"
	"time"

	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
)

// A device that was away for longer than the tail goes back gets all of it, in order and once; with a history that does
// not answer, or is behind, the thread waits, and the others do not.
func TestAwayLongerThanTheTail(t *testing.T) {
	for name, hinder := range map[string]func(*replicatest.History){
		"":               func(*replicatest.History) {},
		"history down":   func(m *replicatest.History) { m.Down = true },
		"history hangs":  func(m *replicatest.History) { m.Hangs = true },
		"history behind": func(m *replicatest.History) { m.Behind = 15 },
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 1, func(t *testing.T, b *bench) {
				w := b.world
				ann, bob := b.person(1), b.person(2)
				b.settle()
				defer b.online(ann, 0).leave()
				s := b.online(bob, 0)
				old := b.group(ann.user, bob.user)
				threads := []id.ThreadID{old}
				for range 20 {
					threads = append(threads, b.group(ann.user, bob.user))
				}
				b.settle()
				for _, g := range threads {
					w.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
					b.settle()
					bob.acknowledge(w, g, false)
				}
				b.settle()
				s.leave()
				for range 10 {
					w.Send(old, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				w.Mu.Lock()
				first := true
				w.Views.Trim(w.Clock, func() bool { first = !first; return !first }) // not all that it might
				w.Views.Trim(w.Clock-20, func() bool { return true })
				hinder(&w.Past)
				w.Mu.Unlock()
				for _, g := range threads {
					w.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				defer b.online(bob, 0).leave()
				b.settle() // less than the fanout waits for the history
				for _, g := range threads[1:] {
					mustBe(t, "what bob has of the others", bob.count(g), 3)
				}
				time.Sleep(10 * time.Second)
				b.settle()
				if name != "" {
					mustBe(t, "what bob has of the thread that lacks something", bob.count(old), 2)
					w.Mu.Lock()
					w.Past.Down, w.Past.Hangs, w.Past.Behind = false, false, 0
					w.Mu.Unlock()
				}
				time.Sleep(10 * time.Second)
				b.settle()
				mustBe(t, "lacks", bob.lacks(w), "")
			})
		})
	}
}

// Who lacks nothing of what was trimmed needs no history: he has it, was not a member or not a device then, or the
// thread has been quiet since.
func TestTrimmedConcerns(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		w := b.world
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		s := b.online(bob, 0)
		g, joins := b.group(ann.user, bob.user), b.group(ann.user)
		b.settle()
		w.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		w.Send(joins, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		bob.acknowledge(w, g, false)
		b.settle()
		s.leave()
		w.Mu.Lock()
		w.Views.Trim(w.Clock, func() bool { return true })
		w.Past.Down = true
		w.Mu.Unlock()
		w.Join(joins, -1, bob.user)
		w.AddMember(joins, ann.user, bob.user)
		w.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		w.Register(bob.user, id.NewDevice(), 2)
		phone := newPhone(bob.user, id.NewDevice(), 0)
		phone.floor = w.Register(bob.user, phone.id, 3)
		w.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		defer b.online(phone, 0).leave()
		carol := b.person(3)
		w.Join(g, -1, carol.user)
		w.AddMember(g, ann.user, carol.user)
		b.settle()
		defer b.online(carol, 0).leave()
		time.Sleep(5 * time.Second)
		b.settle()
		mustBe(t, "lacks", phone.lacks(w), "")
		mustBe(t, "lacks", carol.lacks(w), "")
		mustBe(t, "questions to the history", w.Past.Asked, 0)
	})
}
