package replica_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// TestJudge: whoever has a thread changed is told the verdict on his own event, also when this edge comes to know of it
// by a snapshot, and nobody waits for it for ever.
func TestJudge(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		bob, eve := replicatest.User(2), replicatest.User(3)
		g := b.group(ann.user, bob)
		type answer struct {
			v   thread.Verdict
			err error
		}
		judge := func(put func() topic.Position) answer {
			t.Helper()
			done := make(chan answer, 1)
			go func() {
				v, err := b.replica.Judge(t.Context(), g, func(context.Context) (topic.Position, error) {
					return put(), nil
				})
				done <- answer{v, err}
			}()
			synctest.Wait()
			return <-done
		}
		remove := func(by, u id.UserID) topic.Position { return b.world.RemoveMember(g, by, u) }
		add := func(by, u id.UserID) topic.Position {
			at := b.world.Next(g)
			b.world.AddMember(g, by, u)
			return at
		}
		for _, x := range []struct {
			name    string
			put     func() topic.Position
			outcome thread.Outcome
			reason  thread.Reason
			err     error
		}{
			{"accepted", func() topic.Position { return add(ann.user, eve) }, thread.Accepted, "", nil},
			{"rejected, with others before and behind", func() topic.Position {
				b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				at := remove(bob, eve)
				b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
				return at
			}, thread.Rejected, thread.NotAdmin, nil},
			{"known here before it is known where it lies", func() topic.Position {
				at := remove(bob, eve)
				b.settle()
				return at
			}, thread.Rejected, thread.NotAdmin, nil},
			{"accepted, in a gap", func() topic.Position {
				at := remove(ann.user, eve)
				b.gap(g)
				return at
			}, thread.Accepted, "", nil},
			{"rejected, in a gap", func() topic.Position {
				at := remove(ann.user, eve)
				b.gap(g)
				return at
			}, thread.Accepted, "", replica.ErrUntold},
		} {
			got := judge(x.put)
			if got.v.Outcome != x.outcome || got.v.Reason != x.reason || !errors.Is(got.err, x.err) {
				t.Errorf("%s: got %+v, want %v %q and %v", x.name, got, x.outcome, x.reason, x.err)
			}
		}
		got := judge(func() topic.Position {
			b.world.SendNewer(g, ann.user, d)
			return remove(ann.user, bob)
		})
		if !errors.Is(got.err, replica.ErrParked) {
			t.Errorf("in quarantine: got %v, want %v", got.err, replica.ErrParked)
		}
	})
}

// gap has a thread's slot given to an owner that has nothing of what came before.
func (b *bench) gap(g id.ThreadID) {
	b.cluster.BreakLinks("a")
	b.cluster.Give(b.world.Slot(topic.Subject(g)), "a", 0)
}
