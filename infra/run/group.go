package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Service is one long-running part of a process.
type Service struct {
	Name string
	// Run blocks until ctx is cancelled and then returns nil; an error ends the group.
	Run func(ctx context.Context) error
	// Drain may be nil. It is called once at the stop, while Run is still going, with the rest of the deadline: refuse
	// new work, flush.
	Drain func(ctx context.Context) error
}

// Group is a list of services that start together and stop in reverse order. Add them all before Run.
type Group struct {
	// Fixed after New.
	log     *slog.Logger
	metrics metrics
	drain   time.Duration // for the whole orderly stop; 20 s
	hard    time.Duration // after every context was cancelled; 5 s

	// Fixed once Run was called.
	services []Service
}

// New returns an empty group. log and reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer) *Group {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Group{log: log, metrics: newMetrics(reg), drain: 20 * time.Second, hard: 5 * time.Second}
}

// Add appends services, in the order in which they are built: what others depend on comes first.
func (g *Group) Add(services ...Service) { g.services = append(g.services, services...) }

// Go appends a service that has nothing to drain.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	g.Add(Service{Name: name, Run: run})
}

// ErrHardStop is returned by Run when services had not returned at the end of the hard stop.
var ErrHardStop = errors.New("services did not stop")

type started struct {
	Service
	cancel context.CancelFunc
	done   chan struct{}
}

// Run starts the services, waits for ctx or for the first error, and stops them. It returns nil when ctx was cancelled
// and all stopped well.
func (g *Group) Run(ctx context.Context) error {
	if len(g.services) == 0 {
		<-ctx.Done()
		return nil
	}
	var eg errgroup.Group
	failed := make(chan struct{})
	var once sync.Once
	all := make([]*started, 0, len(g.services))
	allDone := make(chan struct{})
	for _, s := range g.services {
		Born(g.metrics.panics, []string{s.Name})
		Born(g.metrics.hardStops, []string{s.Name})
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		st := &started{Service: s, cancel: cancel, done: make(chan struct{})}
		all = append(all, st)
		eg.Go(func() error {
			defer close(st.done)
			g.metrics.running.WithLabelValues(st.Name).Set(1)
			defer g.metrics.running.WithLabelValues(st.Name).Set(0)
			err := g.protect(st.Name, func() error { return st.Run(sctx) })
			if err != nil && sctx.Err() != nil && errors.Is(err, context.Canceled) {
				err = nil
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", st.Name, err)
				once.Do(func() { close(failed) })
			}
			return err
		})
	}
	var runErr error
	go func() {
		runErr = eg.Wait()
		close(allDone)
	}()

	select {
	case <-ctx.Done():
		g.log.Info("draining", "services", len(all), "timeout", g.drain)
	case <-failed:
		g.log.Warn("service failed, draining the others")
	case <-allDone:
		return runErr
	}
	g.stop(context.WithoutCancel(ctx), all)

	hard := time.NewTimer(g.hard)
	defer hard.Stop()
	select {
	case <-allDone:
		return runErr
	case <-hard.C:
	}
	var left []string
	for _, st := range all {
		select {
		case <-st.done:
		default:
			left = append(left, st.Name)
		}
	}
	return fmt.Errorf("%w: %s", ErrHardStop, strings.Join(left, ", "))
}

// stop drains and cancels in reverse order until the deadline, then cancels all that are left.
func (g *Group) stop(ctx context.Context, all []*started) {
	ctx, cancel := context.WithTimeout(ctx, g.drain)
	defer cancel()
	for i := len(all) - 1; i >= 0; i-- {
		st := all[i]
		if st.Drain != nil && ctx.Err() == nil && !isClosed(st.done) {
			if err := g.protect(st.Name, func() error { return st.Drain(ctx) }); err != nil {
				g.log.Warn("drain failed", "service", st.Name, "err", err)
			}
		}
		st.cancel()
		select {
		case <-st.done:
		case <-ctx.Done():
			g.metrics.hardStops.WithLabelValues(st.Name).Inc()
			g.log.Warn("shutdown timed out: "+st.Name, "service", st.Name)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (g *Group) protect(name string, fn func() error) error {
	err := Protect(fn)
	var p *PanicError
	if errors.As(err, &p) {
		g.metrics.panics.WithLabelValues(name).Inc()
		g.log.Error("service panicked", "service", name, "err", p.Value, "stack", string(p.Stack))
	}
	return err
}
