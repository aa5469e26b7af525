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

// Random worlds have every type of event that this version folds, and of each some that count: a property that is
// tested with them says something of all of them.
func TestWorldsHaveEveryType(t *testing.T) {
	counts := map[event.Type]int{}
	const worlds = 100
	for seed := range uint64(worlds) {
		for n := range counted(eventtest.NewWorld(5, rand.New(rand.NewPCG(seed, 2)).IntN).Steps(300)) {
			counts[n]++
		}
	}
	for n := event.Type(0); n < 1000; n++ {
		if d, _ := event.Declared(n); !event.Known(n) || !slices.Contains(topic.Folded, d.Topic) {
			continue
		}
		if counts[n] < worlds/10 {
			t.Errorf("%s counts in %d of %d worlds", n, counts[n], worlds)
		}
	}
}

// counted returns the types of which a fold accepts some.
func counted(steps []eventtest.Step) map[event.Type]bool {
	threads, users := map[topic.Subject]*thread.State{}, map[topic.Subject]*user.State{}
	counts := map[event.Type]bool{}
	for _, s := range steps {
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
	return counts
}
