package kafka

import (
	"context"
	"testing"
	"time"

	"heliograph/schemas/topic"
)

// forgetful is a store that can lose its last commits, and says where it stands.
type forgetful struct{ *sink }

func (s *forgetful) Stored(_ context.Context, slot topic.Slot) (Positions, error) {
	return s.read(slot), nil
}

// forget takes the last n rows of every topic of a slot back, with their positions.
func (s *store) forget(slot topic.Slot, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, rows := range s.rows[slot] {
		s.rows[slot][tp] = rows[:len(rows)-n]
		s.next[slot][tp] -= topic.Position(n)
		s.n -= n
	}
}

// What a store forgets is brought again although no record comes any more.
func TestForgottenCommitsComeAgain(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 30)
	s := &forgetful{&sink{store: newStore()}}
	cc := consumerConfig(cfg)
	cc.checkEvery = 10 * time.Millisecond
	_, stop := start(t, cc, s)
	eventually(t, "all applied", func() bool { return s.count() >= n })
	for slot := range topic.Slot(testSlots) {
		s.forget(slot, 7)
	}
	eventually(t, "all applied again", func() bool { return s.count() >= n })
	stop()
	s.check(t, 30)
}

// Deployments on one cluster share no name; the default's are those that it has always had.
func TestNamesOfADeployment(t *testing.T) {
	seen := map[string]string{}
	for _, prefix := range []string{"helio.", "helio", "helio-", "a.", "a-", "delivery.", "."} {
		c := Config{TopicPrefix: prefix}
		for _, name := range []string{
			c.Group("delivery"), c.Group("projector-threads"),
			c.Instance("d1"), c.Instance("d2"), c.Name(topic.Threads),
		} {
			if other, taken := seen[name]; taken {
				t.Errorf("%q is a name of both %q and %q", name, other, prefix)
			}
			seen[name] = prefix
		}
	}
	for name, want := range map[string]string{
		Config{}.Group("delivery"): "helio-delivery",
		Config{}.Instance("d1"):    "d1",
	} {
		if name != want {
			t.Errorf("%q, want %q", name, want)
		}
	}
}
