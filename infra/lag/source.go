package lag

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/views"
	"heliograph/schemas/topic"
)

// The views, as their names are in metrics.
const (
	Threads  = "threads"
	History  = "history"
	Delivery = "delivery"
)

// Source is a view: who folds it, of what, and who knows how far it has got.
type Source struct {
	View   string // Threads, History or Delivery
	Topics []topic.Topic
	Group  string // the consumer group whose members own its slots
	Ask    func(ctx context.Context) (Answer, error)
}

// Answer is how far a view has got, in every topic and slot of which it has taken in anything.
type Answer struct {
	Generation string
	Next       map[topic.Topic]map[topic.Slot]topic.Position
	Times      map[topic.Topic]map[topic.Slot]time.Time // the log times of what was taken in last; some may lack
}

func newAnswer(generation string) Answer {
	return Answer{
		Generation: generation, Next: map[topic.Topic]map[topic.Slot]topic.Position{},
		Times: map[topic.Topic]map[topic.Slot]time.Time{},
	}
}

func (a *Answer) put(t topic.Topic, s topic.Slot, next topic.Position, at time.Time) {
	if a.Next[t] == nil {
		a.Next[t], a.Times[t] = map[topic.Slot]topic.Position{}, map[topic.Slot]time.Time{}
	}
	a.Next[t][s], a.Times[t][s] = next, at
}

// OfThreads is the thread views, whose generation is named after their schema.
func OfThreads(v *views.Views, generation, group string, topics []topic.Topic) Source {
	return Source{View: Threads, Topics: topics, Group: group, Ask: func(ctx context.Context) (Answer, error) {
		rows, err := v.Freshness(ctx)
		if err != nil {
			return Answer{}, fmt.Errorf("lag: ask Postgres: %w", err)
		}
		a := newAnswer(generation)
		for _, r := range rows {
			a.put(r.Topic, r.Slot, r.Next, r.Time)
		}
		return a, nil
	}}
}

// OfHistory is the history, in its latest generation.
func OfHistory(h *history.History, group string, topics []topic.Topic) Source {
	return Source{View: History, Topics: topics, Group: group, Ask: func(ctx context.Context) (Answer, error) {
		generation, err := h.Generation(ctx)
		if err != nil {
			return Answer{}, fmt.Errorf("lag: ask ClickHouse: %w", err)
		}
		rows, err := h.Freshness(ctx)
		if err != nil {
			return Answer{}, fmt.Errorf("lag: ask ClickHouse: %w", err)
		}
		a := newAnswer(strconv.FormatUint(uint64(generation), 10))
		for _, r := range rows {
			a.put(r.Topic, r.Slot, r.Next, r.Time)
		}
		return a, nil
	}}
}

// OfDelivery is what the delivery instances have pushed. They store no positions; what they commit to their group for
// Kafka's tools, every few seconds, is all that others can know of them.
func OfDelivery(cl *kgo.Client, cfg kafka.Config, bases *kafka.Bases, group string, topics []topic.Topic) Source {
	return Source{View: Delivery, Topics: topics, Group: group, Ask: func(ctx context.Context) (Answer, error) {
		committed, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
		if err == nil {
			err = committed.Error()
		}
		if errors.Is(err, kerr.GroupIDNotFound) {
			return newAnswer(""), nil // nobody has ever joined
		}
		if err != nil {
			return Answer{}, fmt.Errorf("lag: ask group %s: %w", group, err)
		}
		a := newAnswer("")
		committed.Each(func(o kadm.OffsetResponse) {
			if t, ok := cfg.Topic(o.Topic); ok && o.At >= 0 {
				s := topic.Slot(o.Partition)
				a.put(t, s, bases.At(t, s, o.At), time.Time{})
			}
		})
		return a, nil
	}}
}
