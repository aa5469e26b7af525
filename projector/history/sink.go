package history

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Sink is a kafka.Sink and kafka.Pender that writes the history.
type Sink struct {
	// Fixed before the first Open.
	cfg        Config
	conn       driver.Conn // for what is inserted
	history    *history.History
	log        *slog.Logger
	metrics    *metrics
	partitions func() int // P, or 0 while it is unknown
	positions  *positions
	room       chan struct{} // one for each insert under way

	mu    sync.Mutex // guards slots, not their values
	slots map[topic.Slot]*slotState
}

// slotState is what the sink knows of an owned slot; it belongs to the slot's goroutine.
type slotState struct {
	intake  *projector.Intake
	threads *projector.Cache[id.ThreadID, *thread.State]
	pending kafka.Positions
}

// NewSink returns a sink over a connection whose default database is that of the history. Projector is the usual way to
// run one; a replay or a rebuild uses it with kafka.Replay.
func NewSink(cfg Config, conn driver.Conn, log *slog.Logger, reg prometheus.Registerer) *Sink {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults(log, reg)
	n := cfg.Consumer.Partitions
	s := &Sink{
		cfg: cfg, conn: conn, history: history.New(conn), log: log.With("view", cfg.Consumer.View),
		metrics:    newMetrics(reg),
		partitions: func() int { return n },
		slots:      make(map[topic.Slot]*slotState), room: make(chan struct{}, cfg.Inserts),
	}
	s.positions = &positions{insert: func(ctx context.Context, rows []positionRow) error {
		if err := insertChunk(ctx, s, tablePositions, "", rows); err != nil {
			return fmt.Errorf("insert into %s: %w", tablePositions.name, err)
		}
		return nil
	}}
	return s
}

// Open implements kafka.Sink.
func (s *Sink) Open(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	next, pending, err := s.readPositions(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("history: open slot %d: %w", slot, err)
	}
	held, err := s.readHeld(ctx, slot, next)
	if err != nil {
		return nil, fmt.Errorf("history: open slot %d: %w", slot, err)
	}
	st := &slotState{
		intake:  projector.NewIntake(s.partitions(), held),
		threads: projector.NewCache[id.ThreadID](s.cfg.CacheBytes, weigh),
		pending: pending,
	}
	s.mu.Lock()
	s.slots[slot] = st
	s.mu.Unlock()
	s.metrics.held.Add(float64(len(held)))
	return next, nil
}

// Pending implements kafka.Pender: the range that was begun at the stored positions and is not done.
func (s *Sink) Pending(_ context.Context, slot topic.Slot) (kafka.Positions, error) {
	st := s.state(slot)
	if st == nil || len(st.pending) == 0 {
		return nil, nil
	}
	s.metrics.repeated.Inc()
	return st.pending, nil
}

func (s *Sink) state(slot topic.Slot) *slotState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[slot]
}

// Close implements kafka.Sink.
func (s *Sink) Close(slot topic.Slot, _ bool) {
	s.mu.Lock()
	st := s.slots[slot]
	delete(s.slots, slot)
	s.mu.Unlock()
	if st != nil {
		s.metrics.held.Sub(float64(st.intake.Held()))
		s.metrics.cacheBytes.Sub(float64(st.threads.Weight()))
	}
}

// Apply implements kafka.Sink. It may be called again with the same batch after any failure: the tokens are the same.
func (s *Sink) Apply(ctx context.Context, b kafka.Batch) error {
	st := s.state(b.Slot)
	if st == nil {
		return kafka.Permanent(fmt.Errorf("history: slot %d is not open", b.Slot))
	}
	before := st.threads.Weight()
	defer func() { s.metrics.cacheBytes.Add(float64(st.threads.Weight() - before)) }()

	sorted, w, err := s.fold(ctx, st, b)
	if err != nil {
		return err
	}
	if err := s.write(ctx, b, sorted.LogTimes, w); err != nil {
		st.forget(w)
		return classify(fmt.Errorf("history: write slot %d: %w", b.Slot, err))
	}

	held := st.intake.Held()
	st.intake.Commit(sorted)
	s.metrics.held.Add(float64(st.intake.Held() - held))
	for t, state := range w.states {
		st.threads.Put(t, state)
	}
	for o, n := range w.outcomes {
		s.metrics.events.WithLabelValues(string(o.topic), o.outcome).Add(float64(n))
	}
	for _, q := range sorted.Quarantined {
		kind := "first"
		if q.Reason == projector.Parked {
			kind = "parked"
		}
		s.metrics.quarantined.WithLabelValues(string(q.Topic), kind).Inc()
		if kind == "parked" {
			continue
		}
		s.log.Error(
			"event put into quarantine, its subject is parked from here on", "topic", q.Topic, "slot", q.Slot,
			"position", q.Position, "subject", id.ThreadID(q.Subject), "reason", q.Reason,
		)
		if s.cfg.Report != nil {
			s.cfg.Report(s.cfg.Consumer.View, q)
		}
	}
	return nil
}

// fold folds a batch in memory.
func (s *Sink) fold(ctx context.Context, st *slotState, b kafka.Batch) (projector.Sorted, *writes, error) {
	for {
		sorted := st.intake.Sort(b)
		w := &writes{
			states:      map[id.ThreadID]*thread.State{},
			outcomes:    map[outcome]int{},
			quarantined: sorted.Quarantined,
		}
		if err := s.load(ctx, st, b, sorted.Events, w); err != nil {
			return sorted, w, classify(fmt.Errorf("history: load states of slot %d: %w", b.Slot, err))
		}
		err := st.intake.Fold(sorted, w.fold)
		if err == nil {
			return sorted, w, nil
		}
		st.forget(w)
		s.metrics.panics.Inc()
		s.log.Error(
			"the fold panicked, the event goes into quarantine", "slot", b.Slot, "err", err, "stack",
			projector.Stack(err),
		)
	}
}

// forget drops the states that a batch has changed without being stored.
func (st *slotState) forget(w *writes) {
	for t := range w.states {
		st.threads.Drop(t)
	}
}

// weigh estimates a state's size in bytes.
func weigh(s *thread.State) int { return 600 + 150*len(s.Members) + 130*len(s.Recent) }

// classify tells the consumer loop what kind of error it is.
func classify(err error) error {
	if clickhouse.Transient(err) {
		return err
	}
	return kafka.Permanent(err)
}
