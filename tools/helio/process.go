package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"heliograph/infra/admin"
	"heliograph/infra/budget"
	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	chschema "heliograph/schemas/clickhouse"
	pgschema "heliograph/schemas/postgres"
)

// process is what every role has: metrics, the admin server, the watchdog, and the group of its services.
type process struct {
	log   *slog.Logger
	reg   *prometheus.Registry
	admin *admin.Server
	dog   *run.Watchdog
	group *run.Group
	// Admin is the bound address of the admin server.
	Admin string

	certificates *run.Certificates
	budget       *budget.Budget
	// makesLog says that the log is made at the start where there is none: it is embedded here. Elsewhere 'helio init'
	// makes it.
	makesLog bool

	closers []func()
	waiting atomic.Pointer[string] // what the start waits for; nil once the services run
	views   map[string]lagging     // that are folded here; fixed once the services run
}

// newProcess opens the admin server: a taken port is told before anything else starts, and who asks hears what the
// start waits for.
func newProcess(log *slog.Logger, at adminFlags) (*process, error) {
	memory, bounded, err := budget.Memory()
	if err != nil {
		log.Warn("the bound of the memory is not known", "err", err)
	}
	budget.Apply(memory, bounded, log)
	keepHeapRoomy(growingHeap, memory)
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exportBuild(reg)
	server, err := admin.New(admin.Config{
		Addr: at.Admin, Flag: "--admin", Profiles: at.Pprof,
		Logger: log, Registerer: reg, Gatherer: reg,
	})
	if err != nil {
		return nil, err
	}
	addr, err := server.Listen()
	if err != nil {
		return nil, err
	}
	p := &process{
		log:   log,
		reg:   reg,
		admin: server,
		dog:   run.NewWatchdog(5*time.Second, 3, log, reg),
		group: run.New(log, reg),

		budget: budget.New(memory, reg),
		Admin:  addr,

		certificates: run.NewCertificates(reg),
		views:        map[string]lagging{},
	}
	p.waitFor("the start")
	server.Check("start", func(context.Context) error {
		if what := p.waiting.Load(); what != nil {
			return errors.New("waiting for " + *what)
		}
		return nil
	})
	serving, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	var failed error
	go func() {
		defer close(served)
		failed = server.Run(serving)
	}()
	p.onClose(func() { stop(); <-served })
	p.group.Go("admin", func(ctx context.Context) error {
		select {
		case <-served:
			return failed
		case <-ctx.Done():
			return nil
		}
	})
	p.group.Go("watchdog", p.dog.Run)
	log.Info("admin server listening", "admin", "http://"+addr)
	if profiles := server.Profiles(); profiles != "" {
		log.Info("profiles are served", "pprof", "http://"+profiles+"/debug/pprof/")
	}
	return p, nil
}

// waitFor says in /readyz what the start waits for.
func (p *process) waitFor(what string) { p.waiting.Store(&what) }

// count makes a watched gauge of a number that its owner tells.
func count[N int | int64](of func() N) func() float64 { return func() float64 { return float64(of()) } }

// seconds makes a watched gauge of an age that its owner tells.
func seconds(of func() time.Duration) func() float64 { return func() float64 { return of().Seconds() } }

// lagging is a consumer whose lag is watched.
type lagging interface {
	Lags() []kafka.Lag
	Unsure() time.Duration
}

// watchLag makes the watchdog sample how far a view is behind the log, at worst over slots and topics. A lag that
// nobody can tell is one. The roster tells how many of the view's slots are owned here.
func (p *process) watchLag(view, what string, c lagging, seconds float64) {
	p.views[view] = c
	p.dog.Watch(what+" lag seconds", seconds, func() float64 {
		worst := c.Unsure().Seconds()
		for _, l := range c.Lags() {
			worst = max(worst, l.Seconds)
		}
		return worst
	})
	p.dog.Watch(what+" lag records", maxLagRecords, func() float64 {
		worst := int64(0)
		for _, l := range c.Lags() {
			worst = max(worst, l.Records)
		}
		return float64(worst)
	})
}

// maxLagRecords is how many records of one slot and topic a view may be behind for long.
const maxLagRecords = 50_000

// onClose registers what is to be released after the services have ended, last in first out.
func (p *process) onClose(f func()) { p.closers = append(p.closers, f) }

// close releases everything. What does not let itself be released within a few seconds is left to the end of the
// process, and told.
func (p *process) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := len(p.closers) - 1; i >= 0; i-- {
			p.closers[i]()
		}
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		p.log.Error("shutdown timed out: not all was released within 15 s")
	}
}

// run runs the services until ctx ends or one of them fails. From the first moment of the stop /readyz says that the
// process drains: the readiness is the last service, so it is the first to stop.
func (p *process) run(ctx context.Context) error {
	defer p.close()
	p.group.Add(run.Service{
		Name:  "readiness",
		Run:   func(ctx context.Context) error { <-ctx.Done(); return nil },
		Drain: func(context.Context) error { p.admin.SetDraining(); return nil },
	})
	p.waiting.Store(nil)
	return p.group.Run(ctx)
}

// until repeats a start-up step while its failure may pass by itself, and says what it waits for, in the log and in
// /readyz.
func (p *process) until(
	ctx context.Context, what string, transient func(error) bool, step func(context.Context) error,
) error {
	var b run.Backoff
	p.waitFor(what)
	// an attempt may take long to fail
	late := time.AfterFunc(2*time.Second, func() { p.log.Warn("waiting for "+what, "err", "no answer yet") })
	defer late.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := step(attempt)
		cancel()
		if err == nil {
			p.waitFor("the start")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !transient(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		p.waitFor(fmt.Sprintf("%s: %v", what, err))
		p.log.Warn("waiting for "+what, "err", err)
		if err := b.Wait(ctx); err != nil {
			return err
		}
	}
}

// openLog holds the topics against their rules, learns P and the bases. cfg.Partitions is set to P, and cfg.Budget to
// the process's.
func (p *process) openLog(ctx context.Context, cfg *kafka.Config) (*kafka.Bases, error) {
	cfg.Budget = p.budget
	cl, err := kafka.Dial(*cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var bases *kafka.Bases
	err = p.until(ctx, "the log at "+strings.Join(cfg.Brokers, ",")+" (--kafka)", func(err error) bool {
		return !kafka.Refused(err) && !kafka.Unfit(err)
	}, func(ctx context.Context) error {
		if err := kafka.Knock(ctx, *cfg); err != nil {
			return err
		}
		open := kafka.OpenTopics
		if p.makesLog {
			open = kafka.EnsureTopics
		}
		n, err := open(ctx, cl, *cfg)
		if err != nil {
			return err
		}
		cfg.Partitions = n
		bases, err = kafka.LoadBases(ctx, cl, *cfg, topicsOfLog, n)
		return err
	})
	var pe *kafka.PartitionsError
	if errors.As(err, &pe) {
		err = fmt.Errorf("%w; without --partitions it is taken from the log", err)
	}
	return bases, mendKafka(err)
}

// mendKafka names the settings that decide whether Kafka lets us in, where it did not.
func mendKafka(err error) error {
	if !kafka.Refused(err) {
		return err
	}
	return mend(
		err, "--kafka-tls, --kafka-ca, --kafka-cert and --kafka-server-name",
		"--kafka-sasl, --kafka-user and --kafka-password",
	)
}

// watchTopics keeps an eye on the log's settings, in the roles that project it.
func (p *process) watchTopics(cfg kafka.Config) { p.group.Go("topics", kafka.NewTopicWatch(cfg).Run) }

// migratePostgres brings a schema up to date.
func (p *process) migratePostgres(ctx context.Context, url, dir, schema string) error {
	files, err := fs.Sub(pgschema.FS, dir)
	if err != nil {
		return fmt.Errorf("migrations %s: %w", dir, err)
	}
	err = p.until(ctx, "Postgres at "+postgres.Redact(url)+" (--postgres)", func(err error) bool {
		return postgres.Transient(err) && !postgres.Refused(err)
	}, func(ctx context.Context) error {
		_, err := postgres.Migrate(ctx, url, files, schema)
		return err
	})
	if postgres.Refused(err) {
		err = mend(err, "sslmode, sslrootcert and sslcert in the URL", "user and password in the URL")
	}
	return err
}

// migrateClickHouse brings the history up to date.
func (p *process) migrateClickHouse(ctx context.Context, cfg clickhouse.Config) error {
	files, err := fs.Sub(chschema.FS, "history")
	if err != nil {
		return fmt.Errorf("migrations of the history: %w", err)
	}
	err = p.until(ctx, "ClickHouse at "+strings.Join(cfg.Addr, ",")+" (--clickhouse)", func(err error) bool {
		return clickhouse.Transient(err) && !clickhouse.Refused(err)
	}, func(ctx context.Context) error {
		_, err := clickhouse.Migrate(ctx, cfg, files)
		return err
	})
	if clickhouse.Refused(err) {
		err = mend(
			err, "--clickhouse-tls, --clickhouse-ca, --clickhouse-cert and --clickhouse-server-name",
			"--clickhouse-user and --clickhouse-password",
		)
	}
	return err
}

// mend adds the settings that decide whether an engine lets us in.
func mend(err error, trust, user string) error {
	if run.Untrusted(err) {
		return fmt.Errorf("%w; see %s", err, trust)
	}
	return fmt.Errorf("%w; see %s", err, user)
}
