package hub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/link"
	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Hub is the edge's side of delivery. Its methods may be called from any goroutine while Run runs.
type Hub struct {
	// Fixed after New.
	cfg      Config
	store    store
	history  History
	older    chan struct{} // capacity Config.Loaders: held by a query to history
	dir      link.Directory
	dialer   link.Dialer
	log      *slog.Logger
	metrics  metrics
	slots    []*slot
	views    *viewClock
	loads    loadQueue
	catchups catchupQueue
	cursors  *batcher[deviceThread, topic.Position]
	tails    *batcher[tailRange, tail]
	devices  *batcher[userDevice, *user.Device]
	requests atomic.Uint64 // the last id of a Subscribe

	linkMu  sync.Mutex // guards what follows, and conn.owned; taken outside slots' locks
	conns   map[*conn]bool
	backoff map[string]time.Duration // by instance

	sampleMu  sync.Mutex // guards what follows; taken outside slots' locks
	sampled   slotSample
	sampledAt time.Time
}

// New returns a Hub that does nothing until Run. The pool's search_path has the schema of the thread views; history has
// what was trimmed from them.
func New(
	cfg Config, pool *pgxpool.Pool, history History, dir link.Directory, dialer link.Dialer, log *slog.Logger,
	reg prometheus.Registerer,
) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	asked := &postgresStore{views: views.New(pool), partitions: cfg.Partitions}
	return newHub(cfg, asked, history, dir, dialer, log, reg), nil
}

func newHub(
	cfg Config, st store, history History, dir link.Directory, dialer link.Dialer, log *slog.Logger,
	reg prometheus.Registerer,
) *Hub {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		cfg: cfg, store: st, history: history, older: make(chan struct{}, cfg.Loaders), dir: dir, dialer: dialer,
		log:   log,
		loads: loadQueue{wake: make(chan struct{}, 1)}, catchups: catchupQueue{wake: make(chan struct{}, 1)},
		conns: map[*conn]bool{}, backoff: map[string]time.Duration{},
	}
	for n := range cfg.Partitions {
		h.slots = append(h.slots, newSlot(topic.Slot(n)))
	}
	h.metrics = newMetrics(reg, h)
	h.views = newViewClock(st, cfg.Partitions, cfg, h.failed, h.metrics.viewsBack.Inc)
	h.cursors = newBatcher(4*cfg.Batch, cfg.Gather, cfg.Wait, counted(h, "cursors", st.cursors))
	h.tails = newBatcher(16, 0, cfg.Wait, counted(h, "tails", h.readTails))
	h.devices = newBatcher(cfg.Batch, cfg.Gather, cfg.Wait, counted(h, "devices", st.devices))
	return h
}

func counted[K, V any](
	h *Hub, op string, load func(context.Context, []K) ([]V, error),
) func(context.Context, []K) ([]V, error) {
	return func(ctx context.Context, keys []K) ([]V, error) {
		vals, err := load(ctx, keys)
		if err == nil && len(vals) != len(keys) {
			err = fmt.Errorf("%d answers to %d keys", len(vals), len(keys))
		}
		if err != nil {
			h.failed(op, err)
		}
		return vals, err
	}
}

// failed notes that the store or the history failed; what failed is tried again, or refused with CODE_UNAVAILABLE.
func (h *Hub) failed(op string, err error) {
	h.metrics.errors.WithLabelValues(op).Inc()
	h.log.Warn("a view did not answer", "operation", op, "err", err)
}

// Run keeps links, subscriptions and snapshots until ctx is cancelled.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.runLinks(ctx) })
	g.Go(func() error { return h.runLoads(ctx) })
	g.Go(func() error { return h.runCatchups(ctx) })
	g.Go(func() error { return h.views.run(ctx) })
	g.Go(func() error { return h.keepHouse(ctx) })
	g.Go(func() error { return h.watchDeaf(ctx) })
	for range h.cfg.Loaders {
		g.Go(func() error { return h.cursors.run(ctx) })
		g.Go(func() error { return h.tails.run(ctx) })
		g.Go(func() error { return h.devices.run(ctx) })
	}
	return g.Wait()
}

// Ready tells whether every slot has a delivery instance; the error names those that have none. Fit for a readiness
// check.
func (h *Hub) Ready(context.Context) error {
	var none []topic.Slot
	for _, s := range h.slots {
		s.mu.RLock()
		if s.owner == nil {
			none = append(none, s.n)
		}
		s.mu.RUnlock()
	}
	if len(none) > 0 {
		return fmt.Errorf("hub: no delivery instance for slots %v", none)
	}
	return nil
}

func (h *Hub) slotOf(s topic.Subject) *slot { return h.slots[topic.SlotOf(s, len(h.slots))] }

// keepHouse ends subscriptions that nobody has been interested in for Linger, and asks again for subjects that were
// parked.
func (h *Hub) keepHouse(ctx context.Context) error {
	every := min(h.cfg.Linger/4, 100*time.Millisecond)
	done := func() {}
	defer func() { done() }()
	for sleep(ctx, max(every, time.Millisecond)) {
		answered, parked := h.views.answered(), false
		for _, s := range h.slots {
			var after actions
			s.mu.Lock()
			s.parked = slices.DeleteFunc(s.parked, func(sub *subject) bool {
				if sub.gone {
					return true
				}
				if answered <= sub.parkedAt+1 { // the first answer may be of a question from before
					return false
				}
				s.ask(sub)
				return true
			})
			parked = parked || len(s.parked) > 0
			for sub, since := range s.idle {
				if time.Since(since) >= h.cfg.Linger {
					s.remove(sub)
					if sub.user != nil {
						after.add(func() { h.forget(sub.user) })
					}
				}
			}
			s.mu.Unlock()
			after.run()
		}
		next := func() {}
		if parked {
			next = h.views.want()
		}
		done()
		done = next
	}
	return nil
}

// forget takes a user who has no sessions any more out of his threads.
func (h *Hub) forget(u *userSub) {
	u.mu.Lock()
	u.dead = true
	threads := u.threads
	u.threads = nil
	u.mu.Unlock()
	for _, t := range threads {
		s := t.slot
		s.mu.Lock()
		for i, l := range t.locals {
			if l == u {
				last := len(t.locals) - 1
				t.locals[i], t.locals[last] = t.locals[last], nil
				t.locals = t.locals[:last]
				break
			}
		}
		s.idleSince(&t.subject, len(t.locals) == 0)
		s.mu.Unlock()
	}
}

// ThreadView is a thread as this edge knows it. The fields are copied; the methods read the state as it is when they
// are called. The zero value is a thread without members.
type ThreadView struct {
	ID            id.ThreadID
	Kind          thread.Kind // None: no event has begun the thread
	Title         string
	ActiveMembers int
	LastPosition  topic.Position
	LastOrdinal   int64
	// Next is how far this edge has read: the thread has no event before it that is not in here.
	Next topic.Position
	// Parked: an event could not be applied, so the thread is as it was before that event and takes nothing more.
	Parked bool

	sub *threadSub
}

// View returns a thread as this edge knows it; false when the thread is not live here. No I/O.
func (h *Hub) View(t id.ThreadID) (ThreadView, bool) {
	s := h.slotOf(topic.Subject(t))
	s.mu.RLock()
	defer s.mu.RUnlock()
	ts := s.threads[t]
	if ts == nil || ts.state == nil {
		return ThreadView{}, false
	}
	next := ts.state.Next
	if ts.phase == live && s.known {
		next = max(next, s.cursor.At(topic.Threads))
	}
	return ThreadView{
		ID: t, Kind: ts.state.Kind, Title: ts.state.Title, ActiveMembers: ts.state.ActiveMembers(),
		LastPosition: ts.state.LastPosition, LastOrdinal: ts.state.LastOrdinal, Next: next,
		Parked: ts.isPoisoned(topic.Threads), sub: ts,
	}, true
}

// usable returns a thread whose state is current. The caller holds the slot's lock.
func (s *slot) usable(t id.ThreadID) *threadSub {
	ts := s.threads[t]
	if ts == nil || ts.state == nil || ts.isPoisoned(topic.Threads) {
		return nil
	}
	return ts
}

// isPoisoned tells whether the subject's events of a topic are dropped. The caller holds the slot's lock.
func (sub *subject) isPoisoned(t topic.Topic) bool { return sub.poisoned&(1<<t.Number()) != 0 }

// IsMember tells whether the user is a member now.
func (v ThreadView) IsMember(u id.UserID) bool { return v.Role(u) != 0 }

// Role returns the user's role; 0 when he is not a member now.
func (v ThreadView) Role(u id.UserID) thread.Role {
	if v.sub == nil {
		return 0
	}
	v.sub.slot.mu.RLock()
	defer v.sub.slot.mu.RUnlock()
	if m := v.sub.state.Members[u]; m.Active() {
		return m.Role
	}
	return 0
}

// WasMember tells whether the user is a member now or was one: he may still acknowledge what he has seen.
func (v ThreadView) WasMember(u id.UserID) bool {
	if v.sub == nil {
		return false
	}
	v.sub.slot.mu.RLock()
	defer v.sub.slot.mu.RUnlock()
	return v.sub.state.Members[u] != nil
}

// Members returns the members now, in no order.
func (v ThreadView) Members() []id.UserID {
	if v.sub == nil {
		return nil
	}
	v.sub.slot.mu.RLock()
	defer v.sub.slot.mu.RUnlock()
	out := make([]id.UserID, 0, v.sub.state.ActiveMembers())
	for u, m := range v.sub.state.Members {
		if m.Active() {
			out = append(out, u)
		}
	}
	return out
}

// Seen tells whether the thread accepted this message before, and where. No I/O.
func (h *Hub) Seen(t id.ThreadID, key thread.Key) (thread.Seen, bool) {
	s := h.slotOf(topic.Subject(t))
	s.mu.RLock()
	defer s.mu.RUnlock()
	ts := s.usable(t)
	if ts == nil {
		return thread.Seen{}, false
	}
	seen, ok := ts.state.Recent[key]
	return seen, ok
}

// Watermark returns the highest watermark of a user's devices in a thread that is live here. No I/O.
func (h *Hub) Watermark(t id.ThreadID, u id.UserID) thread.Watermark {
	s := h.slotOf(topic.Subject(t))
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ts := s.threads[t]; ts != nil && ts.state != nil {
		return ts.state.watermarks[u]
	}
	return thread.Watermark{}
}

// Cursor tells how far this edge has read each topic of a slot: every event before it was seen here, as far as its
// subject is of interest. ok is false until a delivery instance has said so.
func (h *Hub) Cursor(n topic.Slot) (at topic.Cursor, ok bool) {
	if n < 0 || int(n) >= len(h.slots) {
		return topic.Cursor{}, false
	}
	s := h.slots[n]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cursor, s.known
}

// WaitFor returns once this edge has read past a position of a folded topic of a slot: what is there, and before it,
// has been taken in as far as its subject is live here. It costs nothing while it waits, and fails with ctx.
func (h *Hub) WaitFor(ctx context.Context, n topic.Slot, t topic.Topic, p topic.Position) error {
	s, err := h.slotNumber(int32(n))
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		if s.known && s.cursor.At(t) > p {
			s.mu.Unlock()
			return nil
		}
		if s.further == nil {
			s.further = make(chan struct{})
		}
		further := s.further
		s.mu.Unlock()
		select {
		case <-further:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
