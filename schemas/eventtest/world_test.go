package eventtest_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"heliograph/schemas/event"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// A random world has every type of event that this version folds, and of each some that count: a property that is
// tested with one says something of all of them.
func TestWorldHasEveryType(t *testing.T) {
	threads, users := map[topic.Subject]*thread.State{}, map[topic.Subject]*user.State{}
	counts := map[event.Type]bool{}
	for _, s := range eventtest.NewWorld(6, rand.New(rand.NewPCG(1, 2)).IntN).Steps(5000) {
		switch s.Topic {
		case topic.Threads:
			if threads[s.Subject] == nil {
				threads[s.Subject] = thread.New(id.ThreadID(s.Subject))
			}
			if threads[s.Subject].Apply(s.Event, s.Position, s.TimeMS).Outcome == thread.Accepted {
				counts[s.Event.Type] = true
			}
		case topic.Users:
			if users[s.Subject] == nil {
				users[s.Subject] = user.New(id.UserID(s.Subject))
			}
			if users[s.Subject].Apply(s.Event, s.Position, s.TimeMS).Outcome == user.Accepted {
				counts[s.Event.Type] = true
			}
		default: // a receipt of anybody counts
			counts[s.Event.Type] = true
		}
	}
	for n := event.Type(0); n < 1000; n++ {
		if d, _ := event.Declared(n); event.Known(n) && slices.Contains(topic.Folded, d.Topic) && !counts[n] {
			t.Errorf("no %s counts", n)
		}
	}
}
