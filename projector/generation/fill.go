package generation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// How a fill gathers: it has everything at hand, and large batches are cheap.
const (
	fillRecords = 10_000
	fillBytes   = 8 << 20
)

// again brings records of the log once more, for what leaves quarantine: by the consumer of the fill, once there is
// one.
type again struct {
	consumer atomic.Pointer[kafka.Consumer]
}

// Records implements projector.Log.
func (a *again) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	c := a.consumer.Load()
	if c == nil {
		return func(yield func(kafka.Record, error) bool) { yield(kafka.Record{}, errors.New("nothing is read yet")) }
	}
	return c.Records(ctx, t, s, from, to)
}

// fill has a sink take in the log: all partitions, without a group, until it is stopped.
type fill struct {
	consumer *kafka.Consumer
	sink     *pacedSink
}

func newFill(
	cfg kafka.ConsumerConfig, sink kafka.Sink, log *again, perSecond float64, until map[topic.Slot]kafka.Positions,
) (*fill, error) {
	p := &pacedSink{Sink: sink, until: until, next: map[topic.Slot]kafka.Positions{}}
	if perSecond > 0 {
		p.limit = rate.NewLimiter(rate.Limit(perSecond), max(1, min(cfg.MaxRecords, int(perSecond))))
	}
	c, err := kafka.NewConsumer(cfg, p)
	if err != nil {
		return nil, err
	}
	log.consumer.Store(c)
	return &fill{c, p}, nil
}

// run fills until ctx ends, or something does not mend itself.
func (f *fill) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for slot, err := range f.consumer.Stalled() {
				if kafka.IsPermanent(err) || errors.Is(err, kafka.ErrPositions) || errors.Is(err, kafka.ErrFenced) {
					stop(fmt.Errorf("partition %d: %w", slot, err))
				}
			}
		}
	}()
	err := f.consumer.Run(ctx)
	cause := context.Cause(ctx)
	stop(nil)
	<-watched
	if err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// pacedSink is a kafka.Sink that takes in so many records a second, and none beyond a place.
type pacedSink struct {
	kafka.Sink
	limit *rate.Limiter                  // nil: no limit
	until map[topic.Slot]kafka.Positions // nil: no end

	taken atomic.Int64 // records

	mu   sync.Mutex // guards next
	next map[topic.Slot]kafka.Positions
}

// positions are the next positions that the sink has stored, of the slots that were opened.
func (p *pacedSink) positions() map[topic.Slot]kafka.Positions {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[topic.Slot]kafka.Positions, len(p.next))
	for s, next := range p.next {
		out[s] = next.Clone()
	}
	return out
}

func (p *pacedSink) keep(s topic.Slot, next kafka.Positions) {
	p.mu.Lock()
	p.next[s] = next.Clone()
	p.mu.Unlock()
}

// Open implements kafka.Sink.
func (p *pacedSink) Open(ctx context.Context, s topic.Slot) (kafka.Positions, error) {
	next, err := p.Sink.Open(ctx, s)
	if err == nil {
		p.keep(s, next)
	}
	return next, err
}

// Released implements kafka.Releasable.
func (p *pacedSink) Released(s topic.Slot, r kafka.Releases) {
	if inner, ok := p.Sink.(kafka.Releasable); ok {
		inner.Released(s, r)
	}
}

// Marks implements kafka.Marker.
func (p *pacedSink) Marks(ctx context.Context, s topic.Slot) (kafka.Marks, error) {
	if inner, ok := p.Sink.(kafka.Marker); ok {
		return inner.Marks(ctx, s)
	}
	return nil, nil
}

// Pending implements kafka.Pender.
func (p *pacedSink) Pending(ctx context.Context, s topic.Slot) (kafka.Positions, error) {
	if inner, ok := p.Sink.(kafka.Pender); ok {
		return inner.Pending(ctx, s)
	}
	return nil, nil
}

// errUnchecked is what Stored says when nothing can be said.
var errUnchecked = errors.New("not known")

// Stored implements kafka.Checker, where the sink does: with an end what is taken is more than what is stored.
func (p *pacedSink) Stored(ctx context.Context, s topic.Slot) (kafka.Positions, error) {
	inner, ok := p.Sink.(kafka.Checker)
	if !ok || p.until != nil {
		return nil, errUnchecked
	}
	return inner.Stored(ctx, s)
}

// Apply implements kafka.Sink. A slot of which all is taken in waits for its end here, so that the rest of the log is
// not read for nothing.
func (p *pacedSink) Apply(ctx context.Context, b kafka.Batch) error {
	if p.until != nil {
		b = p.cut(b)
		if !moves(b) {
			if p.whole(b.Slot) {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
	}
	if p.limit != nil {
		for left := len(b.Records); left > 0; left -= p.limit.Burst() {
			if err := p.limit.WaitN(ctx, min(left, p.limit.Burst())); err != nil {
				return err
			}
		}
	}
	if err := p.Sink.Apply(ctx, b); err != nil {
		return err
	}
	p.keep(b.Slot, b.To)
	p.taken.Add(int64(len(b.Records)))
	return nil
}

// cut leaves out what lies beyond the end.
func (p *pacedSink) cut(b kafka.Batch) kafka.Batch {
	end := p.until[b.Slot]
	out := kafka.Batch{Slot: b.Slot, From: kafka.Positions{}, To: kafka.Positions{}, Marks: kafka.Marks{}}
	for _, r := range b.Records {
		if r.Position < end[r.Topic] {
			out.Records = append(out.Records, r)
		}
	}
	p.mu.Lock()
	next := p.next[b.Slot]
	p.mu.Unlock()
	for t, to := range b.To {
		// what was stored before may be less than what was taken, never more
		if from, known := next[t]; known {
			out.From[t] = from
		}
		if to = max(next[t], min(to, end[t])); to > 0 {
			out.To[t] = to
		}
		if m, ok := b.Marks[t]; ok && out.To[t] == b.To[t] {
			out.Marks[t] = m // else it is of a record that is left out
		}
	}
	return out
}

func moves(b kafka.Batch) bool {
	for t, to := range b.To {
		if to > b.From[t] {
			return true
		}
	}
	return false
}

// whole tells whether a slot has taken in all up to the end.
func (p *pacedSink) whole(s topic.Slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, end := range p.until[s] {
		if p.next[s][t] < end {
			return false
		}
	}
	return true
}
