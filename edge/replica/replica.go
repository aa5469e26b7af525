package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/link"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Replica is what an edge has of the log. Its methods may be called from any goroutine while Run runs.
type Replica struct {
	// Fixed after New.
	cfg       Config
	store     Store
	dir       link.Directory
	dialer    link.Dialer
	log       *slog.Logger
	metrics   metrics
	slots     []*slot
	clock     *viewClock
	loads     subjectQueue // that wait for a snapshot
	postponed subjectQueue
	lookUps   subjectQueue // threads with events that wait for the views
	silent    silentSlots
	// subjects that are stopped, until the views have got past what stopped them
	quarantined quarantined
	agenda      agenda
	links       openLinks
	delivered   *batcher[DeviceThread, topic.Position]
	unread      *batcher[Unread, Counted]
	rejected    *batcher[DeviceKey, []Rejected]
	tails       *batcher[Range, Tail]
	devices     *batcher[DeviceKey, *user.Device]
	standings   *batcher[id.UserID, standing]
	began       time.Time     // so that a time is one word
	requests    atomic.Uint64 // the last id of a Subscribe

	sampleMu  sync.Mutex // guards what follows; taken outside slots' locks
	sampled   slotSample
	sampledAt time.Time
}

// New returns a Replica that does nothing until Run.
func New(
	cfg Config, st Store, dir link.Directory, dialer link.Dialer, log *slog.Logger, reg prometheus.Registerer,
) (*Replica, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Replica{
		began: time.Now(), cfg: cfg, store: st, dir: dir, dialer: dialer, log: log,
		loads: newSubjectQueue(), postponed: newSubjectQueue(), lookUps: newSubjectQueue(),
		silent:      silentSlots{wake: make(chan struct{}, 1), slots: map[*slot]struct{}{}},
		agenda:      agenda{wake: make(chan struct{}, 1)},
		links:       openLinks{list: map[*conn]struct{}{}},
		quarantined: newQuarantined(),
	}
	for n := range cfg.Partitions {
		r.slots = append(r.slots, newSlot(topic.Slot(n), cfg.Budget))
	}
	r.metrics = newMetrics(reg, r)
	r.clock = newViewClock(st, cfg.Partitions, cfg, r.failed, r.metrics.viewsBack.Inc)
	r.delivered = newBatcher(4*cfg.Batch, gathering, cfg.Wait, counted(r, "delivered", st.Delivered))
	r.unread = newBatcher(4*cfg.Batch, gathering, cfg.Wait, counted(r, "unread", st.Unread))
	r.rejected = newBatcher(cfg.Batch, gathering, cfg.Wait, counted(r, "rejected", st.Rejected))
	r.tails = newBatcher(16, 0, cfg.Wait, counted(r, "tails", r.readTails))
	r.devices = newBatcher(cfg.Batch, gathering, cfg.Wait, counted(r, "devices", st.Devices))
	r.standings = newBatcher(cfg.Batch, gathering, cfg.Wait, counted(r, "quarantine", r.readStandings))
	return r, nil
}

func counted[K, V any](
	r *Replica, op string, load func(context.Context, []K) ([]V, error),
) func(context.Context, []K) ([]V, error) {
	return func(ctx context.Context, keys []K) ([]V, error) {
		vals, err := load(ctx, keys)
		if err == nil && len(vals) != len(keys) {
			err = fmt.Errorf("%d answers to %d keys", len(vals), len(keys))
		}
		if err != nil {
			r.failed(op, err)
		}
		return vals, err
	}
}

// failed notes that the store failed; what failed is tried again, or refused with CODE_UNAVAILABLE.
func (r *Replica) failed(op string, err error) {
	r.metrics.errors.WithLabelValues(op).Inc()
	r.log.Warn("the thread views did not answer", "operation", op, "err", err)
}

// Run keeps links, subscriptions and snapshots until ctx is cancelled.
func (r *Replica) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if !r.readDecisions(ctx) {
			return nil
		}
		return r.runLinks(ctx)
	})
	g.Go(func() error { return r.runLoads(ctx) })
	g.Go(func() error { return r.runLookUps(ctx) })
	g.Go(func() error { return r.clock.run(ctx) })
	g.Go(func() error { return r.keepHouse(ctx) })
	g.Go(func() error { return r.askSilent(ctx) })
	g.Go(func() error { return r.watchQuarantine(ctx) })
	for range loaders {
		g.Go(func() error { return r.delivered.run(ctx) })
		g.Go(func() error { return r.unread.run(ctx) })
		g.Go(func() error { return r.rejected.run(ctx) })
		g.Go(func() error { return r.tails.run(ctx) })
		g.Go(func() error { return r.devices.run(ctx) })
		g.Go(func() error { return r.standings.run(ctx) })
	}
	return g.Wait()
}

// Ready tells whether every slot has a delivery instance; the error names those that have none. Fit for a readiness
// check.
func (r *Replica) Ready(context.Context) error {
	var none []topic.Slot
	for _, s := range r.slots {
		s.mu.RLock()
		if s.owner == nil {
			none = append(none, s.n)
		}
		s.mu.RUnlock()
	}
	if len(none) > 0 {
		return fmt.Errorf("replica: no delivery instance for slots %v", none)
	}
	return nil
}

// SlotOf tells the slot of a thread.
func (r *Replica) SlotOf(t id.ThreadID) topic.Slot {
	return topic.SlotOf(topic.Subject(t), len(r.slots))
}

func (r *Replica) slotOf(s topic.Subject) *slot { return r.slots[topic.SlotOf(s, len(r.slots))] }

// Cursor tells how far this edge has read each topic of a slot: every event before it was seen here, as far as its
// subject is followed. ok is false until a delivery instance has said so.
func (r *Replica) Cursor(n topic.Slot) (at topic.Cursor, ok bool) {
	s, err := r.slotNumber(int32(n))
	if err != nil {
		return topic.Cursor{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cursor, s.known
}

// WaitFor returns once this edge has read past a position of a folded topic of a slot: what is there, and before it,
// has been taken in as far as its subject is live here. It costs nothing while it waits, and fails with ctx.
func (r *Replica) WaitFor(ctx context.Context, n topic.Slot, t topic.Topic, p topic.Position) error {
	s, err := r.slotNumber(int32(n))
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		if s.known && s.cursor.At(t) > p {
			s.mu.Unlock()
			return nil
		}
		further := waited(&s.further)
		s.mu.Unlock()
		select {
		case <-further:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Unavailable is how a store or link that does not answer is told to a client.
func Unavailable(err error) error {
	var w *wire.Error
	if errors.As(err, &w) {
		return err
	}
	return &wire.Error{
		Code:       wirev1.Code_CODE_UNAVAILABLE,
		Message:    "delivery or the views do not answer",
		RetryAfter: time.Second,
	}
}
