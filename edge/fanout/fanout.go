package fanout

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// History has the accepted events of all threads from their beginning.
type History interface {
	// Events returns the events of a thread at positions after < p <= upTo with a log time of at least floorMS, in
	// order, the first limit of them. It fails when the history has not got beyond upTo.
	Events(
		ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
	) ([]*wirev1.Event, error)
}

// Fanout is the users and devices that are connected to this edge. Its methods may be called from any goroutine while
// Run runs.
type Fanout struct {
	// Fixed after New.
	bounds   bounds
	replica  *replica.Replica
	history  History
	older    chan struct{} // capacity loaders: held by a query to history
	rooms    chan struct{} // capacity catchups: held while a catch-up that nobody asked for reads pages
	log      *slog.Logger
	metrics  metrics
	catchups catchupQueue

	mu     sync.Mutex // guards what follows, and changes of person.devices; no other lock is taken under it
	people map[id.UserID]*person
}

// New returns a Fanout that does nothing until Run. history has what was trimmed from the thread views.
func New(r *replica.Replica, history History, log *slog.Logger, reg prometheus.Registerer) *Fanout {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Fanout{
		bounds: defaultBounds(), replica: r, history: history, older: make(chan struct{}, loaders),
		rooms: make(chan struct{}, catchups), log: log,
		catchups: catchupQueue{wake: make(chan struct{}, 1), later: map[*device]struct{}{}},
		people:   map[id.UserID]*person{},
	}
	f.metrics = newMetrics(reg, f)
	return f
}

// Run makes the catch-ups that nobody asked for, until ctx is cancelled.
func (f *Fanout) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.runCatchups(ctx) })
	return g.Wait()
}

// OldestUndelivered is how long the device that has been so for longest has been on line and behind with a thread, or
// the oldest event has been held back. Any goroutine may call it.
func (f *Fanout) OldestUndelivered() (age time.Duration) {
	f.mu.Lock()
	people := make([]*person, 0, len(f.people))
	for _, p := range f.people {
		people = append(people, p)
	}
	f.mu.Unlock()
	for _, p := range people {
		for _, c := range p.connected() {
			c.mu.Lock()
			if len(c.pending) > 0 {
				age = max(age, time.Since(c.held))
			}
			if c.state == open && len(c.targets) > 0 {
				age = max(age, time.Since(c.behind))
			}
			c.mu.Unlock()
		}
	}
	return age
}
