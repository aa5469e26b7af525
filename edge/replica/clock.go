package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/topic"
)

// viewClock knows how far the views in Postgres have got. It asks only while somebody waits for them to get further. It
// goes back when the views did: they commit without waiting for their disk, so a Postgres that crashed comes back with
// older rows and older positions, which the projector then makes good.
type viewClock struct {
	// Fixed.
	store    Store
	timeout  time.Duration
	min, max time.Duration // between two questions
	failed   func(op string, err error)
	fellBack func()        // told when the views went back
	kick     chan struct{} // capacity 1: somebody waits

	mu      sync.Mutex                    // guards what follows; no other lock is taken under it
	at      []topic.Cursor                // replaced, never changed
	raised  [][len(topic.Cursor{})]uint64 // by slot and place: asked when at was last raised
	asked   uint64                        // how often it was asked and has answered
	waiting int
	moved   chan struct{} // closed and replaced when at has moved
	said    chan struct{} // closed and replaced when the views have answered
}

func newViewClock(s Store, partitions int, cfg Config, failed func(string, error), fellBack func()) *viewClock {
	return &viewClock{
		store: s, timeout: cfg.Wait, min: retryMin, max: retryMax, failed: failed, fellBack: fellBack,
		kick: make(chan struct{}, 1), at: make([]topic.Cursor, partitions),
		raised: make([][len(topic.Cursor{})]uint64, partitions), moved: make(chan struct{}), said: make(chan struct{}),
	}
}

// seen is how far a query found a slot.
type seen struct {
	slot  topic.Slot
	topic topic.Topic
	next  topic.Position
}

// advance takes in how far a query found all slots. asked is what answered said before the query was begun.
func (v *viewClock) advance(asked uint64, at []topic.Cursor) {
	all := make([]seen, 0, len(topic.Folded)*len(at))
	for n, m := range at {
		for i, next := range m {
			all = append(all, seen{topic.Slot(n), topic.Folded[i], next})
		}
	}
	v.take(asked, all...)
}

// take is advance for some slots. A query that was begun before a higher answer came may only be the older of the two;
// one that was begun after it and finds less has found views that went back.
func (v *viewClock) take(asked uint64, found ...seen) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	close(v.said)
	v.said = make(chan struct{})
	now, further, back := slices.Clone(v.at), false, false
	for _, s := range found {
		i, ok := s.topic.Place()
		if !ok || s.slot < 0 || int(s.slot) >= len(now) {
			continue
		}
		switch was := now[s.slot][i]; {
		case s.next > was:
			now[s.slot][i], v.raised[s.slot][i], further = s.next, v.asked, true
		case s.next < was && asked >= v.raised[s.slot][i]:
			now[s.slot][i], back = s.next, true
		}
	}
	if further || back {
		v.at = now
	}
	if back {
		v.fellBack()
	}
	if further {
		close(v.moved)
		v.moved = make(chan struct{})
	}
}

// slot returns how far a slot is known to be.
func (v *viewClock) slot(n topic.Slot) topic.Cursor {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at[n]
}

// answered returns how often the views have answered.
func (v *viewClock) answered() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked
}

// look returns how far the views are known to be, which the caller must not change, and a channel that is closed when
// they are known to be further, and one that is closed when they have answered.
func (v *viewClock) look() (at []topic.Cursor, moved, said <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at, v.moved, v.said
}

// want makes the clock run until the returned function is called.
func (v *viewClock) want() (done func()) {
	v.mu.Lock()
	v.waiting++
	v.mu.Unlock()
	poke(v.kick)
	return func() {
		v.mu.Lock()
		v.waiting--
		v.mu.Unlock()
	}
}

// wait returns once reached says so.
func (v *viewClock) wait(ctx context.Context, reached func(at []topic.Cursor) bool) error {
	at, moved, _ := v.look()
	if reached(at) {
		return nil
	}
	defer v.want()()
	for {
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if at, moved, _ = v.look(); reached(at) {
			return nil
		}
	}
}

// run asks while somebody waits, ever more seldom while nothing moves.
func (v *viewClock) run(ctx context.Context) error {
	for {
		select {
		case <-v.kick:
		case <-ctx.Done():
			return nil
		}
		for delay := v.min; ; {
			v.mu.Lock()
			waiting, before := v.waiting, v.moved
			v.mu.Unlock()
			if waiting == 0 {
				break
			}
			qctx, cancel := context.WithTimeout(ctx, v.timeout)
			asked := v.answered()
			at, err := v.store.Positions(qctx)
			cancel()
			if err == nil {
				v.advance(asked, at)
			} else if ctx.Err() == nil {
				v.failed("positions", err)
			}
			limit := min(v.max, 100*time.Millisecond)
			if err != nil {
				limit = v.max
			}
			select {
			case <-before:
				delay = v.min
			default:
				delay = min(2*delay, max(limit, v.min))
			}
			if !sleep(ctx, delay) {
				return nil
			}
		}
	}
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
