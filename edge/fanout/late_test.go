package fanout

import (
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// groupIn makes a group in a slot.
func (b *bench) groupIn(s topic.Slot, by id.UserID) id.ThreadID {
	for {
		if t := id.NewGroup(); b.world.Slot(topic.Subject(t)) == s {
			b.world.Join(t, b.world.Next(t), by)
			b.world.Create(t, by)
			return t
		}
	}
}

// Devices that are on line miss something of a thread in a slot whose views stand still, many more than may read pages
// at one time. In: one of them, and one other, miss something of a thread in another slot. Expected: both get that in
// seconds, and all that comes in it; what waits for the views is told by its age, and comes once they go on.
func TestViewsThatStandStillHoldUpTheirSlotAlone(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		var people []*phone
		for n := range byte(6 * catchups) {
			people = append(people, b.person(n))
		}
		b.settle()
		for _, p := range people {
			defer b.online(p, 0).leave()
		}
		ann, bob, zoe := people[0], people[1], people[len(people)-1]
		slow, fine := b.groupIn(0, ann.user), b.groupIn(1, ann.user)
		slow2 := b.groupIn(0, ann.user)
		time.Sleep(5 * time.Second) // the views catch up
		b.settle()
		b.world.Mu.Lock()
		b.world.Views.Stalled = map[topic.Slot]bool{0: true}
		b.world.Mu.Unlock()
		join := func(g id.ThreadID, p *phone) {
			b.world.AddMember(g, ann.user, p.user) // before the list says so: he misses it
			time.Sleep(50 * time.Millisecond)
			b.world.Join(g, -1, p.user)
		}
		for _, p := range people[1 : len(people)-1] {
			join(slow, p)
		}
		join(fine, zoe)
		time.Sleep(patience + patience/5) // all have given up, until they try again
		b.world.AddMember(slow2, ann.user, bob.user)
		b.world.AddMember(fine, ann.user, bob.user)
		time.Sleep(50 * time.Millisecond)
		b.world.Join(slow2, -1, bob.user)
		b.world.Join(fine, -1, bob.user)
		time.Sleep(lateAfter)
		b.world.Send(fine, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.world.Send(slow, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "the other slot's, of one who waits for this one's", bob.count(fine), 2)
		mustBe(t, "the other slot's, of one who does not", zoe.count(fine), 3)
		mustBe(t, "of the slot that stands still", bob.count(slow), 0)
		if got := b.edges[0].Fanout.OldestUndelivered(); got < lateAfter {
			t.Errorf("what waits has an age of %v", got)
		}
		if got := b.edges[0].gauge(t, "helio_fanout_catchups_late_total"); got < 1 {
			t.Error("nobody was counted as late")
		}
		b.world.Mu.Lock()
		b.world.Views.Stalled = nil
		b.world.Mu.Unlock()
		time.Sleep(lateAfter)
		b.settle()
		for _, p := range people {
			mustBe(t, "lacks", p.lacks(b.world), "")
			mustBe(t, "resyncs", p.resyncs, 0)
		}
		mustBe(t, "behind", b.edges[0].Fanout.OldestUndelivered(), time.Duration(0))
	})
}
