package threads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// Sink is a kafka.Sink and kafka.Checker that writes the thread views.
type Sink struct {
	*projector.Sink[*writes]
	store *store

	mu      sync.Mutex            // guards trimmed
	trimmed map[topic.Slot]int64  // the cutoff up to which a slot's tail was trimmed since the slot was opened
	wrong   chan *GenerationError // capacity 1: Open has met a generation that is not to be written
}

// store is the projector.Store of the thread views.
type store struct {
	cfg     Config
	pool    *pgxpool.Pool // for what is written
	views   *views.Views
	log     *slog.Logger
	metrics *metrics

	mu         sync.Mutex // guards generation
	generation map[topic.Slot]views.GenerationID
}

// GenerationError says that a schema holds a generation of the views that this projector is not for.
type GenerationError struct {
	Number int
	State  string // of views.Generation
}

// Error names it and what to do.
func (e *GenerationError) Error() string {
	if e.State == views.Live {
		return fmt.Sprintf("generation %d of the thread views is the live one: its projectors fill it, and no replay",
			e.Number)
	}
	return fmt.Sprintf("generation %d of the thread views is not the live one (%s): "+
		"only 'helio replay postgres' fills it; a projector is given the schema of the live one", e.Number, e.State)
}

// NewSink returns a sink over a pool whose search_path names the schema of the views. Projector is the usual way to run
// one; a replay or a rebuild uses it with kafka.Replay.
func NewSink(cfg Config, pool *pgxpool.Pool, log *slog.Logger, reg prometheus.Registerer) *Sink {
	return newSink(cfg.withDefaults(log, reg), pool, log, reg, func() int { return cfg.Consumer.Partitions })
}

func newSink(
	cfg Config, pool *pgxpool.Pool, log *slog.Logger, reg prometheus.Registerer, partitions func() int,
) *Sink {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	st := &store{
		cfg: cfg, pool: pool, views: views.New(pool), log: log.With("view", cfg.Consumer.View),
		metrics: newMetrics(reg), generation: map[topic.Slot]views.GenerationID{},
	}
	inner := projector.NewSink(projector.Config{
		Kind: "threads", View: cfg.Consumer.View, Partitions: partitions,
		CacheBytes: cfg.CacheBytes, Budget: cfg.Consumer.Kafka.Budget, Timeout: cfg.timeout, Report: cfg.Report,
		Log: cfg.Log,
	}, st, log, reg)
	return &Sink{store: st, trimmed: map[topic.Slot]int64{}, wrong: make(chan *GenerationError, 1), Sink: inner}
}

// Open implements kafka.Sink. Whoever had the slot since may have left rows that were trimmed before.
//
// The generation is asked for first: what is read after it belongs to it, or a later write fails as fenced.
func (s *Sink) Open(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	if err := s.store.meet(ctx, slot); err != nil {
		var other *GenerationError
		if errors.As(err, &other) {
			select {
			case s.wrong <- other:
			default: // it was told already
			}
		}
		return nil, fmt.Errorf("threads: open slot %d: %w", slot, err)
	}
	next, err := s.Sink.Open(ctx, slot)
	s.mu.Lock()
	delete(s.trimmed, slot)
	s.mu.Unlock()
	return next, err
}

// refused waits until Open has met a generation that is not to be written, and returns what it is; nil when ctx ends.
func (s *Sink) refused(ctx context.Context) error {
	select {
	case err := <-s.wrong:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stored implements kafka.Checker: commits do not wait for the disk, so a crash of the database may take the last of
// them back.
func (s *Sink) Stored(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	stored, err := s.store.Read(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("threads: positions of slot %d: %w", slot, err)
	}
	return stored.Next, nil
}

// meet learns which generation a slot's writes are for.
func (s *store) meet(ctx context.Context, slot topic.Slot) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	g, err := s.views.Generation(ctx)
	if err != nil {
		return s.Classify(err)
	}
	if (g.State == views.Live) == s.cfg.Beside {
		return kafka.Permanent(&GenerationError{Number: g.Number, State: g.State})
	}
	s.mu.Lock()
	s.generation[slot] = g.ID
	s.mu.Unlock()
	return nil
}

// held is the generation that a slot's writes are for.
func (s *store) held(slot topic.Slot) pgtype.UUID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return pgtype.UUID{Bytes: s.generation[slot], Valid: true}
}

// Rows implements projector.Store.
func (s *store) Rows(slot topic.Slot, states *projector.States) *writes {
	return newWrites(slot, states)
}

// fencedCode is raised by the SQL functions advance_position and hold_generation.
const fencedCode = "HE409"

// Classify implements projector.Store.
func (s *store) Classify(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == fencedCode:
		return fmt.Errorf("%w: %w", kafka.ErrFenced, err)
	case postgres.Damaged(err):
		return kafka.Permanent(&projector.DamagedError{
			View: "thread views in Postgres", Command: "helio replay postgres", Err: err,
		})
	case postgres.Transient(err):
		return err
	}
	return kafka.Permanent(err)
}
