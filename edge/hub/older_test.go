package hub

import (
	"testing"
	"time"

	"heliograph/schemas/id"
)

// A device that was away for longer than the tail goes back gets all of it, in order and once; with a history that does
// not answer, or is behind, the thread waits, and the others do not.
func TestAwayLongerThanTheTail(t *testing.T) {
	for name, hinder := range map[string]func(*memHistory){
		"":               func(*memHistory) {},
		"history down":   func(m *memHistory) { m.down = true },
		"history hangs":  func(m *memHistory) { m.hangs = true },
		"history behind": func(m *memHistory) { m.behind = 15 },
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
					w.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
					b.settle()
					bob.acknowledge(w, g, false)
				}
				b.settle()
				s.leave()
				for range 10 {
					w.send(old, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				w.mu.Lock()
				first := true
				w.views.trim(w.clock, func() bool { first = !first; return !first }) // not all that it might
				w.views.trim(w.clock-20, func() bool { return true })
				hinder(&w.past)
				w.mu.Unlock()
				for _, g := range threads {
					w.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				defer b.online(bob, 0).leave()
				b.settle() // less than the hub waits for the history
				for _, g := range threads[1:] {
					mustBe(t, "what bob has of the others", bob.count(g), 3)
				}
				time.Sleep(10 * time.Second)
				b.settle()
				if name != "" {
					mustBe(t, "what bob has of the thread that lacks something", bob.count(old), 2)
					w.mu.Lock()
					w.past.down, w.past.hangs, w.past.behind = false, false, 0
					w.mu.Unlock()
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
		w.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		w.send(joins, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		bob.acknowledge(w, g, false)
		b.settle()
		s.leave()
		w.mu.Lock()
		w.views.trim(w.clock, func() bool { return true })
		w.past.down = true
		w.mu.Unlock()
		w.join(joins, -1, bob.user)
		w.addMember(joins, ann.user, bob.user)
		w.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		w.register(bob.user, id.NewDevice(), 2)
		phone := newDevice(bob.user, id.NewDevice(), 0)
		phone.floor = w.register(bob.user, phone.id, 3)
		w.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		defer b.online(phone, 0).leave()
		carol := b.person(3)
		w.join(g, -1, carol.user)
		w.addMember(g, ann.user, carol.user)
		b.settle()
		defer b.online(carol, 0).leave()
		time.Sleep(5 * time.Second)
		b.settle()
		mustBe(t, "lacks", phone.lacks(w), "")
		mustBe(t, "lacks", carol.lacks(w), "")
		mustBe(t, "questions to the history", w.past.asked, 0)
	})
}
