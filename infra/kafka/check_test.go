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
	cc.CheckEvery = 10 * time.Millisecond
	_, stop := start(t, cc, s)
	eventually(t, "all applied", func() bool { return s.count() >= n })
	for slot := range topic.Slot(testSlots) {
		s.forget(slot, 7)
	}
	eventually(t, "all applied again", func() bool { return s.count() >= n })
	stop()
	s.check(t, 30)
}
