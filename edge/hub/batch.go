package hub

import (
	"context"
	"time"
)

// batcher answers calls for keys with as few loads as it can: calls that arrive while the loaders are busy share the next load.
type batcher[K, V any] struct {
	// Fixed.
	max     int // keys of one load, unless a single call has more
	timeout time.Duration
	load    func(context.Context, []K) ([]V, error)
	calls   chan *call[K, V] // bounded: callers wait for room
}

type call[K, V any] struct {
	keys []K
	vals []V
	err  error
	done chan struct{}
}

func newBatcher[K, V any](max int, timeout time.Duration, load func(context.Context, []K) ([]V, error)) *batcher[K, V] {
	return &batcher[K, V]{max: max, timeout: timeout, load: load, calls: make(chan *call[K, V], 1024)}
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
		select {
		case c := <-b.calls:
			b.answer(ctx, b.collect(c))
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *batcher[K, V]) collect(first *call[K, V]) []*call[K, V] {
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
