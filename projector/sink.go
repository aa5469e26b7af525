package projector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/budget"
	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Config of a Sink.
type Config struct {
	// Kind of view: it names the metrics (helio_KIND_…) and begins the errors. A closed set.
	Kind string
	// View is the name in logs and reports.
	View string
	// Partitions returns P, or 0 while it is unknown; events are then not looked at for being in the wrong slot.
	Partitions func() int
	// Log brings records again, to drain what quarantine holds for a newer version. nil: nothing is drained.
	Log Log
	// CacheBytes bounds the thread states kept per slot, by estimate; user states get a quarter of it on top. 0 keeps
	// none. All slots together keep no more than the budget has for caches.
	CacheBytes int
	// Budget is the memory that batches in hand count against: what would not fit waits its turn. nil: no limit.
	Budget *budget.Budget
	// Timeout bounds an Apply once it has its turn; it then counts as a transient failure. 0: the store's own bounds.
	Timeout time.Duration
	// Report is told of each event that could not be applied, after it is stored, and not of those behind it; once more
	// when an operator has had it tried again in vain. It must not block. nil: nobody is told.
	Report func(view string, q Quarantined)
}

// Log brings records of the log again.
type Log interface {
	// Records yields the records of a topic of a slot at positions from <= p < to, in order, as far as the log has
	// them. What comes with an error is the last and no record: the error is kafka.ErrPositions when the log ends
	// before to, else it is transient.
	Records(
		ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position,
	) iter.Seq2[kafka.Record, error]
}

// Sink is a kafka.Sink, a kafka.Pender and a kafka.Marker over a Store: it owns what it knows of each slot, sorts
// batches into events and quarantine, folds them and has the store write them.
type Sink[R Rows] struct {
	// Fixed before the first Open.
	cfg     Config
	store   Store[R]
	log     *slog.Logger
	metrics *metrics
	folded  func(*eventv1.Event) // nil but in tests
	decode  func(raw []byte) (*event.Event, error)
	// see the constants of these names
	drainRows, drainBytes int

	mu    sync.Mutex // guards what follows and the latest fields of the values of slots
	slots map[topic.Slot]*slotState
	// by slot: subjects whose first event in quarantine was seen to be one that this version does not know, and where
	waiting  map[topic.Slot]map[Held]topic.Position
	releases map[topic.Slot]kafka.Releases
	retried  map[Held]int64 // where the decisions lie by which subjects were tried again
}

// slotState is what the sink knows of an owned slot; all but latest belongs to the slot's goroutine.
type slotState struct {
	intake  *Intake
	threads *Cache[id.ThreadID, *thread.State]
	users   *Cache[id.UserID, *user.State]
	pending kafka.Positions
	marks   kafka.Marks
	// states are wanted as of the first event of each subject, not as of the batch's beginning
	apart bool

	latest map[topic.Topic]int64 // guarded by Sink.mu
}

func (st *slotState) weight() int { return st.threads.Weight() + st.users.Weight() }

// NewSink returns a sink over a store. A nil log is silent.
func NewSink[R Rows](cfg Config, store Store[R], log *slog.Logger, reg prometheus.Registerer) *Sink[R] {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Sink[R]{
		cfg: cfg, store: store, log: log.With("view", cfg.View), metrics: newMetrics(reg, cfg.Kind),
		decode: event.Decode, drainRows: drainRows, drainBytes: drainBytes,
		slots: make(map[topic.Slot]*slotState), waiting: make(map[topic.Slot]map[Held]topic.Position),
		releases: make(map[topic.Slot]kafka.Releases), retried: make(map[Held]int64),
	}
}

// OnFold is for tests, before the first Open: fn is called after each event of a thread that this sink has folded, and
// may panic as a broken fold would, when the state has changed and there are no rows yet.
func (s *Sink[R]) OnFold(fn func(*eventv1.Event)) { s.folded = fn }

// Released implements kafka.Releasable.
func (s *Sink[R]) Released(slot topic.Slot, r kafka.Releases) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases[slot] = r
}

// Open implements kafka.Sink. What the slot has in quarantine for a version like this one, and what operators have
// released, is drained first.
func (s *Sink[R]) Open(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	stored, err := s.store.Read(ctx, slot)
	if err != nil {
		return nil, s.damaged(fmt.Errorf("%s: open slot %d: %w", s.cfg.Kind, slot, err))
	}
	dropped, err := s.drop(ctx, slot, stored)
	if err == nil && dropped {
		stored, err = s.store.Read(ctx, slot)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: drop from quarantine of slot %d: %w", s.cfg.Kind, slot, err)
	}
	drained, err := s.drain(ctx, slot, stored)
	if err == nil && drained {
		stored, err = s.store.Read(ctx, slot)
	}
	if err != nil {
		return nil, s.damaged(fmt.Errorf("%s: drain quarantine of slot %d: %w", s.cfg.Kind, slot, err))
	}
	st := s.newState(stored.Held)
	st.pending, st.marks = stored.Pending, stored.Marks
	s.mu.Lock()
	raise(st.latest, stored.Latest)
	s.slots[slot] = st
	s.mu.Unlock()
	s.metrics.hold(st.intake, 1)
	return stored.Next, nil
}

// damaged names a store that is damaged; any other failure of an Open passes by itself and stays what it is.
func (s *Sink[R]) damaged(err error) error {
	var d *DamagedError
	if told := s.store.Classify(err); errors.As(told, &d) {
		return told
	}
	return err
}

func (s *Sink[R]) newState(held []HeldRange) *slotState {
	st := &slotState{
		intake:  NewIntake(s.cfg.Partitions(), held),
		threads: NewCache[id.ThreadID](s.cfg.CacheBytes, weighThread),
		users:   NewCache[id.UserID](s.cfg.CacheBytes/4, weighUser),
		latest:  make(map[topic.Topic]int64),
	}
	st.intake.decode = s.decode
	return st
}

// Pending implements kafka.Pender.
func (s *Sink[R]) Pending(_ context.Context, slot topic.Slot) (kafka.Positions, error) {
	if st := s.slot(slot); st != nil {
		return st.pending, nil
	}
	return nil, nil
}

// Marks implements kafka.Marker: those that the store had when the slot was opened.
func (s *Sink[R]) Marks(_ context.Context, slot topic.Slot) (kafka.Marks, error) {
	if st := s.slot(slot); st != nil {
		return st.marks, nil
	}
	return nil, nil
}

func (s *Sink[R]) slot(n topic.Slot) *slotState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[n]
}

// Latest returns the highest stored log time of a topic in each open slot that has one, Unix milliseconds. Any
// goroutine may call it.
func (s *Sink[R]) Latest(t topic.Topic) map[topic.Slot]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[topic.Slot]int64, len(s.slots))
	for n, st := range s.slots {
		if ms, ok := st.latest[t]; ok {
			out[n] = ms
		}
	}
	return out
}

// Close implements kafka.Sink.
func (s *Sink[R]) Close(slot topic.Slot, _ bool) {
	s.mu.Lock()
	st := s.slots[slot]
	delete(s.slots, slot)
	s.mu.Unlock()
	if st != nil {
		s.metrics.hold(st.intake, -1)
		s.metrics.cacheBytes.Sub(float64(st.weight()))
	}
}

// Apply implements kafka.Sink. It may be called again with the same batch after any failure.
func (s *Sink[R]) Apply(ctx context.Context, b kafka.Batch) error {
	st := s.slot(b.Slot)
	if st == nil {
		return kafka.Permanent(fmt.Errorf("%s: slot %d is not open", s.cfg.Kind, b.Slot))
	}
	done, err := s.cfg.Budget.Work(ctx, weigh(b))
	if err != nil {
		return err
	}
	defer done()
	if s.cfg.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		ctx = limited
	}
	before := st.weight()
	defer func() { s.metrics.cacheBytes.Add(float64(st.weight() - before)) }()

	sorted, p, err := s.fold(ctx, st, b)
	if err != nil {
		return err
	}
	err = s.store.Write(ctx, &Folded[R]{
		Batch: b, LogTimes: sorted.LogTimes, States: p.states, Rows: p.rows, Quarantined: sorted.Quarantined,
	})
	if err != nil {
		st.forget(p.states)
		return s.store.Classify(fmt.Errorf("%s: write slot %d: %w", s.cfg.Kind, b.Slot, err))
	}

	st.intake.Commit(sorted)
	for _, f := range sorted.fresh {
		s.metrics.held.WithLabelValues(f.code).Inc()
	}
	st.keep(p.states, s.cacheBytes())
	s.mu.Lock()
	raise(st.latest, sorted.LogTimes)
	s.mu.Unlock()
	s.metrics.count(p.outcomes)
	s.tell(sorted.Quarantined)
	return nil
}

// fold folds a batch in memory.
func (s *Sink[R]) fold(ctx context.Context, st *slotState, b kafka.Batch) (Sorted, *pass[R], error) {
	for {
		sorted := st.intake.Sort(b)
		states, wanted := st.recall(sorted.Events)
		wanted.Slot, wanted.From = b.Slot, b.From
		if st.apart {
			wanted.Since = firsts(sorted.Events)
		}
		if err := s.store.Load(ctx, states, wanted); err != nil {
			err = fmt.Errorf("%s: load states of slot %d: %w", s.cfg.Kind, b.Slot, err)
			return sorted, nil, s.store.Classify(err)
		}
		p := &pass[R]{states: states, rows: s.store.Rows(b.Slot, states), outcomes: map[outcome]int{}, folded: s.folded}
		err := st.intake.Fold(sorted, p.fold)
		if err == nil {
			return sorted, p, nil
		}
		st.forget(states)
		s.metrics.panics.Inc()
		s.log.Error("the fold panicked, the event goes into quarantine",
			"slot", b.Slot, "err", err, "stack", Stack(err))
	}
}

// tell counts, logs and reports what went into quarantine.
func (s *Sink[R]) tell(qs []Quarantined) {
	for _, q := range qs {
		kind := kindFirst
		if q.Reason == Parked {
			kind = kindParked
		}
		s.metrics.quarantined.WithLabelValues(string(q.Topic), kind).Inc()
		if kind == kindParked {
			continue
		}
		s.log.Error("event put into quarantine, its subject is parked from here on",
			"topic", q.Topic, "slot", q.Slot, "position", q.Position,
			"subject", id.ThreadID(q.Subject), "reason", q.Reason)
		if s.cfg.Report != nil {
			s.cfg.Report(s.cfg.View, q)
		}
	}
}

// firsts are the positions of the first event of each subject.
func firsts(events []Event) map[topic.Subject]topic.Position {
	out := map[topic.Subject]topic.Position{}
	for i := range events {
		if _, ok := out[events[i].Subject]; !ok {
			out[events[i].Subject] = events[i].Position
		}
	}
	return out
}

// recall takes the states that events need from the caches, and says which are in none.
func (st *slotState) recall(events []Event) (*States, Wanted) {
	states := &States{Threads: map[id.ThreadID]*thread.State{}, Users: map[id.UserID]*user.State{}}
	w := Wanted{Events: events}
	for i := range events {
		switch e := &events[i]; e.Topic {
		case topic.Threads:
			recall(st.threads, id.ThreadID(e.Subject), states.Threads, &w.Threads)
		case topic.Users:
			recall(st.users, id.UserID(e.Subject), states.Users, &w.Users)
		}
	}
	for _, t := range w.Threads {
		delete(states.Threads, t)
	}
	for _, u := range w.Users {
		delete(states.Users, u)
	}
	return states, w
}

// recall brings one state, or nil and its name as missing, once.
func recall[K comparable, V any](cache *Cache[K, V], k K, into map[K]V, missing *[]K) {
	if _, asked := into[k]; asked {
		return
	}
	v, ok := cache.Get(k)
	if !ok {
		*missing = append(*missing, k)
	}
	into[k] = v
}

// weigh estimates what a batch takes while it is folded and written, in bytes: its events, decoded, as rows and as the
// store's client has them.
func weigh(b kafka.Batch) int {
	const perRecord, copies = 2048, 4
	bytes := perRecord * len(b.Records)
	for i := range b.Records {
		bytes += copies * len(b.Records[i].Value)
	}
	return bytes
}

// cacheBytes is what each open slot may keep of threads now.
func (s *Sink[R]) cacheBytes() int {
	s.mu.Lock()
	n := len(s.slots)
	s.mu.Unlock()
	return min(s.cfg.CacheBytes, s.cfg.Budget.Cache()/max(1, n)/5*4)
}

// keep puts the states of a stored batch into the caches, which may take so many bytes of threads.
func (st *slotState) keep(states *States, bytes int) {
	st.threads.limit, st.users.limit = bytes, bytes/4
	for t, state := range states.Threads {
		st.threads.Put(t, state)
	}
	for u, state := range states.Users {
		st.users.Put(u, state)
	}
}

// forget drops the states that a batch has changed without being stored.
func (st *slotState) forget(states *States) {
	for t := range states.Threads {
		st.threads.Drop(t)
	}
	for u := range states.Users {
		st.users.Drop(u)
	}
}

// weighThread estimates a state's size in bytes.
func weighThread(s *thread.State) int {
	return 600 + 150*len(s.Members) + 90*len(s.Invited) + 130*len(s.Recent)
}

// weighUser estimates a state's size in bytes.
func weighUser(s *user.State) int {
	n := 600 + 220*len(s.Devices) + 100*len(s.Contacts) + 40*len(s.Blocked) + 60*len(s.Threads)
	for _, i := range s.Invitations {
		n += 120 + len(i.Title)
	}
	return n
}

func raise(latest, times map[topic.Topic]int64) {
	for t, ms := range times {
		if was, ok := latest[t]; !ok || ms > was {
			latest[t] = ms
		}
	}
}
