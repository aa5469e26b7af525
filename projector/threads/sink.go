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
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Sink is a kafka.Sink that writes the thread views.
type Sink struct {
	// Fixed before the first Open.
	cfg        Config
	pool       *pgxpool.Pool // for what is written
	views      *views.Views
	log        *slog.Logger
	metrics    *metrics
	partitions func() int // P, or 0 while it is unknown

	mu    sync.Mutex // guards slots and the latest fields of its values
	slots map[topic.Slot]*slotState
}

// slotState is what the sink knows of an owned slot. Only latest is read by other goroutines.
type slotState struct {
	slot    topic.Slot
	intake  *projector.Intake
	threads *projector.Cache[id.ThreadID, *thread.State]
	users   *projector.Cache[id.UserID, *user.State]

	latest  int64 // the highest log time of helio.threads that is stored, Unix milliseconds; guarded by Sink.mu
	trimmed int64 // the cutoff up to which the tail is known to be trimmed; the trim loop's
}

// NewSink returns a sink over a pool whose search_path names the schema of the views. Projector is the usual way to run
// one; a replay or a rebuild uses it with kafka.Replay.
func NewSink(cfg Config, pool *pgxpool.Pool, log *slog.Logger, reg prometheus.Registerer) *Sink {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults(log, reg)
	n := cfg.Consumer.Partitions
	return &Sink{
		cfg: cfg, pool: pool, views: views.New(pool), log: log.With("view", cfg.Consumer.View),
		metrics:    newMetrics(reg),
		partitions: func() int { return n },
		slots:      make(map[topic.Slot]*slotState),
	}
}

// Open implements kafka.Sink.
func (s *Sink) Open(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	next, latest, held, err := s.readSlot(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("threads: open slot %d: %w", slot, err)
	}
	st := &slotState{
		slot:    slot,
		intake:  projector.NewIntake(s.partitions(), held),
		threads: projector.NewCache[id.ThreadID](s.cfg.CacheBytes, weighThread),
		users:   projector.NewCache[id.UserID](s.cfg.CacheBytes/4, weighUser),
		latest:  latest,
	}
	s.mu.Lock()
	s.slots[slot] = st
	s.mu.Unlock()
	s.metrics.held.Add(float64(len(held)))
	return next, nil
}

// Stored implements kafka.Checker: commits do not wait for the disk, so a crash of the database may take the last of
// them back.
func (s *Sink) Stored(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	next, _, _, err := s.readSlot(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("threads: positions of slot %d: %w", slot, err)
	}
	return next, nil
}

// Close implements kafka.Sink.
func (s *Sink) Close(slot topic.Slot, _ bool) {
	s.mu.Lock()
	st := s.slots[slot]
	delete(s.slots, slot)
	s.mu.Unlock()
	if st != nil {
		s.metrics.held.Sub(float64(st.intake.Held()))
		s.metrics.cacheBytes.Sub(float64(st.threads.Weight() + st.users.Weight()))
	}
}

// Apply implements kafka.Sink.
func (s *Sink) Apply(ctx context.Context, b kafka.Batch) error {
	s.mu.Lock()
	st := s.slots[b.Slot]
	s.mu.Unlock()
	if st == nil {
		return kafka.Permanent(fmt.Errorf("threads: slot %d is not open", b.Slot))
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	before := st.threads.Weight() + st.users.Weight()
	defer func() { s.metrics.cacheBytes.Add(float64(st.threads.Weight() + st.users.Weight() - before)) }()

	sorted, w, err := s.fold(ctx, st, b)
	if err != nil {
		return err
	}
	if err := s.write(ctx, b, sorted.LogTimes, w); err != nil {
		st.forget(w)
		return classify(fmt.Errorf("threads: write slot %d: %w", b.Slot, err))
	}

	held := st.intake.Held()
	st.intake.Commit(sorted)
	s.metrics.held.Add(float64(st.intake.Held() - held))
	st.keep(w)
	if ms, ok := sorted.LogTimes[topic.Threads]; ok {
		s.mu.Lock()
		st.latest = max(st.latest, ms)
		s.mu.Unlock()
	}
	for o, n := range w.outcomes {
		s.metrics.events.WithLabelValues(string(o.topic), o.outcome).Add(float64(n))
	}
	s.tell(sorted.Quarantined)
	return nil
}

// fold folds a batch in memory.
func (s *Sink) fold(ctx context.Context, st *slotState, b kafka.Batch) (projector.Sorted, *writes, error) {
	for {
		sorted := st.intake.Sort(b)
		w := newWrites(b.Slot)
		if err := s.load(ctx, st, b, sorted.Events, w); err != nil {
			return sorted, w, classify(fmt.Errorf("threads: load states of slot %d: %w", b.Slot, err))
		}
		w.quarantined = sorted.Quarantined
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

// tell counts, logs and reports what went into quarantine.
func (s *Sink) tell(qs []projector.Quarantined) {
	for _, q := range qs {
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
}

// keep puts the states of a stored batch into the caches.
func (st *slotState) keep(w *writes) {
	for t, state := range w.threadStates {
		st.threads.Put(t, state)
	}
	for u, state := range w.userStates {
		st.users.Put(u, state)
	}
}

// forget drops the states that a failed batch has changed.
func (st *slotState) forget(w *writes) {
	for t := range w.threadStates {
		st.threads.Drop(t)
	}
	for u := range w.userStates {
		st.users.Drop(u)
	}
}

// weighThread estimates a state's size in bytes.
func weighThread(s *thread.State) int { return 600 + 150*len(s.Members) + 130*len(s.Recent) }

// weighUser estimates a state's size in bytes.
func weighUser(s *user.State) int {
	return 600 + 220*len(s.Devices) + 100*len(s.Contacts) + 40*len(s.Blocked) + 60*len(s.Threads)
}

// fencedCode is raised by the SQL function advance_position.
const fencedCode = "HE409"

// classify tells the consumer loop what kind of error it is.
func classify(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == fencedCode:
		return fmt.Errorf("%w: %w", kafka.ErrFenced, err)
	case postgres.Transient(err):
		return err
	}
	return kafka.Permanent(err)
}
