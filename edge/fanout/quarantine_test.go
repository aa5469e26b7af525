package fanout

import (
	"slices"
	"testing"
	"time"

	"heliograph/edge/replica"
	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// What a newer version has written stops its thread here, and only that, until the views have it. Then the devices get
// all of it, in order and once, without anybody subscribing anew.
func TestReleasedFromQuarantine(t *testing.T) {
	for name, reads := range map[string]struct {
		newer bool // the projector reads it from the beginning
		late  bool // bob's edge begins to follow the thread while it is in quarantine
		slow  bool // the ring brings it to the edges once more, after the snapshot that has it
	}{
		"drained by a newer projector":             {},
		"drained before the thread was subscribed": {late: true},
		"never in the views' quarantine":           {newer: true},
		"drained, and brought by the ring":         {slow: true},
		"never there, and brought by the ring":     {newer: true, slow: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 2, func(t *testing.T, b *bench) {
				if reads.slow {
					b.cluster.Slow()
				}
				ann, bob := b.person(1), b.person(2)
				b.settle()
				defer b.online(ann, 0).leave()
				if !reads.late {
					defer b.online(bob, 1).leave()
				}
				g, other := b.group(ann.user, bob.user), b.group(ann.user, bob.user)
				b.settle()
				b.world.Mu.Lock()
				b.world.Views.Newer = reads.newer
				b.world.Mu.Unlock()
				b.world.SendNewer(g, ann.user, ann.id)
				for range 3 {
					b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
					b.world.Send(other, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				if reads.late {
					defer b.online(bob, 1).leave()
				}
				if !reads.newer {
					time.Sleep(time.Minute)
					b.settle()
					mustBe(t, "what bob has of the thread", bob.count(g), 1)
					v, _ := b.edges[1].View(g)
					mustBe(t, "in quarantine", v.Quarantined, true)
					b.world.Mu.Lock()
					asked := b.world.Views.Asked // by two edges
					b.world.Views.Drain()
					b.world.Mu.Unlock()
					if asked == 0 || asked > 2*60/2 {
						t.Errorf("the views were asked about the quarantine %d times in a minute", asked)
					}
				}
				mustBe(t, "what bob has of the other", bob.count(other), 4)
				time.Sleep(20 * time.Second)
				b.settle()
				for n, d := range []*phone{ann, bob} {
					mustBe(t, "lacks", d.lacks(b.world), "")
					v, _ := b.edges[n].View(g)
					mustBe(t, "in quarantine", v.Quarantined, false)
				}
				b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
				b.settle()
				mustBe(t, "live again", ann.count(g), 6)
				b.world.Mu.Lock()
				defer b.world.Mu.Unlock()
				b.world.Views.Asked = 0
				b.world.Mu.Unlock()
				time.Sleep(time.Minute)
				b.world.Mu.Lock()
				mustBe(t, "questions about an empty quarantine", b.world.Views.Asked, 0)
			})
		})
	}
}

// A user whose events have stopped is opened again too.
func TestUserReleasedFromQuarantine(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.cluster.Slow()
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		b.world.LinkNewer(ann.user, ann.id)
		b.settle()
		g := b.group(ann.user) // of which her list tells nothing here
		b.settle()
		mustBe(t, "what she has of the thread", ann.count(g), 0)
		b.world.Mu.Lock()
		held := b.world.Views.Quarantined[replica.Quarantined{
			Topic: topic.Users.Number(), Subject: topic.Subject(ann.user),
		}]
		mustBe(t, "held in the views", len(held), 2)
		b.world.Views.Drain()
		b.world.Mu.Unlock()
		time.Sleep(20 * time.Second)
		b.settle()
		mustBe(t, "lacks", ann.lacks(b.world), "")
		g = b.group(ann.user)
		b.settle()
		mustBe(t, "live again", ann.count(g), 1)
	})
}

// Receipts that have stopped are opened again too, and not stopped by the same one once more.
func TestReceiptsReleasedFromQuarantine(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.cluster.Slow()
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		at := b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		b.world.Mu.Lock()
		b.world.Views.Newer = true
		b.world.Mu.Unlock()
		b.world.WatermarkNewer(g, bob.user, bob.id, thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1})
		b.settle()
		mustBe(t, "in quarantine", ann.mark(g, bob.user), thread.Watermark{})
		time.Sleep(20 * time.Second)
		b.settle()
		read := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1, ReadPosition: at, ReadOrdinal: 1}
		b.world.Watermark(g, bob.user, bob.id, read)
		b.settle()
		mustBe(t, "released", ann.mark(g, bob.user), read)
	})
}

// What an operator drops is passed over, and within a second the thread goes on, in order: whether its edge stopped at
// the event, began to follow the thread later, or has it brought by the ring once more.
func TestDroppedByAnOperator(t *testing.T) {
	for name, how := range map[string]struct{ late, slow bool }{
		"stopped here":                       {},
		"followed while it was stopped":      {late: true},
		"brought by the ring after the drop": {slow: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 2, func(t *testing.T, b *bench) {
				ann, bob := b.person(1), b.person(2)
				b.settle()
				defer b.online(ann, 0).leave()
				if !how.late {
					defer b.online(bob, 1).leave()
				}
				g := b.group(ann.user, bob.user)
				b.settle()
				at := b.world.AddRaw(topic.Threads, g[:], []byte{0xff})
				for range 3 {
					b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				}
				b.settle()
				if how.late {
					defer b.online(bob, 1).leave()
				}
				time.Sleep(time.Minute)
				b.settle()
				for n, d := range []*phone{ann, bob} {
					v, _ := b.edges[n].View(g)
					mustBe(t, "in quarantine", v.Quarantined, true)
					mustBe(t, "what he has", d.count(g), 1)
				}
				if how.slow {
					b.cluster.Slow()
				}
				drop := kafka.Release{
					Topic: topic.Threads, Slot: b.edges[0].SlotOf(g), Position: at, Subject: topic.Subject(g),
					Dropped: true,
				}
				for _, e := range b.edges {
					e.Released(drop)
				}
				time.Sleep(100 * time.Millisecond) // the projector takes a moment
				b.world.Mu.Lock()
				b.world.Views.Drop(drop)
				b.world.Mu.Unlock()
				time.Sleep(900 * time.Millisecond)
				for n := range b.edges {
					v, _ := b.edges[n].View(g)
					mustBe(t, "still in quarantine after a second", v.Quarantined, false)
				}
				b.settle()
				b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
				b.settle()
				for _, d := range []*phone{ann, bob} {
					mustBe(t, "lacks", d.lacks(b.world), "")
					mustBe(t, "what he has", d.count(g), 5)
					mustBe(t, "told that it goes on", slices.Equal(d.late[g], []wirev1.Code{0}), true)
				}
			})
		})
	}
}

// What was dropped before an edge comes to the event stops nobody.
func TestDroppedBefore(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user)
		b.settle()
		drop := kafka.Release{
			Topic: topic.Threads, Slot: b.edges[0].SlotOf(g), Position: b.world.Next(g), Subject: topic.Subject(g),
			Dropped: true,
		}
		b.edges[0].Released(drop)
		b.world.Mu.Lock()
		b.world.Views.Drop(drop)
		b.world.Mu.Unlock()
		mustBe(t, "position", b.world.AddRaw(topic.Threads, g[:], []byte{0xff}), drop.Position)
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		v, _ := b.edges[0].View(g)
		mustBe(t, "in quarantine", v.Quarantined, false)
		mustBe(t, "what she has", ann.count(g), 2)
		b.world.Mu.Lock()
		defer b.world.Mu.Unlock()
		mustBe(t, "questions about quarantine", b.world.Views.Asked, 0)
	})
}
