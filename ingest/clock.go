package ingest

import (
	"context"
	"sync/atomic"
	"time"
)

// What an edge stamps by a clock that is off by more than maxSkew misleads those who fold it, so it appends nothing.
// The producer is not told by what stamp the log has acknowledged an event: so the clock of Postgres, which all edges
// have in common, is asked every clockEvery.
const (
	maxSkew    = time.Minute
	clockEvery = 10 * time.Second
)

// clock is how far this process's clock is from the others'.
type clock struct {
	off     atomic.Int64 // nanoseconds that it is ahead, at least; 0: not more than maxSkew either way
	unknown atomic.Bool  // the other clock was not to be had when it was last asked
}

// observe takes in what another clock showed between two moments of ours. It returns how far ours is ahead, at least, 0
// when that is no more than maxSkew, and whether that is news.
func (c *clock) observe(before, after, other time.Time) (off time.Duration, news bool) {
	switch {
	case before.Sub(other) > maxSkew:
		off = before.Sub(other)
	case other.Sub(after) > maxSkew:
		off = -other.Sub(after)
	}
	was := c.off.Swap(int64(off))
	return off, (was != 0) != (off != 0)
}

// isOff tells whether nothing may be appended now.
func (c *clock) isOff() bool { return c.off.Load() != 0 }

// compare takes in what another clock showed, and says so when ours turns out to be off, or right again.
func (i *Ingest) compare(before, after, other time.Time) {
	switch off, news := i.clock.observe(before, after, other); {
	case !news:
	case off != 0:
		i.log.Error("this machine's clock is off by more than a minute against the other edges', refusing events",
			"ahead_seconds", off.Seconds())
	default:
		i.log.Info("this machine's clock is right again, taking events")
	}
}

// askClock is the goroutine that compares with the clock that all edges have in common.
func (i *Ingest) askClock(ctx context.Context) {
	tick := time.NewTicker(i.cfg.clockEvery)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, clockEvery)
		before := time.Now()
		other, err := i.cfg.Clock(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if i.clock.unknown.Swap(err != nil) != (err != nil) && err != nil {
			i.log.Warn("this machine's clock cannot be compared with the other edges', it counts as it did before",
				"error", err)
		}
		if err == nil {
			i.compare(before, time.Now(), other)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
