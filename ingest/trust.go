package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// trust is whether the log is still the one that was read and written. A log can be set back, replaced or cut only
// while its broker is away; so from each new connection on acknowledgements are held until the last record that is
// known of each partition was found in its place. In a partition where it was not, nothing is acknowledged any more,
// until it is there again: an operator has brought the right log back, or made what there is the log.
type trust struct {
	doubt  *kafka.Doubts
	looked atomic.Uint64 // the count of doubts at which the log was found to be the same; written under mu

	mu   sync.Mutex // guards what follows
	held []heldAck  // acknowledgements that wait, oldest first

	// The goroutine's that looks alone.
	views []kafka.Standing // where the views stood when they last said so
	asked bool
	wrong int // partitions that are another log's
}

// heldAck is an acknowledgement that nobody has been told of.
type heldAck struct {
	since time.Time
	lane  *lane
	rec   *kgo.Record
	// settle ends the wait: with nil as an acknowledgement.
	settle func(error)
}

// lookAgain is how often a log that is in order is looked at although no connection was made: an admin can cut it or
// make a topic anew. One that is not in order, or does not answer, is looked at after lookSoon.
const (
	lookAgain = 15 * time.Second
	lookSoon  = time.Second
	// standingTime is how long the views may take to say where they stand; once they have, what they said last will do.
	standingTime = 3 * time.Second
	// heldTime is how long an acknowledgement waits for a look.
	heldTime = 4 * time.Second
)

// sure returns at once when an acknowledgement that has just come can be trusted, else it is held, and settle called
// later, on another goroutine. It says which.
func (i *Ingest) sure(l *lane, rec *kgo.Record, settle func(error)) bool {
	tr := &i.trust
	if tr.doubt.Load() == tr.looked.Load() {
		return true
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.doubt.Load() == tr.looked.Load() {
		return true
	}
	if i.closed.Load() { // nobody will look any more
		go settle(errStopped)
		return false
	}
	tr.held = append(tr.held, heldAck{time.Now(), l, rec, settle})
	i.countHeld(1, len(rec.Value))
	i.cfg.Kafka.Budget.Add(recordWeight + len(rec.Value))
	return false
}

// giveUp ends the waits of those that were held since before a moment.
func (i *Ingest) giveUp(before time.Time, err error) {
	tr := &i.trust
	tr.mu.Lock()
	n := 0
	for n < len(tr.held) && tr.held[n].since.Before(before) {
		n++
	}
	late := tr.held[:n:n]
	tr.held = tr.held[n:]
	tr.mu.Unlock()
	i.settleHeld(late, err)
}

// told is what is kept of an event that is acknowledged.
func (i *Ingest) told(rec *kgo.Record) *told {
	return &told{next: i.bases.Position(rec) + 1, digest: topic.Digest(rec.Key, rec.Value)}
}

func (i *Ingest) settleHeld(acks []heldAck, err error) {
	for _, h := range acks {
		of := err
		if of == nil {
			if wrong := h.lane.fault.Load(); wrong != nil {
				of = wrong
			} else {
				h.lane.last.Store(i.told(h.rec))
			}
		}
		h.settle(of)
		i.countHeld(-1, -len(h.rec.Value))
		i.cfg.Kafka.Budget.Add(-recordWeight - len(h.rec.Value))
	}
}

// watchLog is the goroutine that looks whether the log is the same.
func (i *Ingest) watchLog(ctx context.Context) {
	again := time.NewTimer(i.cfg.lookAgain)
	defer again.Stop()
	for {
		err := i.lookAtLog(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := i.cfg.lookAgain
		if err != nil || i.trust.wrong > 0 {
			wait = lookSoon
		}
		again.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		case <-i.trust.doubt.Made():
		}
	}
}

// giveUpLate is the goroutine that ends the waits of what was held for too long: a look may take its time, or a broker
// that is connected to over and over may have it begun again each time.
func (i *Ingest) giveUpLate(ctx context.Context) {
	t := time.NewTicker(heldTime / 8)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			i.giveUp(time.Now().Add(-heldTime), errLate)
		}
	}
}

// errLate settles what was held for too long.
var errLate = errors.New("whether the log is the same is not known yet")

// lookAtLog looks until the log was found to be in order, or not, at the latest count of doubts.
func (i *Ingest) lookAtLog(ctx context.Context) error {
	tr := &i.trust
	for first := true; ; first = false {
		n := tr.doubt.Load()
		if !first && n == tr.looked.Load() {
			return nil
		}
		if err := i.compareLog(ctx); err != nil {
			return err
		}
		for {
			tr.mu.Lock()
			if n != tr.doubt.Load() { // what came over a later connection may be among those that wait
				tr.mu.Unlock()
				break
			}
			acks := tr.held
			tr.held = nil
			if len(acks) == 0 {
				tr.looked.Store(n)
			}
			tr.mu.Unlock()
			if len(acks) == 0 {
				return nil
			}
			i.settleHeld(acks, nil) // what comes meanwhile waits behind them
		}
	}
}

// compareLog holds the log against what is known of it, and marks the lanes of partitions where it is another.
func (i *Ingest) compareLog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tr := &i.trust
	if i.cfg.Standing != nil {
		short, stop := context.WithTimeout(ctx, standingTime)
		views, err := i.cfg.Standing(short)
		stop()
		switch {
		case err == nil:
			tr.views, tr.asked = views, true
		case !tr.asked:
			return fmt.Errorf("ask where the views stand: %w", err)
		}
	}
	if err := i.bases.Reload(ctx, i.events); err != nil { // an operator may have decided
		return err
	}
	// Records are read only when the log may have become another since they were.
	marks := tr.wrong > 0 || tr.doubt.Load() != tr.looked.Load()
	faults, err := kafka.Look(ctx, i.cfg.Kafka, i.bases, i.standing(marks))
	if err != nil {
		return err
	}
	// A view that has read what was given up is its projector's matter: what is appended now is in the log.
	i.mark(slices.DeleteFunc(faults, func(f *kafka.LogError) bool { return f.Fault == kafka.FaultGivenUp }))
	return nil
}

// standing returns where the views and this process stand, of each partition who stands furthest: what is before him
// in the log is what the others have read too. Without marks only the log's ends and heads tell.
func (i *Ingest) standing(marks bool) []kafka.Standing {
	furthest := make(map[*lane]kafka.Standing)
	take := func(at kafka.Standing) {
		if int(at.Slot) >= i.cfg.Partitions || i.bases.GivenUp(at.Topic, at.Slot, at.Next) {
			return
		}
		if l := i.lane(at.Topic, at.Slot); at.Next > furthest[l].Next {
			furthest[l] = at
		}
	}
	for _, at := range i.trust.views {
		take(at)
	}
	for n := range i.lanes {
		for s := range i.lanes[n] {
			last := i.lanes[n][s].last.Load()
			if t, err := topic.FromNumber(int32(n)); last != nil && err == nil {
				take(kafka.Standing{
					Topic: t, Slot: topic.Slot(s), Next: last.next, Mark: topic.Mark{Digest: last.digest},
				})
			}
		}
	}
	out := make([]kafka.Standing, 0, len(furthest))
	for _, at := range furthest {
		if !marks {
			at.Mark.Digest = 0
		}
		out = append(out, at)
	}
	return out
}

// mark takes down which partitions are another log's.
func (i *Ingest) mark(faults []*kafka.LogError) {
	wrong := make(map[*lane]*kafka.LogError, len(faults))
	for _, f := range faults {
		if int(f.Slot) < i.cfg.Partitions {
			wrong[i.lane(f.Topic, f.Slot)] = f
		}
	}
	var news *kafka.LogError
	for n := range i.lanes {
		for s := range i.lanes[n] {
			l := &i.lanes[n][s]
			if was := l.fault.Swap(wrong[l]); was == nil && wrong[l] != nil {
				news = wrong[l]
			}
		}
	}
	switch {
	case news != nil:
		i.log.Error("the log is not the one that was read, acknowledging nothing in it",
			"partitions", len(wrong), "err", news)
	case i.trust.wrong > 0 && len(wrong) == 0:
		i.log.Info("the log is in order again")
	}
	i.trust.wrong = len(wrong)
	i.metrics.wrong.Set(float64(len(wrong)))
}

// Fault returns what is wrong with the log, in one of the partitions where something is; nil when nothing is known to
// be. Any goroutine may call it.
func (i *Ingest) Fault() error {
	for n := range i.lanes {
		for s := range i.lanes[n] {
			if f := i.lanes[n][s].fault.Load(); f != nil {
				return f
			}
		}
	}
	return nil
}

// errStopped settles what is held when Run ends.
var errStopped = errors.New("ingest is stopping")
