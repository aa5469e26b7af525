package threads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
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

	mu      sync.Mutex           // guards trimmed
	trimmed map[topic.Slot]int64 // the cutoff up to which a slot's tail was trimmed since the slot was opened
}

// store is the projector.Store of the thread views.
type store struct {
	cfg     Config
	pool    *pgxpool.Pool // for what is written
	views   *views.Views
	log     *slog.Logger
	metrics *metrics
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
		metrics: newMetrics(reg),
	}
	return &Sink{store: st, trimmed: map[topic.Slot]int64{}, Sink: projector.NewSink(projector.Config{
		Kind: "threads", View: cfg.Consumer.View, Partitions: partitions,
		CacheBytes: cfg.CacheBytes, Budget: cfg.Consumer.Kafka.Budget, Timeout: cfg.timeout, Report: cfg.Report,
		Log: cfg.Log,
	}, st, log, reg)}
}

// Open implements kafka.Sink. Whoever had the slot since may have left rows that were trimmed before.
func (s *Sink) Open(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	next, err := s.Sink.Open(ctx, slot)
	s.mu.Lock()
	delete(s.trimmed, slot)
	s.mu.Unlock()
	return next, err
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

// Rows implements projector.Store.
func (s *store) Rows(slot topic.Slot, states *projector.States) *writes {
	return newWrites(slot, states)
}

// fencedCode is raised by the SQL function advance_position.
const fencedCode = "HE409"

// Classify implements projector.Store.
func (s *store) Classify(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == fencedCode:
		return fmt.Errorf("%w: %w", kafka.ErrFenced, err)
	case postgres.Transient(err):
		return err
	}
	return kafka.Permanent(err)
}
