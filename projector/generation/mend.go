package generation

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Subject is a thread or a user that is mended in place.
type Subject struct {
	Kind string // ThreadSubject or UserSubject
	ID   topic.Subject
}

// The kinds of a Subject.
const (
	ThreadSubject = "thread"
	UserSubject   = "user"
)

// String names it.
func (s Subject) String() string { return s.Kind + " " + id.ThreadID(s.ID).String() }

// topics are those that say something of it.
func (s Subject) topics() []topic.Topic {
	if s.Kind == UserSubject {
		return []topic.Topic{topic.Users}
	}
	return []topic.Topic{topic.Threads, topic.Receipts}
}

// Mended is what was done to the rows of a table.
type Mended struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`  // of the subject, as the log gives them
	Wrong int64  `json:"wrong"` // of these, that were missing or other than that
	Undue int64  `json:"undue"` // that should not have been there
}

// Filling brings the generation that a Mender was given up to some positions of the subject's slot.
type Filling func(ctx context.Context, to kafka.Positions) error

// Mender is a Store whose live generation can be mended in place.
type Mender interface {
	Store
	// Reached returns how far the live generation has taken in a slot.
	Reached(ctx context.Context, slot topic.Slot) (kafka.Positions, error)
	// Mend holds the live generation's writers back, has fill bring g to where they are, puts its rows of a subject in
	// the place of the live ones, and lets the writers on, who take no state along.
	Mend(ctx context.Context, g Generation, s Subject, slot topic.Slot, fill Filling) ([]Mended, error)
}

// Mend replays one thread or user from the first record, and puts the rows that come of it in the place of those that
// the live generation has. All others stay as they are. It may be killed at any moment: nothing is changed then, or
// all.
func Mend(ctx context.Context, store Mender, cfg Config, s Subject) ([]Mended, error) {
	run.Default(&cfg.Logger, slog.New(slog.DiscardHandler))
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	all, err := store.Generations(ctx)
	if err != nil {
		return nil, err
	}
	g := Generation{Number: 1, State: AsOf, Until: s.String()}
	for _, x := range all {
		g.Number = max(g.Number, x.Number+1)
		if x.State == AsOf && x.Until == g.Until { // of one that was killed
			if err := store.Drop(ctx, x); err != nil {
				return nil, err
			}
		}
	}
	if g, err = store.Prepare(ctx, g); err != nil {
		return nil, err
	}
	slot := topic.SlotOf(s.ID, cfg.Partitions)
	fill := func(ctx context.Context, ends kafka.Positions) error {
		return cfg.fillOne(ctx, store, g, s, slot, ends)
	}
	at, err := store.Reached(ctx, slot)
	if err == nil {
		err = fill(ctx, at) // most of it, while everything goes on
	}
	var out []Mended
	if err == nil {
		out, err = store.Mend(ctx, g, s, slot, fill)
	}
	if derr := store.Drop(context.WithoutCancel(ctx), g); err == nil {
		err = derr
	}
	return out, err
}

// fillOne has a generation take in what one slot has of a subject, up to the ends.
func (c Config) fillOne(
	ctx context.Context, store Mender, g Generation, s Subject, slot topic.Slot, ends kafka.Positions,
) error {
	cfg := c.consumer()
	store.Tune(&cfg)
	cfg.Slots = []topic.Slot{slot}
	log := &again{}
	sink, done, err := store.Sink(ctx, g, cfg, log)
	if err != nil {
		return err
	}
	defer done()
	until := kafka.Positions{}
	for _, t := range s.topics() {
		if end, ok := ends[t]; ok && end > 0 {
			until[t] = end
		}
	}
	cfg.Topics = s.topics()
	f, err := newFill(cfg, &oneSink{sink, s.ID}, log, 0, map[topic.Slot]kafka.Positions{slot: until})
	if err != nil {
		return err
	}
	filling, stop := context.WithCancel(ctx)
	filled := make(chan error, 1)
	go func() { filled <- f.run(filling) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if f.sink.positions()[slot] != nil && f.sink.whole(slot) {
			stop()
			if err := <-filled; err != nil && ctx.Err() != nil {
				return err
			}
			return nil // it was stopped, with all that was wanted
		}
		select {
		case err := <-filled:
			stop()
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("replay %v: %w", s, err)
		case <-tick.C:
		}
	}
}

// oneSink passes on the records of one subject.
type oneSink struct {
	kafka.Sink
	about topic.Subject
}

// Released implements kafka.Releasable.
func (o *oneSink) Released(s topic.Slot, r kafka.Releases) {
	if inner, ok := o.Sink.(kafka.Releasable); ok {
		inner.Released(s, r)
	}
}

// Marks implements kafka.Marker: they are of the slot's records, and not of the subject's.
func (o *oneSink) Marks(ctx context.Context, s topic.Slot) (kafka.Marks, error) {
	if inner, ok := o.Sink.(kafka.Marker); ok {
		return inner.Marks(ctx, s)
	}
	return nil, nil
}

// Pending implements kafka.Pender.
func (o *oneSink) Pending(ctx context.Context, s topic.Slot) (kafka.Positions, error) {
	if inner, ok := o.Sink.(kafka.Pender); ok {
		return inner.Pending(ctx, s)
	}
	return nil, nil
}

// Apply implements kafka.Sink.
func (o *oneSink) Apply(ctx context.Context, b kafka.Batch) error {
	some := b
	some.Records = nil
	for _, r := range b.Records {
		if bytes.HasPrefix(r.Key, o.about[:]) {
			some.Records = append(some.Records, r)
		}
	}
	return o.Sink.Apply(ctx, some)
}
