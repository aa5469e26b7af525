package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// errStopped ends a slot's session because the slot is being given up.
var errStopped = errors.New("slot is being given up")

// errDoubt has a slot's records fetched anew from the one before its next position on: the log may be another one.
var errDoubt = errors.New("the log was connected to anew")

// errBase ends a slot's session because its first record told another base than was assumed.
var errBase = errors.New("the partition's base was learned from its first record")

// feed is the bounded queue between the reader and one session of a slot. A session that ends is never fed again: the
// next one has a feed of its own.
type feed struct {
	slot  topic.Slot
	limit Positions // nil: no end; else records at or past it are not taken
	// everything up to limit is one batch: the queue is never said to be full, or it would wait for itself
	exact bool

	wake chan struct{} // capacity 1: the queue, the limit or err changed

	mu      sync.Mutex // guards what follows
	doubt   uint64     // the consumer's count of connections when the log was looked at last
	fed     bool       // something was fetched
	queue   []Record
	bytes   int
	first   time.Time // when the oldest of a burst arrived
	last    time.Time // when the newest arrived
	expect  Positions // the next position of each topic; absent: the next record is the first
	reached map[topic.Topic]bool
	before  Marks // of the records before expect, until they have come
	err     error
	closed  bool
	paused  bool // fetching is paused, or about to be
}

func newFeed(slot topic.Slot, from place, limit Positions, exact bool, topics []topic.Topic) *feed {
	next := from.next
	f := &feed{
		slot:    slot,
		limit:   limit,
		exact:   exact,
		expect:  next.Clone(),
		before:  from.marks.Clone(),
		wake:    make(chan struct{}, 1),
		reached: make(map[topic.Topic]bool),
	}
	for _, t := range topics {
		if end, ok := limit[t]; ok && next[t] >= end {
			f.reached[t] = true
		}
	}
	return f
}

// doubts tells whether the log was not looked at since it was connected to for the last time.
func (f *feed) doubts(count uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doubt != count
}

// trusts takes down that the log was looked at after a connection was made, and is the same as far as that shows. What
// was read before it could still be another's; only a feed to which nothing has come yet will see that by its first
// record, and need not be made anew. Else one that waits alone would never be fed: making it anew ends the fetch that
// waits, and with it the connection.
func (f *feed) trusts(count uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fed && f.doubt < count {
		return false
	}
	f.doubt = max(f.doubt, count)
	return true
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) fail(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	f.mu.Unlock()
	f.signal()
}

// pushed is what push did.
type pushed struct {
	records, bytes int
	gaps           int  // gaps that were seen
	full           bool // the queue has just become full: the caller pauses fetching
}

// push takes records in, in order. Reader only.
func (f *feed) push(t topic.Topic, recs []*kgo.Record, bases *Bases, maxRecords, maxBytes int) (out pushed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.err != nil {
		return out
	}
	f.fed = true
	limit, limited := f.limit[t]
	for _, r := range recs {
		if len(r.Headers) > 0 {
			if changed, err := bases.Observe(r); err != nil || changed {
				f.err = errBase
				if err != nil {
					f.err = err
				}
				break
			}
		}
		pos := bases.Position(r)
		want, known := f.expect[t]
		if err := f.sameLog(t, r, pos, bases); err != nil {
			f.err = err
			break
		}
		if known && pos < want {
			continue
		}
		if limited && pos >= limit {
			f.reached[t] = true
			break
		}
		if known && pos > want && keptWhole(t) && r.Offset > bases.Offset(t, f.slot, want) {
			out.gaps++
		}
		if out.records == 0 {
			f.last = time.Now()
			if len(f.queue) == 0 {
				f.first = f.last
			}
		}
		f.queue = append(f.queue,
			Record{Topic: t, Slot: f.slot, Position: pos, LogTime: r.Timestamp, Key: r.Key, Value: r.Value})
		f.expect[t] = pos + 1
		out.records++
		out.bytes += len(r.Key) + len(r.Value)
		if limited && pos+1 >= limit {
			f.reached[t] = true
			break
		}
	}
	f.bytes += out.bytes
	if !f.paused && !f.exact && (len(f.queue) >= maxRecords || f.bytes >= maxBytes) {
		f.paused, out.full = true, true
	}
	f.signal()
	return out
}

// sameLog holds the first record of a topic against what was read there before. The caller holds mu.
func (f *feed) sameLog(t topic.Topic, r *kgo.Record, pos topic.Position, bases *Bases) error {
	next, known := f.expect[t]
	if !known {
		if r.Offset > bases.First(t, f.slot) && keptWhole(t) {
			return &LogError{Topic: t, Slot: f.slot, Fault: FaultCut, At: pos}
		}
		return nil
	}
	mark, ok := f.before[t]
	if !ok {
		return nil
	}
	delete(f.before, t)
	switch {
	case pos >= next && keptWhole(t) && r.Offset > bases.Offset(t, f.slot, next):
		return &LogError{Topic: t, Slot: f.slot, Fault: FaultCut, Next: next, At: pos}
	case pos == next-1 && mark.Digest != topic.Digest(r.Key, r.Value):
		return &LogError{Topic: t, Slot: f.slot, Fault: FaultChanged, Next: next}
	}
	return nil
}

// keptWhole tells whether no record of a topic ever vanishes.
func keptWhole(t topic.Topic) bool { return t != topic.Receipts && t != topic.Presence }

// relieved tells, once, that a full queue has become half empty.
func (f *feed) relieved(maxRecords, maxBytes int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.paused || len(f.queue) > maxRecords/2 || f.bytes > maxBytes/2 {
		return false
	}
	f.paused = false
	return true
}

// oldest returns the log time of the oldest queued record of a topic.
func (f *feed) oldest(t topic.Topic) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.queue {
		if f.queue[i].Topic == t {
			return f.queue[i].LogTime, true
		}
	}
	return time.Time{}, false
}

// close empties the queue and returns what was in it, and whether fetching is paused.
func (f *feed) close() (records, bytes int, paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	records, bytes, paused = len(f.queue), f.bytes, f.paused
	f.closed, f.queue, f.bytes = true, nil, 0
	return records, bytes, paused
}

// gathering says how a batch is put together.
type gathering struct {
	linger     time.Duration // after the newest record
	busy       time.Duration // after the oldest
	enough     int
	maxRecords int
	maxBytes   int
	decided    <-chan struct{} // closed when more was decided of the slot's quarantine
}

// wait is how much longer a batch of n records waits for more. busy is its busy linger.
func (g gathering) wait(first, last time.Time, n int, busy time.Duration) time.Duration {
	if n >= g.enough {
		return g.linger - time.Since(first)
	}
	return min(g.linger-time.Since(last), busy-time.Since(first))
}

// draw returns the busy linger of one batch.
func (g gathering) draw() time.Duration {
	if g.busy <= g.linger {
		return g.busy
	}
	return g.busy*3/4 + rand.N(g.busy/2+1)
}

// errCheck is what gather returns when it is time to look at the stored positions.
var errCheck = errors.New("time to check")

// gather waits for the next batch. A queue that is full goes at once: nothing more comes before. done means that the
// limit is reached and nothing is left.
func (f *feed) gather(
	ctx context.Context, g gathering, check <-chan time.Time,
) (recs []Record, bytes int, done bool, err error) {
	busy := g.draw()
	for {
		var wait time.Duration
		f.mu.Lock()
		n, complete := len(f.queue), f.limit != nil && len(f.reached) >= len(f.limit)
		switch {
		case f.err != nil:
			err = f.err
		case f.exact:
			if complete {
				recs, bytes = f.take(n, math.MaxInt)
				done = true
			}
		case n > 0:
			wait = g.wait(f.first, f.last, n, busy)
			if wait <= 0 || complete || n >= g.maxRecords || f.bytes >= g.maxBytes || f.paused {
				recs, bytes = f.take(g.maxRecords, g.maxBytes)
			}
		default:
			done = complete
		}
		f.mu.Unlock()
		if err != nil || done || len(recs) > 0 {
			return recs, bytes, done, err
		}
		var timer *time.Timer
		var fire <-chan time.Time
		if n > 0 && wait > 0 {
			timer = time.NewTimer(wait)
			fire = timer.C
		}
		select {
		case <-ctx.Done():
			err = errStopped
		case <-f.wake:
		case <-fire:
		case <-g.decided:
			err = errDecided
		case <-check:
			err = errCheck
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return nil, 0, false, err
		}
	}
}

// take cuts a batch off the queue; the caller holds mu.
func (f *feed) take(maxRecords, maxBytes int) (recs []Record, bytes int) {
	n := 0
	for n < len(f.queue) && n < maxRecords && (n == 0 || bytes < maxBytes) {
		bytes += len(f.queue[n].Key) + len(f.queue[n].Value)
		n++
	}
	recs = f.queue[:n:n]
	f.queue = f.queue[n:]
	if len(f.queue) == 0 {
		f.queue = nil
	}
	f.bytes -= bytes
	return recs, bytes
}

// fetchError names a fetch error of a partition; a position outside the log becomes ErrPositions.
func fetchError(name string, partition int32, err error) error {
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return fmt.Errorf("%w: %s/%d", ErrPositions, name, partition)
	}
	var lost *kgo.ErrDataLoss
	if errors.As(err, &lost) {
		return fmt.Errorf("%w: %s/%d: the log was cut: %w", ErrPositions, name, partition, err)
	}
	return fmt.Errorf("fetch %s/%d: %w", name, partition, err)
}
