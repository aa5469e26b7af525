package replica_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// An answer to a request from before its slot was closed, and opened anew by the same instance, comes when the slot is
// listed again. In: closed, opened, then "not owner" for a Subscribe of before. Expected: the slot keeps its owner.
func TestAnAnswerFromBeforeTheSlotWasClosed(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g := b.group(ann.user)
		b.settle()
		b.cluster.Delay(10 * time.Millisecond) // of each request
		other := b.inSlot(b.world.Slot(topic.Subject(g)), ann.user)
		time.Sleep(5 * time.Millisecond) // its Subscribe is under way
		b.cluster.Give(b.world.Slot(topic.Subject(g)), "a", 10)
		b.settle()
		for _, th := range []id.ThreadID{g, other} {
			at := b.world.Send(th, ann.user, d, id.NewMessage(), id.UserID{})
			b.settle()
			mustBe(t, "the last that he was told of", ann.last(), at)
		}
		mustBe(t, "every slot has an owner", b.replica.Ready(t.Context()), nil)
	})
}

// What is not live after five seconds is said so, counted, and what it waits for is asked for again: here an instance
// that has lost a request, and one that owns slots and has never said so.
func TestLateSubjectsAreAskedForAgain(t *testing.T) {
	for _, c := range []struct {
		name, waits string
		before      func(b *bench, s topic.Slot)
		live        bool // the thread was live before
	}{
		{"a lost Subscribe of a new thread", "without_answer=1",
			func(b *bench, _ topic.Slot) { b.cluster.Lose(1) }, false},
		{"a lost Subscribe of a slot that changed hands", "without_answer=1",
			func(b *bench, s topic.Slot) { b.cluster.Lose(1); b.cluster.Give(s, "a", 10) }, true},
		{"an owner that has not said so", "without_owner=1",
			func(b *bench, s topic.Slot) {
				b.cluster.Give(s, "", 0)
				b.settle()
				b.cluster.GiveInSilence(s, "a", 100)
			}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
				ann, d := b.follower(1)
				user := b.world.Slot(topic.Subject(ann.user))
				g := b.inSlot((user+1)%replicatest.Slots, ann.user)
				if c.live {
					b.settle()
				}
				began := time.Now()
				c.before(b, b.world.Slot(topic.Subject(g)))
				b.settle()
				at := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				for ann.last() != at {
					if time.Since(began) > 8*time.Second {
						t.Fatalf("not told after %v of position %d\n%s", time.Since(began), at, b.replica.Describe())
					}
					time.Sleep(100 * time.Millisecond)
				}
				mustBe(t, "lost nothing that it needed", time.Since(began) > 4*time.Second, true)
				if log := b.log.String(); !strings.Contains(log, "late to be live") || !strings.Contains(log, c.waits) {
					t.Errorf("%s is not in the log:\n%s", c.waits, log)
				}
			})
		})
	}
}

// A subject for which the link has no room is refused by itself: who waits for it is told so at once, the others go on,
// and it is live once there is room.
func TestOneSubjectTooManyIsRefusedByItself(t *testing.T) {
	for name, live := range map[string]bool{"new ones": false, "ones that were live": true} {
		t.Run(name, func(t *testing.T) {
			inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
				ann, d := b.follower(1)
				g := b.group(ann.user)
				b.settle()
				if !live {
					b.cluster.Bound(2) // ann and g
				}
				bob := replicatest.User(2)
				other := b.group(bob)
				if live {
					mustBe(t, "made live", b.replica.EnsureThread(t.Context(), other), nil)
					b.settle()
					b.cluster.Bound(2)
					b.cluster.BreakLinks("a")
					time.Sleep(2 * time.Second) // the link is back
				}
				began := time.Now()
				mine, others := b.replica.EnsureThread(t.Context(), g), b.replica.EnsureThread(t.Context(), other)
				if !live {
					mustBe(t, "the one that was there", mine, nil)
					unavailable := &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}
					mustBe(t, "the one too many", errors.Is(others, unavailable), true)
				}
				mustBe(t, "answered at once", time.Since(began) < time.Second, true)
				if got := b.cluster.Subscriptions(); got != 2 {
					t.Errorf("%d subjects are subscribed, want 2\n%s", got, b.replica.Describe())
				}
				b.cluster.Bound(0)
				time.Sleep(time.Minute)
				at := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				b.settle()
				mustBe(t, "the last that she was told of", ann.last(), at)
				mustBe(t, "with room", b.replica.EnsureThread(t.Context(), other), nil)
			})
		})
	}
}
