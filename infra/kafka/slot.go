package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// ownedSlot is a slot from its assignment until it is given up. One goroutine, supervise, calls the sink for it.
type ownedSlot struct {
	slot  topic.Slot
	since time.Time

	hard  context.CancelFunc // ends stop.hard: the sink must return at once
	drain context.CancelFunc // ends stop.polite: the batch in hand is finished, nothing new is begun

	lost atomic.Bool   // another may own the slot already
	done chan struct{} // closed when supervise has returned

	mu     sync.Mutex // guards what follows
	next   Positions  // the stored next positions, once Open has told them
	marks  Marks      // those of next; never changed once here
	inHand []Record   // the batch that is being applied
	feed   *feed
	err    error // of the last failed attempt; nil when all is well

	releases Releases // as of the session's beginning; supervise's goroutine only
}

// place is where a sink stands: its next positions, and the marks of the records before them.
type place struct {
	next  Positions
	marks Marks
}

// stops are the two contexts of a slot's goroutine; polite ends with hard, or before it.
type stops struct{ hard, polite context.Context }

func (o *ownedSlot) setErr(m *metrics, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil && o.err == nil:
		m.stalled.Inc()
	case err == nil && o.err != nil:
		m.stalled.Dec()
	}
	o.err = err
}

// supervise opens the slot again and again until it is given up.
func (c *Consumer) supervise(st stops, o *ownedSlot) {
	defer close(o.done)
	defer o.hard()
	defer o.setErr(c.metrics, nil)
	log := c.log.With("slot", o.slot)
	back := run.Backoff{Min: c.cfg.backoffMin, Max: c.cfg.BackoffMax}
	for {
		err := c.session(st, o, &back)
		if err == nil || st.polite.Err() != nil || errors.Is(err, errStopped) {
			return
		}
		if errors.Is(err, errBase) || errors.Is(err, ErrPositions) {
			c.reload(st.polite)
		}
		if errors.Is(err, errBase) || errors.Is(err, errDecided) {
			continue
		}
		reason := reasonOf(err)
		c.metrics.failed(reason)
		o.setErr(c.metrics, err)
		if c.ends != nil &&
			(reason == reasonFenced || reason == reasonPermanent || reason == reasonPanic || reason == reasonPosition) {
			c.fail(fmt.Errorf("slot %d: %w", o.slot, err))
			return
		}
		args := []any{"reason", reason, "err", err}
		var p *run.PanicError
		if errors.As(err, &p) {
			args = append(args, "stack", string(p.Stack))
		}
		log.Error("slot failed, reopening", args...)
		wait := back.Next()
		if reason == reasonPermanent || reason == reasonPosition {
			wait = c.cfg.BackoffMax
		}
		if !run.Sleep(st.polite, wait) {
			return
		}
	}
}

// stageError tells where in a session an error arose.
type stageError struct {
	reason string
	err    error
}

func (e *stageError) Error() string { return e.reason + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func reasonOf(err error) string {
	var p *run.PanicError
	var st *stageError
	switch {
	case errors.As(err, &p):
		return reasonPanic
	case errors.Is(err, ErrFenced):
		return reasonFenced
	case IsPermanent(err):
		return reasonPermanent
	case errors.Is(err, ErrPositions):
		return reasonPosition
	case errors.As(err, &st):
		return st.reason
	}
	return reasonFetch
}

// session is one life of a slot's state: Open, batches, Close. nil means that a replay has reached its end.
func (c *Consumer) session(st stops, o *ownedSlot, back *run.Backoff) (err error) {
	var at place
	var pending Positions
	var decided <-chan struct{}
	opened := false
	err = run.Protect(func() error {
		var err error
		if decided, err = c.obey(st.polite, o); err != nil {
			return err
		}
		if at.next, err = c.sink.Open(st.polite, o.slot); err != nil {
			return err
		}
		opened = true
		if m, ok := c.sink.(Marker); ok {
			if at.marks, err = m.Marks(st.polite, o.slot); err != nil {
				return err
			}
		}
		if p, ok := c.sink.(Pender); ok {
			pending, err = p.Pending(st.polite, o.slot)
		}
		return err
	})
	if opened {
		defer func() {
			broken := err != nil && !errors.Is(err, errStopped) && !errors.Is(err, errDecided)
			lost := o.lost.Load() || broken
			if perr := run.Protect(func() error { c.sink.Close(o.slot, lost); return nil }); perr != nil && err == nil {
				err = perr
			}
		}()
	}
	if err != nil {
		return &stageError{reasonOpen, err}
	}
	at = place{at.next.Clone(), at.marks.Clone()}
	o.mu.Lock()
	o.next, o.marks = at.next.Clone(), at.marks
	o.mu.Unlock()

	g := gathering{
		linger:     c.cfg.Linger,
		busy:       c.cfg.LingerBusy,
		enough:     c.cfg.LingerRecords,
		maxRecords: c.cfg.MaxRecords,
		maxBytes:   c.cfg.MaxBytes,
	}
	var limit Positions
	if c.ends != nil {
		limit = c.ends[o.slot]
	}
	for {
		until, exact := ahead(at.next, pending), true
		if len(until) == 0 {
			until, exact = limit, false
			g.decided = decided
		} else {
			c.log.Info("repeating the batch begun before the restart", "slot", o.slot, "from", at.next, "to", until)
		}
		at, err = c.serve(st, o, at, until, exact, g, back)
		switch {
		case errors.Is(err, errDoubt):
			c.log.Debug("log connected to anew, looking whether it is the same", "slot", o.slot, "next", at.next)
		case err != nil || !exact:
			return err
		}
	}
}

// obey reads what was decided of a slot's quarantine, for the session that begins: all of its batches, and those that
// are tried again, go by the same.
func (c *Consumer) obey(ctx context.Context, o *ownedSlot) (decided <-chan struct{}, err error) {
	if c.decisions == nil {
		return nil, nil
	}
	if o.releases, decided, err = c.decisions.Of(ctx, o.slot); err != nil {
		return nil, err
	}
	sink, ok := c.sink.(Releasable)
	if !ok {
		return decided, nil
	}
	sink.Released(o.slot, o.releases)
	return decided, nil
}

// errDecided ends a slot's session because more was decided of its quarantine.
var errDecided = errors.New("more was decided of the slot's quarantine")

// ahead keeps the positions of pending that are past next.
func ahead(next, pending Positions) Positions {
	out := make(Positions)
	for t, p := range pending {
		if p > next[t] {
			out[t] = p
		}
	}
	return out
}

// serve feeds the sink from next on, up to limit (nil: for ever), and returns the place that it reached.
func (c *Consumer) serve(
	st stops, o *ownedSlot, from place, limit Positions, exact bool, g gathering, back *run.Backoff,
) (place, error) {
	doubt := c.doubt.Load() // before the log is looked at
	log, err := c.sameLog(st.polite, o.slot, from)
	if err == nil && exact { // what was begun must be there too, or it would be waited for without a word
		_, err = c.sameLog(st.polite, o.slot, place{next: limit})
	}
	if err != nil {
		return from, err
	}
	offsets, err := c.offsets(o.slot, from, limit, exact)
	if err != nil {
		return from, err
	}
	f := newFeed(o.slot, from, limit, exact, c.cfg.Topics)
	f.doubt = doubt
	next, marks := from.next, from.marks
	o.mu.Lock()
	o.feed = f
	o.mu.Unlock()
	c.attach(f, offsets)
	defer c.detach(f, offsets)
	var check <-chan time.Time
	checker, ok := c.sink.(Checker)
	if ok && !exact && limit == nil {
		t := time.NewTicker(c.cfg.checkEvery)
		defer t.Stop()
		check = t.C
	}
	for {
		recs, bytes, done, err := f.gather(st.polite, g, check)
		if errors.Is(err, errCheck) {
			if err := checkStored(st.polite, checker, o.slot, next); err != nil {
				return place{next, marks}, err
			}
			continue
		}
		if err != nil {
			return place{next, marks}, err
		}
		if done && len(recs) == 0 && !exact {
			return place{next, marks}, nil
		}
		after := c.marksOf(recs, marks, log.ids) // of the records as they stand in the log
		o.releases.Blank(recs)
		b := Batch{Slot: o.slot, Records: recs, From: next.Clone(), To: next.Clone()}
		for i := range recs {
			b.To[recs[i].Topic] = recs[i].Position + 1
		}
		b.Marks = after
		if exact {
			for t, p := range limit {
				if b.To[t] < p {
					delete(b.Marks, t) // the record before it has been compacted away
				}
				b.To[t] = p
			}
		}
		err = c.apply(st, o, b, back)
		c.queued(-len(recs), -bytes)
		if err != nil {
			return place{next, marks}, err
		}
		next, marks = b.To, b.Marks
		c.relieve(f)
		if exact {
			return place{next, marks}, nil
		}
		select {
		case <-g.decided:
			return place{next, marks}, errDecided
		case <-check: // with records always at hand, gather never comes to it
			if err := checkStored(st.polite, checker, o.slot, next); err != nil {
				return place{next, marks}, err
			}
		default:
		}
	}
}

// checkStored returns ErrFenced when the stored positions are not those that the sink has taken. A store that does not
// answer says nothing.
func checkStored(ctx context.Context, sink Checker, s topic.Slot, next Positions) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	stored, err := sink.Stored(ctx, s)
	if err != nil {
		return nil //nolint:nilerr // the next batch or the next check will tell
	}
	for t, p := range next {
		if stored[t] != p {
			return fmt.Errorf("%w: slot %d: %s is stored up to %d and was taken up to %d",
				ErrFenced, s, t, stored[t], p)
		}
	}
	return nil
}

// checkTimeout bounds a look at the stored positions.
const checkTimeout = 5 * time.Second

// apply gives the sink one batch until it takes it, the slot is given up, or the error is not transient.
func (c *Consumer) apply(st stops, o *ownedSlot, b Batch, back *run.Backoff) error {
	o.mu.Lock()
	o.inHand = b.Records
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.inHand = nil
		o.mu.Unlock()
	}()
	for tries := 1; ; tries++ {
		begin := time.Now()
		err := run.Protect(func() error { return c.sink.Apply(st.hard, b) })
		if err == nil {
			c.metrics.apply.Observe(time.Since(begin).Seconds())
			c.metrics.batch.Observe(float64(len(b.Records)))
			c.metrics.records.Add(float64(len(b.Records)))
			o.mu.Lock()
			o.next, o.marks = b.To.Clone(), b.Marks
			o.mu.Unlock()
			if tries > 1 {
				c.log.Info("slot recovered", "slot", o.slot, "tries", tries)
			}
			o.setErr(c.metrics, nil)
			back.Reset()
			return nil
		}
		if st.hard.Err() != nil {
			return errStopped
		}
		var p *run.PanicError
		if errors.As(err, &p) || errors.Is(err, ErrFenced) || IsPermanent(err) {
			return err
		}
		c.metrics.failed(reasonTransient)
		o.setErr(c.metrics, err)
		if tries == 1 {
			c.log.Warn("slot stalled, retrying the batch", "slot", o.slot, "records", len(b.Records), "err", err)
		}
		if !run.Sleep(st.polite, back.Next()) {
			return errStopped
		}
	}
}

// offsets turns a place into Kafka offsets: of the record before the next position where its mark is known, so that the
// first that comes tells whether the log is the same. Topics that are at their limit already, and in an exact phase all
// that have none, are not read.
func (c *Consumer) offsets(
	s topic.Slot, from place, limit Positions, onlyLimited bool,
) (map[topic.Topic]kgo.Offset, error) {
	out := make(map[topic.Topic]kgo.Offset)
	for _, t := range c.cfg.Topics {
		end, limited := limit[t]
		if limited && from.next[t] >= end || onlyLimited && !limited {
			continue
		}
		at := kgo.NewOffset().AtStart()
		if pos := from.next[t]; pos > 0 {
			offset := c.bases.Offset(t, s, pos)
			if offset < 0 {
				return nil, fmt.Errorf("%w: %s/%d: position %d is before the log's base", ErrPositions, t, s, pos)
			}
			if _, marked := from.marks[t]; marked && offset > 0 {
				offset--
			}
			at = kgo.NewOffset().At(offset).WithEpoch(-1)
		}
		out[t] = at
	}
	return out, nil
}
