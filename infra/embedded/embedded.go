package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/embedded/chdb"
	"heliograph/infra/embedded/engine"
	"heliograph/infra/embedded/pg"
	"heliograph/infra/run"
)

// anyPort is the address of an engine for which none was given.
const anyPort = "127.0.0.1:0"

// Options is what Start needs to know. The zero value runs all engines with data under .helio.
type Options struct {
	// Dir holds one data directory per engine; default .helio.
	Dir string
	// EnginesDir is where 'make engines' put the programs and libraries; default .helio/engines.
	EnginesDir string
	// Executable is the program to run as children; default: this one.
	Executable string
	// KafkaListen, PostgresListen and ClickHouseListen are the engines' addresses; default 127.0.0.1:0, which picks a
	// free port.
	KafkaListen, PostgresListen, ClickHouseListen string
	// SyncWrites makes PostgreSQL's commits wait for the disk (but for those that choose not to, as the views' do: the
	// log has their rows) and ClickHouse's INSERTs. The log's acknowledgements do anyway.
	SyncWrites bool
	// NoSync makes the log acknowledge before the disk has it.
	NoSync bool
	// Kinds are the engines to start; default: all.
	Kinds []Kind
	// Logger takes the children's logs, with the key engine; default: none.
	Logger *slog.Logger
	// Registerer takes the metrics; default: none.
	Registerer prometheus.Registerer
}

const (
	startTimeout = 90 * time.Second // an engine may take to get ready
	stopTimeout  = 20 * time.Second // an engine may take to end before it is killed
)

// Validate reports all that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	for _, k := range o.Kinds {
		if !slices.Contains(engine.Kinds, k) {
			errs = append(errs, fmt.Errorf("unknown engine %q", k))
		}
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() (Options, error) {
	var err error
	run.Default(&o.Dir, ".helio")
	run.Default(&o.EnginesDir, filepath.Join(".helio", "engines"))
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return o, fmt.Errorf("find this program: %w", err)
		}
	}
	if o.Kinds == nil {
		o.Kinds = engine.Kinds
	}
	run.Default(&o.Logger, slog.New(slog.DiscardHandler))
	for _, dir := range []*string{&o.Dir, &o.EnginesDir, &o.Executable} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return o, fmt.Errorf("resolve %s: %w", *dir, err)
		}
	}
	return o, nil
}

func (o Options) listen(kind Kind) string {
	addr := map[Kind]string{Kafka: o.KafkaListen, Postgres: o.PostgresListen, ClickHouse: o.ClickHouseListen}[kind]
	if addr == "" {
		return anyPort
	}
	return addr
}

func (o Options) data(kind Kind) string { return filepath.Join(o.Dir, string(kind)) }

// PostgresUser is the user that PostgreSQL runs as where that is another than this process's, which is then root; else
// it is empty.
func PostgresUser() string { return pg.RunsAs() }

// Engines is the running engines. Its methods may be called from any goroutine.
type Engines struct {
	// KafkaAddr is the host and port of the log's only broker. This and the next two are fixed after Start, and empty
	// for an engine that was not asked for.
	KafkaAddr string
	// PostgresURL is the connection URL of the database helio; it contains the password.
	PostgresURL string
	// ClickHouseAddr is the host and port of ClickHouse's HTTP interface.
	ClickHouseAddr string
	// ClickHousePassword is that of the user default, who may do what our roles do, and ClickHouseReader that of the
	// user reader, who only asks, within limits.
	ClickHousePassword, ClickHouseReader string

	// fixed after Start
	opts    Options
	metrics *metrics
	turn    map[Kind]chan struct{} // room for one: who may start or end the engine
	failed  chan error             // room for one per engine
	stopped chan struct{}          // closed by Stop

	// guarded by mu
	mu       sync.Mutex
	children map[Kind]*child
	closed   bool
}

// Start starts the engines and waits until all are ready. If one does not get ready, the others are stopped and its
// error, an *Error, is returned. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Engines, error) {
	if os.Getenv(childEnv) != "" {
		return nil, errors.New("an engine's process cannot start engines: call embedded.EngineMain first in TestMain")
	}
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("embedded engines: %w", err)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("embedded engines: %w", err)
	}
	e := &Engines{
		opts:     opts,
		metrics:  newMetrics(opts.Registerer),
		turn:     make(map[Kind]chan struct{}),
		failed:   make(chan error, len(engine.Kinds)),
		stopped:  make(chan struct{}),
		children: make(map[Kind]*child),
	}
	for _, k := range opts.Kinds {
		e.turn[k] = make(chan struct{}, 1)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(opts.Kinds))
	for _, k := range opts.Kinds {
		go func() {
			err := e.start(ctx, k, opts.listen(k))
			if err != nil {
				cancel()
			}
			errs <- err
		}()
	}
	var first error
	for range opts.Kinds {
		err := <-errs
		// The first to fail cancels the others, whose errors then say nothing.
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	if first == nil {
		first = e.addresses()
	}
	if first != nil {
		return nil, errors.Join(first, e.Stop())
	}
	return e, nil
}

func (e *Engines) addresses() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for kind, c := range e.children {
		switch kind {
		case Kafka:
			e.KafkaAddr = c.addr
		case ClickHouse:
			who, err := chdb.ReadAccounts(e.opts.data(kind))
			if err != nil {
				return err
			}
			e.ClickHouseAddr, e.ClickHousePassword, e.ClickHouseReader = c.addr, who.Writer, who.Reader
		case Postgres:
			url, err := pg.URL(e.opts.data(kind), c.addr)
			if err != nil {
				return err
			}
			e.PostgresURL = url
		}
	}
	return nil
}

// start starts one engine that is not running, and watches over its end.
func (e *Engines) start(ctx context.Context, kind Kind, listen string) error {
	c, err := e.spawn(ctx, kind, listen)
	if err != nil {
		return renamed(kind, err)
	}
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.children[kind] = c
	}
	e.mu.Unlock()
	if closed {
		return errors.Join(fmt.Errorf("start engine %s: %w", kind, errStopped), c.end(stopTimeout))
	}
	e.metrics.up.WithLabelValues(string(kind)).Set(1)
	go func() {
		<-c.exited
		e.metrics.up.WithLabelValues(string(kind)).Set(0)
		if c.asked() {
			e.metrics.ends.WithLabelValues(string(kind), causeAsked).Inc()
			return
		}
		e.metrics.ends.WithLabelValues(string(kind), causeUnasked).Inc()
		select {
		case e.failed <- renamed(kind, c.failure("ended by itself")):
		default: // enough ends wait to be reported
		}
	}()
	return nil
}

var errStopped = errors.New("the engines have been stopped")

// renamed turns the flags of 'helio engine' in an error's mend into those of the parent, which has three listen flags.
func renamed(kind Kind, err error) error {
	var fault *Error
	if !errors.As(err, &fault) {
		return err
	}
	r := *fault
	r.Mend = strings.ReplaceAll(r.Mend, "--listen ", "--"+string(kind)+"-listen ")
	return &r
}

// Wait blocks until an engine ends without having been asked to, and returns its error; or until Stop or the end of
// ctx, and returns nil.
func (e *Engines) Wait(ctx context.Context) error {
	select {
	case err := <-e.failed:
		return err
	case <-e.stopped:
		return nil
	case <-ctx.Done():
		return nil
	}
}

// Stop ends all engines side by side and returns when they are gone. It is an error if one had to be killed.
func (e *Engines) Stop() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.stopped)
	}
	var all []*child
	for _, c := range e.children {
		all = append(all, c)
	}
	e.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { errs[i] = c.end(stopTimeout) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Pid is the process id of the engine's process, 0 if it was never started.
func (e *Engines) Pid(kind Kind) int {
	c := e.child(kind)
	if c == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// Kill sends the engine's process SIGKILL and waits for its end. It is meant for tests and drills.
func (e *Engines) Kill(kind Kind) error {
	c := e.child(kind)
	if c == nil {
		return fmt.Errorf("kill engine %s: not started", kind)
	}
	c.kill()
	return nil
}

// Restart starts the engine again on the same address with the same data, after stopping it if it still runs.
func (e *Engines) Restart(ctx context.Context, kind Kind) error {
	turn, ok := e.turn[kind]
	if !ok {
		return fmt.Errorf("restart engine %s: not started", kind)
	}
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turn }()
	c := e.child(kind)
	if c == nil {
		return fmt.Errorf("restart engine %s: not started", kind)
	}
	if err := c.end(stopTimeout); err != nil {
		return fmt.Errorf("restart engine %s: %w", kind, err)
	}
	deadline := time.Now().Add(portWait)
	for {
		err := e.start(ctx, kind, c.addr)
		if !errors.Is(err, PortInUse) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(portPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// How long Restart puts up with a port that another socket holds for a moment.
const (
	portWait = 10 * time.Second
	portPoll = 100 * time.Millisecond
)

func (e *Engines) child(kind Kind) *child {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.children[kind]
}
