package fanout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
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

// The link has no room for one of a user's threads. In: his phone comes back from being away, when the thread is new to
// the edge or was live there until its slot changed hands; messages come in all his threads, or in none; later there is
// room. Expected: the rest is served at once, and stays live; the phone is told which thread is not, once; later it
// gets what it missed of that, in order, how far the others have read, and then that it is live.
func TestAThreadWithoutRoomHoldsUpNoOther(t *testing.T) {
	for _, c := range []struct {
		name         string
		online, news bool
	}{{"away", false, true}, {"away, nothing new", false, false}, {"on line", true, true},
		{"on line, nothing new", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			inBench(t, 2, func(t *testing.T, b *bench) { withoutRoom(t, b, c.online, c.news) })
		})
	}
}

func withoutRoom(t *testing.T, b *bench, online, news bool) {
	ann, bob := b.person(1), b.person(2)
	b.settle()
	defer b.online(ann, 1).leave()
	full, fine, other := b.groupIn(0, bob.user), b.groupIn(0, bob.user), b.groupIn(1, bob.user)
	all := []id.ThreadID{full, fine, other}
	for _, g := range all {
		b.world.Join(g, -1, ann.user)
		b.world.AddMember(g, bob.user, ann.user)
	}
	sent := 0
	send := func() {
		for _, g := range all {
			b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		sent += 2
	}
	send()
	b.settle()
	before := 0
	if online {
		defer b.online(bob, 0).leave()
		b.settle()
		before = bob.count(full)
	}
	b.cluster.Deny(topic.Subject(full))
	if online {
		b.cluster.Give(0, "b", 0) // it is live, until the other instance refuses it
	} else {
		defer b.online(bob, 0).leave()
	}
	b.settle()
	mustBe(t, "SyncComplete", bob.syncs, 1)
	mustBe(t, "left by a window", bob.rest, 0)
	if news {
		send()
	}
	read := ann.applied[full].Ordinal
	ann.acknowledge(b.world, full, true)
	b.settle()
	mustBe(t, "of the one without room", bob.count(full), before)
	for _, g := range all[1:] {
		mustBe(t, "of another", bob.count(g), 2+sent)
	}
	time.Sleep(time.Minute)
	b.settle()
	unavailable := wirev1.Code_CODE_UNAVAILABLE
	if diff := cmp.Diff(map[id.ThreadID][]wirev1.Code{full: {unavailable}}, bob.late); diff != "" {
		t.Errorf("told of what is late (-want +got):\n%s", diff)
	}
	b.cluster.Deny()
	time.Sleep(time.Minute)
	b.settle()
	mustBe(t, "lacks", bob.lacks(b.world), "")
	if diff := cmp.Diff(map[id.ThreadID][]wirev1.Code{full: {unavailable, 0}}, bob.late); diff != "" {
		t.Errorf("told of what is late (-want +got):\n%s", diff)
	}
	mustBe(t, "she has read something", read > 0, true)
	mustBe(t, "how far she has read", bob.receipts[full][ann.user].ReadOrdinal, read)
	send()
	b.settle()
	mustBe(t, "lacks at the end", bob.lacks(b.world), "")
	mustBe(t, "resyncs", bob.resyncs, 0)
	mustBe(t, "behind", b.edges[0].Fanout.OldestUndelivered(), time.Duration(0))
}

// The link has no room for any of a user's many threads, and each answer of the instance takes a while. In: his phone
// comes on line, and syncs again some time after the last refusal. Expected: each Sync completes without asking for one
// thread after the other, and he is told of every thread.
func TestManyThreadsWithoutRoomHoldUpNoSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.replica.Batch = 256
		b := newBench(t, 1, 1, cfg)
		defer b.stop()
		bob := b.person(1)
		b.settle()
		var refused []topic.Subject
		for range 300 {
			refused = append(refused, topic.Subject(b.groupIn(0, bob.user)))
		}
		time.Sleep(5 * time.Second) // the views catch up
		b.settle()
		b.cluster.Deny(refused...)
		b.cluster.Delay(50 * time.Millisecond) // of each request
		s := b.online(bob, 0)
		defer s.leave()
		time.Sleep(patience)
		b.settle()
		mustBe(t, "SyncComplete on coming on line", bob.syncs, 1)
		for _, pause := range []time.Duration{patience, 27 * time.Second, patience, lateAfter + time.Second} {
			bob.syncs = 0
			s.Lagged()
			time.Sleep(pause)
			b.settle()
			mustBe(t, "SyncComplete after "+pause.String(), bob.syncs, 1)
		}
		mustBe(t, "threads that are late", len(bob.late), len(refused))
	})
}

// A thread turns live just when a catch-up has found that it is not followed. In: that order of the two. Expected: the
// catch-up looks again, and gives it up only when that was so once more.
func TestAThreadThatTurnsLiveMeanwhileIsNotGivenUp(t *testing.T) {
	th := id.NewGroup()
	d := &device{sess: &sink{}, state: open}
	d.begin(th)
	f := &Fanout{}
	f.late(d, th, nil)
	for _, want := range []bool{false, true} {
		if _, done := d.giveUp(th); done != want {
			t.Errorf("given up: %v, want %v", done, want)
		}
	}
}
