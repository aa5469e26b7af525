package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// Sink is a kafka.Sink and kafka.Pender that writes the history. Its Apply may be called again with the same batch
// after any failure: the tokens are the same.
type Sink struct{ *projector.Sink[*writes] }

// store is the projector.Store of the history.
type store struct {
	cfg       Config
	conn      driver.Conn // for what is inserted
	history   *history.History
	metrics   *metrics
	positions *gather[positionRow]
	claims    *gather[ownerRow]
	room      chan struct{} // one for each insert under way

	mu     sync.Mutex // guards what follows
	epochs epochs     // what this process drew when it took slots over
	// by slot: up to where quarantine has rows beyond the next positions, when those were read last
	ahead map[topic.Slot]kafka.Positions
}

// NewSink returns a sink over a connection whose default database is that of the history. Projector is the usual way to
// run one; a replay or a rebuild uses it with kafka.Replay.
func NewSink(cfg Config, conn driver.Conn, log *slog.Logger, reg prometheus.Registerer) *Sink {
	return newSink(cfg.withDefaults(log, reg), conn, log, reg, func() int { return cfg.Consumer.Partitions })
}

func newSink(
	cfg Config, conn driver.Conn, log *slog.Logger, reg prometheus.Registerer, partitions func() int,
) *Sink {
	s := &store{
		cfg: cfg, conn: conn, history: history.New(conn), metrics: newMetrics(reg),
		room: make(chan struct{}, cfg.inserts), ahead: make(map[topic.Slot]kafka.Positions),
		epochs: epochs{},
	}
	s.positions = gatherInto(s, tablePositions)
	s.claims = gatherInto(s, tableOwners)
	return &Sink{projector.NewSink(projector.Config{
		Kind: "history", View: cfg.Consumer.View, Partitions: partitions,
		CacheBytes: cfg.CacheBytes, Budget: cfg.Consumer.Kafka.Budget, Report: cfg.Report,
		Log: cfg.Log,
	}, s, log, reg)}
}

// Rows implements projector.Store.
func (s *store) Rows(topic.Slot, *projector.States) *writes { return &writes{} }

// gatherInto makes a gather for a table.
func gatherInto[R any](s *store, t *table[R]) *gather[R] {
	return &gather[R]{timeout: s.cfg.timeout, owners: s.owners, insert: func(ctx context.Context, rows []R) error {
		if err := insertChunk(ctx, s, t, "", rows); err != nil {
			return fmt.Errorf("insert into %s: %w", t.name, err)
		}
		return nil
	}}
}

// Classify implements projector.Store.
func (s *store) Classify(err error) error {
	if clickhouse.Damaged(err) {
		return kafka.Permanent(&projector.DamagedError{
			View: "history tables in ClickHouse", Command: "helio replay clickhouse", Err: err,
		})
	}
	if clickhouse.Transient(err) || errors.Is(err, kafka.ErrFenced) {
		return err
	}
	return kafka.Permanent(err)
}
