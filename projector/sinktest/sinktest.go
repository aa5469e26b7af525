// Package sinktest drives a kafka.Sink in tests as the consumer loop does, without a log: batches cut where the test
// says, slot by slot.
package sinktest

import (
	"context"
	"fmt"
	"hash/crc32"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/kafka"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/topic"
)

// Log is a log in memory.
type Log struct {
	slots   map[topic.Slot][]kafka.Record
	decided map[topic.Slot][]kafka.Release
}

// NewLog makes a log of steps. Records of the topics that are not listed are left out; none listed means all.
func NewLog(steps []eventtest.Step, topics ...topic.Topic) *Log {
	l := &Log{slots: map[topic.Slot][]kafka.Record{}, decided: map[topic.Slot][]kafka.Release{}}
	for _, s := range steps {
		keep := len(topics) == 0
		for _, t := range topics {
			keep = keep || t == s.Topic
		}
		if !keep {
			continue
		}
		l.slots[s.Slot] = append(l.slots[s.Slot], kafka.Record{
			Topic: s.Topic, Slot: s.Slot, Position: s.Position, LogTime: time.UnixMilli(s.TimeMS), Key: s.Key,
			Value: s.Value,
		})
	}
	return l
}

// Decide adds to what operators have decided. A sink learns of it when it opens the slot the next time.
func (l *Log) Decide(r kafka.Release) {
	r.At = int64(len(l.decided[r.Slot]))
	l.decided[r.Slot] = append(l.decided[r.Slot], r)
}

// Decided is everything that was, in order.
func (l *Log) Decided() (all []kafka.Release) {
	for _, s := range l.Slots() {
		all = append(all, l.decided[s]...)
	}
	return all
}

// Slots are the slots that have records.
func (l *Log) Slots() []topic.Slot {
	var out []topic.Slot
	for s := range topic.Slot(topic.MaxPartitions) {
		if len(l.slots[s]) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// Batch returns the records of a slot from the positions on, up to the positions of to where it has some, at most limit
// of them.
func (l *Log) Batch(s topic.Slot, from, to kafka.Positions, limit int) kafka.Batch {
	b := kafka.Batch{Slot: s, From: from.Clone(), To: from.Clone()}
	for _, r := range l.slots[s] {
		if end, bounded := to[r.Topic]; r.Position < from[r.Topic] || bounded && r.Position >= end ||
			to != nil && !bounded {
			continue
		}
		if len(b.Records) >= limit {
			break
		}
		b.Records = append(b.Records, r)
		b.To[r.Topic] = r.Position + 1
	}
	for t, p := range to {
		b.To[t] = p
	}
	return b
}

// Records implements projector.Log.
func (l *Log) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		var end topic.Position
		for _, r := range l.slots[s] {
			if r.Topic != t {
				continue
			}
			end = r.Position + 1
			if r.Position < from || r.Position >= to {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(kafka.Record{}, err)
				return
			}
			again := []kafka.Record{r}
			kafka.NewReleases(l.decided[s]...).Blank(again)
			if !yield(again[0], nil) {
				return
			}
		}
		if end < to {
			yield(kafka.Record{}, fmt.Errorf("%w: the log ends at %d", kafka.ErrPositions, end))
		}
	}
}

// Brittle is for projector.Sink.OnFold: a fold that panics on some messages.
func Brittle(e *eventv1.Event) {
	if m := e.GetMessageSent().GetMessageId(); len(m) > 0 && crc32.ChecksumIEEE(m)%9 == 0 {
		panic("a broken fold")
	}
}

// Counter reads a counter without labels; -1 when there is none.
func Counter(reg prometheus.Gatherer, name string) float64 {
	families, err := reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// Options of Feed.
type Options struct {
	// Cut returns the size of the next batch, at least 1.
	Cut func() int
	// Reopen tells, before each batch, whether the slot is given up and taken over again.
	Reopen func() bool
	// Fault is called with each error of Apply; the batch is tried again, after the slot was opened anew when it
	// returns true. nil gives up at the first.
	Fault func(error) (reopen bool)
}

// Feed brings a sink the whole log.
func Feed(ctx context.Context, l *Log, sink kafka.Sink, o Options) error {
	for _, s := range l.Slots() {
		if err := feedSlot(ctx, l, s, sink, o); err != nil {
			return fmt.Errorf("slot %d: %w", s, err)
		}
	}
	return nil
}

func feedSlot(ctx context.Context, l *Log, s topic.Slot, sink kafka.Sink, o Options) error {
	for {
		done, err := session(ctx, l, s, sink, o)
		if err != nil || done {
			return err
		}
	}
}

// session is one life of a slot's state; done says that the log is at its end.
func session(ctx context.Context, l *Log, s topic.Slot, sink kafka.Sink, o Options) (done bool, err error) {
	decided := kafka.NewReleases(l.decided[s]...)
	if r, ok := sink.(kafka.Releasable); ok {
		r.Released(s, decided)
	}
	next, err := sink.Open(ctx, s)
	if err != nil {
		return false, err
	}
	defer sink.Close(s, false)
	if p, ok := sink.(kafka.Pender); ok {
		pending, err := p.Pending(ctx, s)
		if err != nil {
			return false, err
		}
		if len(pending) > 0 {
			b := l.Batch(s, next, pending, 1<<30)
			decided.Blank(b.Records)
			if reopen, err := apply(ctx, sink, b, o); err != nil || reopen {
				return false, err
			}
			next = b.To
		}
	}
	for {
		if o.Reopen != nil && o.Reopen() {
			return false, nil
		}
		cut := 100
		if o.Cut != nil {
			cut = o.Cut()
		}
		b := l.Batch(s, next, nil, cut)
		if len(b.Records) == 0 {
			return true, nil
		}
		decided.Blank(b.Records)
		if reopen, err := apply(ctx, sink, b, o); err != nil || reopen {
			return false, err
		}
		next = b.To
	}
}

func apply(ctx context.Context, sink kafka.Sink, b kafka.Batch, o Options) (reopen bool, err error) {
	for {
		err := sink.Apply(ctx, b)
		if err == nil {
			return false, nil
		}
		if o.Fault == nil {
			return false, err
		}
		if o.Fault(err) {
			return true, nil
		}
	}
}
