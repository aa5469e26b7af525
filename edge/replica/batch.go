package replica

import (
	"context"
	"time"
)

// pace keeps one thing from being begun more often than each so long. The first after a pause waits for nothing. One
// goroutine uses it at a time.
type pace struct {
	every time.Duration
	began time.Time
}

// wait waits for the next turn, or for ctx: then it returns false.
func (p *pace) wait(ctx context.Context) bool {
	if d := p.every - time.Since(p.began); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
	p.began = time.Now()
	return true
}

// batcher answers calls for keys with as few loads as it can: calls that arrive while the loaders are busy, or sooner
// after the last load than its pace allows, share the next load.
type batcher[K, V any] struct {
	// Fixed.
	max     int // keys of one load, unless a single call has more
	timeout time.Duration
	load    func(context.Context, []K) ([]V, error)
	calls   chan *call[K, V] // bounded: callers wait for room
	turn    chan *pace       // capacity 1: whose loader gathers
}

type call[K, V any] struct {
	keys []K
	vals []V
	err  error
	done chan struct{}
}

func newBatcher[K, V any](
	max int, every, timeout time.Duration, load func(context.Context, []K) ([]V, error),
) *batcher[K, V] {
	b := &batcher[K, V]{
		max:     max,
		timeout: timeout,
		load:    load,
		calls:   make(chan *call[K, V], 1024),
		turn:    make(chan *pace, 1),
	}
	b.turn <- &pace{every: every}
	return b
}

// get waits for the values of keys, in their order.
func (b *batcher[K, V]) get(ctx context.Context, keys []K) ([]V, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	c := &call[K, V]{keys: keys, done: make(chan struct{})}
	select {
	case b.calls <- c:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-c.done:
		return c.vals, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run is one loader.
func (b *batcher[K, V]) run(ctx context.Context) error {
	for {
		var p *pace
		select {
		case p = <-b.turn:
		case <-ctx.Done():
			return nil
		}
		batch := b.gather(ctx, p)
		b.turn <- p
		if batch == nil {
			return nil
		}
		b.answer(ctx, batch)
	}
}

// gather waits for the next calls. It returns nil when ctx ends first.
func (b *batcher[K, V]) gather(ctx context.Context, p *pace) []*call[K, V] {
	var first *call[K, V]
	select {
	case first = <-b.calls:
	case <-ctx.Done():
		return nil
	}
	if !p.wait(ctx) {
		return nil // the caller's wait ends with its own context
	}
	batch, n := []*call[K, V]{first}, len(first.keys)
	for n < b.max {
		select {
		case c := <-b.calls:
			batch, n = append(batch, c), n+len(c.keys)
		default:
			return batch
		}
	}
	return batch
}

func (b *batcher[K, V]) answer(ctx context.Context, batch []*call[K, V]) {
	keys := batch[0].keys
	if len(batch) > 1 {
		keys = nil
		for _, c := range batch {
			keys = append(keys, c.keys...)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	vals, err := b.load(ctx, keys)
	cancel()
	for _, c := range batch {
		if c.err = err; err == nil {
			c.vals, vals = vals[:len(c.keys):len(c.keys)], vals[len(c.keys):]
		}
		close(c.done)
	}
}
