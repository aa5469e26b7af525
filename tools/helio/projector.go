package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/lag"
	"heliograph/infra/postgres"
	"heliograph/projector/generation"
	"heliograph/projector/history"
	"heliograph/projector/threads"
)

// projectorCmd is the process:
//
//	log ──slots by group──▶ fold ──rows and positions together──▶ Postgres (thread views) or ClickHouse (history)
type projectorCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	adminFlags
	Store          string        `help:"Which view: postgres or clickhouse." enum:"postgres,clickhouse" required:"" env:"HELIO_STORE"`
	Name           string        `help:"Name of this projector, unique within its view and stable over restarts; default: the host's." env:"HELIO_NAME"`
	Retention      time.Duration `help:"How long messages stay in Postgres; older ones are read from ClickHouse." default:"720h" env:"HELIO_RETENTION"`
	SessionTimeout time.Duration `help:"How long after its last sign of life its slots go to others." default:"15s" env:"HELIO_SESSION_TIMEOUT"`
	Generation     uint32        `name:"history-generation" help:"Generation of the history, the same for all of its projectors; a higher one than it has rebuilds it in place from the log's start." default:"1" env:"HELIO_HISTORY_GENERATION"`
	Check          bool          `help:"Build everything, then stop."`
}

// Help shows how it is used.
func (projectorCmd) Help() string {
	return `Examples:
  helio projector --store postgres --postgres 'postgres://helio:secret@db/helio'
  helio projector --store clickhouse --clickhouse ch1:9000 --clickhouse-protocol native
  helio projector --store clickhouse --history-generation 2
      (rebuilds the history; projectors of generation 1 stop writing and say so)`
}

// Run runs the projector until a signal comes.
func (c *projectorCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := checkRetention(c.Retention); err != nil {
		return err
	}
	name, err := orHost(c.Name)
	if err != nil {
		return err
	}
	log = log.With("role", "projector", "store", c.Store, "name", name)
	p, err := newProcess(log, c.adminFlags)
	if err != nil {
		return err
	}
	cfg := c.kafkaFlags.config(log, p.reg, "helio-projector-"+c.Store)
	if _, err := p.openLog(ctx, &cfg); err != nil {
		return err
	}
	p.watchTopics(cfg)
	if c.Store == "postgres" {
		err = addThreads(ctx, p, cfg, c.postgresFlags, name, c.Retention, c.SessionTimeout)
	} else {
		err = addHistory(ctx, p, cfg, c.clickhouseFlags, c.Generation, name, c.SessionTimeout)
	}
	if err != nil {
		return err
	}
	if c.Check {
		p.close()
		return nil
	}
	p.announce(cfg, "projector", name)
	log.Info("projector started", "admin", "http://"+p.Admin)
	return p.run(ctx)
}

// checkRetention refuses a tail that is too short before anything is begun.
func checkRetention(d time.Duration) error {
	if d < threads.MinRetention {
		return fmt.Errorf("--retention %v is below %v", d, threads.MinRetention)
	}
	return nil
}

// addThreads adds the projector of the thread views to a process.
func addThreads(
	ctx context.Context, p *process, cfg kafka.Config, flags postgresFlags, name string,
	retention, session time.Duration,
) error {
	if generation.Beside(flags.PostgresSchema) {
		return fmt.Errorf("--postgres-schema %s is the name of a generation beside a live one, which only "+
			"'helio replay postgres' fills: give the live one's", flags.PostgresSchema)
	}
	group := threadsRole(flags.PostgresSchema)
	if err := p.migratePostgres(ctx, flags.Postgres, "views", flags.PostgresSchema); err != nil {
		return err
	}
	pcfg := flags.config(p.log, p.reg, "projector", int32(min(cfg.Partitions, 28)+4))
	pcfg.Params["synchronous_commit"] = "off" // rows and position vanish together, and the log brings them again
	pcfg.Params["search_path"] = flags.PostgresSchema
	pool, err := postgres.Open(ctx, pcfg)
	if err != nil {
		return err
	}
	p.onClose(pool.Close)
	report, err := reportQuarantine(p, cfg)
	if err != nil {
		return err
	}
	proj, err := threads.New(threads.Config{
		Report: report,
		Consumer: kafka.ConsumerConfig{
			Kafka:          cfg,
			Group:          cfg.Group("projector-" + group),
			InstanceID:     cfg.Instance(group + "-" + name),
			SessionTimeout: session,
		},
		Retention: retention,
	}, pool, p.log, p.reg)
	if err != nil {
		return err
	}
	p.group.Go("projector threads", proj.Run)
	p.admin.Check("postgres", func(ctx context.Context) error { return pool.Ping(ctx) })
	p.admin.Check("projector threads", func(context.Context) error { return proj.Consumer().Ready() })
	p.watchLag(lag.Threads, "thread views", proj.Consumer(), 10)
	return nil
}

// addHistory adds the projector of the history to a process.
func addHistory(
	ctx context.Context, p *process, cfg kafka.Config, flags clickhouseFlags, number uint32, name string,
	session time.Duration,
) error {
	if generation.Beside(flags.ClickhouseDatabase) {
		return fmt.Errorf("--clickhouse-database %s is the name of a generation beside a live one, which only "+
			"'helio replay clickhouse' fills: give the live one's", flags.ClickhouseDatabase)
	}
	group := historyRole(flags.ClickhouseDatabase)
	ccfg := flags.config(p.log, p.reg, "projector")
	if err := p.migrateClickHouse(ctx, ccfg); err != nil {
		return err
	}
	conn, err := clickhouse.Open(ccfg)
	if err != nil {
		return err
	}
	p.onClose(func() {
		if err := conn.Close(); err != nil {
			p.log.Warn("closing ClickHouse failed", "err", err)
		}
	})
	var other *history.GenerationError
	if err := history.CheckGeneration(ctx, conn, number); errors.As(err, &other) {
		return fmt.Errorf("%w (--history-generation %d)", err, other.Have)
	} // one that does not answer is asked again by each slot
	report, err := reportQuarantine(p, cfg)
	if err != nil {
		return err
	}
	proj, err := history.New(history.Config{
		Report: report, Generation: number,
		Consumer: kafka.ConsumerConfig{
			Kafka:          cfg,
			Group:          cfg.Group("projector-" + group),
			InstanceID:     cfg.Instance(group + "-" + name),
			SessionTimeout: session,
		},
	}, conn, p.log, p.reg)
	if err != nil {
		return err
	}
	p.group.Go("projector history", proj.Run)
	p.admin.Check("clickhouse", func(ctx context.Context) error { return conn.Ping(ctx) })
	p.admin.Check("projector history", func(context.Context) error { return proj.Consumer().Ready() })
	p.watchLag(lag.History, "history", proj.Consumer(), 30)
	return nil
}
