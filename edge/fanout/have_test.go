package fanout

import (
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
)

// A phone is restored from a backup. In: 8 messages, of which the backup has the first 3, and all of which the phone
// had acknowledged before; it says what it has. Expected: the other 5, once each. Without saying so it gets none of
// them.
func TestRestoredFromABackup(t *testing.T) {
	for _, says := range []bool{true, false} {
		inBench(t, 1, func(t *testing.T, b *bench) {
			ann, bob := b.person(1), b.person(2)
			bob.own = says
			b.settle()
			defer b.online(ann, 0).leave()
			s := b.online(bob, 0)
			g, h := b.group(ann.user, bob.user), b.group(ann.user, bob.user)
			b.settle()
			var old backup
			for n := range 8 {
				if n == 3 {
					old = bob.backup()
					delete(old.applied, h) // it knows nothing of the other thread
					delete(old.got, h)
				}
				b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				b.settle()
			}
			bob.acknowledge(b.world, g, false)
			bob.acknowledge(b.world, h, false)
			b.settle()
			s.leave()
			bob.restore(old)
			defer b.online(bob, 0).leave()
			b.settle()
			if lacks := bob.lacks(b.world); (lacks == "") != says {
				t.Errorf("it says what it has: %v; it lacks %q", says, lacks)
			}
		})
	}
}

// A reconnect costs what changed. In: 100 groups of 10, all messages delivered and read, and nothing since. Expected:
// no receipt, and no frame but SyncComplete; who does not say what he has gets the watermarks of all. Then a member
// reads her message in one group, and another's behind it in another: the receipts of the first alone.
func TestAReconnectCostsWhatChanged(t *testing.T) {
	const groups, members = 100, 10
	inBench(t, 1, func(t *testing.T, b *bench) {
		var people []*phone
		for n := range byte(members) {
			people = append(people, b.person(n))
		}
		ann, bob := people[0], people[1]
		var others []id.UserID
		for _, p := range people[1:] {
			others = append(others, p.user)
		}
		b.settle()
		s := b.online(ann, 0)
		var all []id.ThreadID
		for range groups {
			g := b.group(ann.user, others...)
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
			at := b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
			for n, p := range people { // some to her message, which she is told at once, and some beyond
				upTo := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 2}
				b.world.Watermark(g, p.user, p.id, upTo.Merge(thread.Watermark{
					ReadPosition: at - 1, ReadOrdinal: int64(min(n, 1)),
				}))
			}
			all = append(all, g)
		}
		again := func(meanwhile func()) (receipts, frames int) {
			for range 10 { // the views catch up
				b.settle()
			}
			s.leave()
			meanwhile()
			b.settle()
			ann.told, ann.frames = 0, 0
			s = b.online(ann, 0)
			b.settle()
			return ann.told, ann.frames
		}
		nothing := func() {}
		for _, g := range all {
			ann.acknowledge(b.world, g, false)
		}
		receipts, _ := again(nothing)
		mustBe(t, "receipts to who does not say what he has", receipts, groups*members)
		ann.own = true
		receipts, frames := again(nothing)
		mustBe(t, "receipts with nothing changed", receipts, 0)
		mustBe(t, "frames with nothing changed", frames, 1)
		receipts, frames = again(func() {
			b.world.Watermark(all[7], ann.user, id.NewDevice(), thread.Watermark{ReadPosition: 1 << 20, ReadOrdinal: 1})
			b.world.Watermark(all[8], bob.user, bob.id, thread.Watermark{ReadPosition: 1 << 20, ReadOrdinal: 2})
		})
		mustBe(t, "receipts of the thread that she read on another phone", receipts, members)
		mustBe(t, "frames", frames, 1)
		s.leave()
	})
}
