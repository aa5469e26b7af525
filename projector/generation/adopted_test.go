package generation_test

import (
	"testing"

	"heliograph/infra/kafka"
	"heliograph/infra/kafka/kafkatest"
	"heliograph/infra/views"
	"heliograph/schemas/topic"
)

// A view that has read what was given up when the log was adopted takes nothing in any more. A replay leads it out,
// with its projector going on by itself.
func TestReplayAfterTheLogWasAdopted(t *testing.T) {
	broker := kafkatest.Start(t)
	w := newLogAt(t, 10, []string{broker.Addr()}, "").withViews()
	w.must(w.produce(t.Context(), 300))
	stop := w.live()
	w.caughtUp()
	stop()
	kept := broker.Keep()
	w.dial()
	w.must(w.produce(t.Context(), 200))
	stop = w.live()
	w.caughtUp()
	stop()
	found, err := views.New(w.pool).Freshness(t.Context())
	w.must(err)
	var at []kafka.Standing
	for _, f := range found {
		at = append(at, kafka.Standing{Topic: f.Topic, Slot: f.Slot, Next: f.Next, Mark: f.Mark, Time: f.Time})
	}
	broker.SetBack(kept)
	w.dial()
	w.must(w.produce(t.Context(), 100))
	bases, err := kafka.LoadBases(t.Context(), w.cl, w.kafka, topic.Folded, partitions)
	w.must(err)
	plan, _, err := kafka.PlanAdoption(t.Context(), w.kafka, bases, at)
	w.must(err)
	if len(plan) == 0 {
		t.Fatal("nothing is to be adopted")
	}
	w.must(kafka.Adopt(t.Context(), w.kafka, plan))
	w.live() // stalls, and goes on after the switch
	w.must(w.produce(t.Context(), 100))
	sum, err := w.replay(t.Context(), nil)
	w.must(err)
	if !sum.Switched || !sum.Verified {
		t.Errorf("%+v", sum)
	}
	w.must(w.produce(t.Context(), 100))
	w.equal()
}
