package replica_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// busy is a group of ann's that this edge has loaded with two of its six messages.
func (b *bench) busy(ann *ear, d id.DeviceID) (g id.ThreadID, sent []id.MessageID) {
	b.world.Mu.Lock()
	b.world.Views.Recent = 2
	b.world.Mu.Unlock()
	g = id.NewGroup()
	b.world.Create(g, ann.user, replicatest.User(2))
	for range 6 {
		m := id.NewMessage()
		b.world.Send(g, ann.user, d, m, id.UserID{})
		sent = append(sent, m)
	}
	b.settle()
	b.world.Join(g, -1, ann.user)
	b.settle()
	return g, sent
}

func (b *bench) views(change func(v *replicatest.Store)) {
	b.world.Mu.Lock()
	defer b.world.Mu.Unlock()
	change(&b.world.Views)
}

// TestRepeatsBeyondWhatIsLoaded: a message that comes again is told to nobody, however many have come since; and the
// first time that it comes here it is told once, in the order of the thread.
func TestRepeatsBeyondWhatIsLoaded(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g, sent := b.busy(ann, d)
		var want []topic.Position
		send := func(m id.MessageID) topic.Position { return b.world.Send(g, ann.user, d, m, id.UserID{}) }
		for _, m := range sent {
			send(m)
			fresh := id.NewMessage()
			want = append(want, send(fresh))
			send(fresh)
		}
		b.settle()
		same(t, "told", ann.heard, want)
		v, _ := b.replica.View(g)
		mustBe(t, "messages", v.LastOrdinal, int64(len(sent)+len(want)))
		b.views(func(v *replicatest.Store) { mustBe(t, "looked up", v.Sought >= len(sent)-2+len(want), true) })
	})
}

// While the views are down a message of such a thread waits, and what comes behind it. Who waits for either is told
// that it cannot be had now.
func TestAThreadInDoubtWaitsForTheViews(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g, sent := b.busy(ann, d)
		calm := b.group(ann.user)
		b.settle()
		heard := len(ann.heard)
		b.views(func(v *replicatest.Store) { v.Down = true })
		b.world.Send(g, ann.user, d, sent[0], id.UserID{})
		fresh := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.world.Watermark(g, replicatest.User(2), id.NewDevice(), thread.Watermark{
			DeliveredPosition: fresh, DeliveredOrdinal: int64(len(sent)) + 1,
		})
		other := b.world.Send(calm, ann.user, d, id.NewMessage(), id.UserID{})
		var bare *wire.Error
		var removed topic.Position
		_, err := b.replica.Judge(t.Context(), g, func(context.Context) (topic.Position, error) {
			removed = b.world.RemoveMember(g, ann.user, replicatest.User(2))
			return removed, nil
		})
		if !errors.As(err, &bare) || bare.Code != wirev1.Code_CODE_UNAVAILABLE {
			t.Errorf("a verdict meanwhile: got %v, want CODE_UNAVAILABLE", err)
		}
		same(t, "told of another thread alone", ann.heard[heard:], []topic.Position{other})
		mustBe(t, "told of a receipt before its message", len(ann.marks), 0)
		v, known := b.replica.View(g)
		mustBe(t, "known", known, true)
		mustBe(t, "read past what waits", v.Next > fresh, false)
		b.views(func(v *replicatest.Store) { v.Down = false })
		b.settle()
		b.settle()
		same(t, "told thereafter", ann.heard[heard:], []topic.Position{other, fresh, removed})
		mustBe(t, "receipts", len(ann.marks), 1)
	})
}

// Views that are behind where a thread was loaded from do not say that a message has never come.
func TestLookUpsOfViewsThatWentBack(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g, sent := b.busy(ann, d)
		heard := len(ann.heard)
		b.views(func(v *replicatest.Store) {
			v.Stopped = true
			v.Crash(func() int { return 1 << 20 })
		})
		b.world.Send(g, ann.user, d, sent[0], id.UserID{})
		b.settle()
		mustBe(t, "told before the views are there again", len(ann.heard), heard)
		b.views(func(v *replicatest.Store) { v.Stopped = false })
		b.settle()
		b.settle()
		mustBe(t, "told of a message that came again", len(ann.heard), heard)
		last := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		same(t, "told of the next", ann.heard[heard:], []topic.Position{last})
	})
}

// The views went back in one slot, and stand still there: what is in doubt in another is looked up at once, however
// long the first has waited.
func TestLookUpsOfOneThreadHoldUpNoOther(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		slow, sent := b.busy(ann, d)
		fine, _ := b.busy(ann, d)
		for b.world.Slot(topic.Subject(fine)) == b.world.Slot(topic.Subject(slow)) {
			fine, _ = b.busy(ann, d)
		}
		b.views(func(v *replicatest.Store) {
			v.Stalled = map[topic.Slot]bool{b.world.Slot(topic.Subject(slow)): true}
			v.Crash(func() int { return 1 << 20 })
		})
		b.world.Send(slow, ann.user, d, sent[0], id.UserID{})
		last := b.world.Send(slow, ann.user, d, id.NewMessage(), id.UserID{})
		time.Sleep(20 * time.Second) // the pause is as long as it gets
		heard := len(ann.heard)
		var want []topic.Position
		for range 5 {
			want = append(want, b.world.Send(fine, ann.user, d, id.NewMessage(), id.UserID{}))
			time.Sleep(300 * time.Millisecond)
			synctest.Wait()
			same(t, "told of the other thread", ann.heard[heard:], want)
		}
		b.views(func(v *replicatest.Store) { v.Stalled = nil })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		same(t, "told in the end", ann.heard[heard:], append(want, last))
	})
}

// What waits has a bound: beyond it, or when the stream has a gap behind it, the thread is loaded anew once the views
// are there, and nothing is lost.
func TestAThreadInDoubtIsLoadedAnew(t *testing.T) {
	for name, send := range map[string]func(b *bench, slot topic.Slot, send func()){
		"too many wait": func(_ *bench, _ topic.Slot, send func()) {
			for range 9 {
				send()
			}
		},
		"a gap": func(b *bench, slot topic.Slot, send func()) {
			send()
			send()
			b.settle()
			b.cluster.Give(slot, "", 0)
			synctest.Wait()
			send()
			b.settle()
			b.cluster.Give(slot, "a", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, replica.Config{Backlog: 4}, func(t *testing.T, b *bench) {
				ann, d := b.follower(1)
				g, sent := b.busy(ann, d)
				heard, missed := len(ann.heard), len(ann.missed)
				b.views(func(v *replicatest.Store) { v.Down = true })
				var last topic.Position
				send(b, b.world.Slot(topic.Subject(g)), func() {
					last = b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				})
				b.settle()
				mustBe(t, "told", len(ann.heard), heard)
				b.views(func(v *replicatest.Store) { v.Down = false })
				time.Sleep(5 * time.Second)
				synctest.Wait()
				mustBe(t, "told to catch up", len(ann.missed), missed+1)
				mustBe(t, "up to the last", ann.missed[missed], last)
				b.world.Send(g, ann.user, d, sent[1], id.UserID{})
				last = b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				b.settle()
				same(t, "told of the next", ann.heard[heard:], []topic.Position{last})
			})
		})
	}
}
