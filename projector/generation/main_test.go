package generation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	"heliograph/projector/generation"
	"heliograph/projector/history"
	"heliograph/projector/threads"
)

// replayEnv makes the test binary a process that replays, which a test kills: it holds an order as JSON.
const replayEnv = "HELIO_TEST_REPLAY"

// order is what such a process is to do.
type order struct {
	Brokers  []string
	Prefix   string
	URL      string
	Rollback bool
	// ClickHouse is set where the history is replayed.
	ClickHouse, Password, Database string
	// Die is the step of a switch at which the process kills itself; empty: none.
	Die string
	// Fast leaves the comparison out, so that a kill falls into the switch more often.
	Fast bool
}

func TestMain(m *testing.M) {
	if text := os.Getenv(replayEnv); text != "" {
		var o order
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			_, err = o.replay(context.Background(), nil)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	enginetest.Main(m)
}

func (o order) config() generation.Config {
	return generation.Config{
		Kafka:      kafka.Config{Brokers: o.Brokers, TopicPrefix: o.Prefix, Partitions: partitions},
		Partitions: partitions, Topics: threads.Topics, Retention: forever,
	}
}

func (o order) open(ctx context.Context, log *slog.Logger) (*generation.Postgres, error) {
	return generation.OpenPostgres(ctx, generation.PostgresConfig{
		Postgres: postgres.Config{URL: o.URL}, Retention: forever, Logger: log,
	})
}

// forever keeps every message of a test's world, whose times lie far back.
const forever = 100 * 365 * 24 * time.Hour

func (o order) history() clickhouse.Config {
	return clickhouse.Config{Addr: []string{o.ClickHouse}, Password: run.Secret(o.Password), Database: o.Database}
}

func (o order) openHistory(ctx context.Context) (*generation.ClickHouse, error) {
	cfg := generation.ClickHouseConfig{ClickHouse: o.history()}
	return generation.OpenClickHouse(ctx, cfg.At(func(step string) {
		if step == o.Die {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}, time.Second))
}

func (o order) replay(ctx context.Context, log *slog.Logger) (sum generation.Summary, err error) {
	var store generation.Store
	cfg := o.config()
	if o.ClickHouse != "" {
		cfg.Topics = history.Topics
		opened, err := o.openHistory(ctx)
		if err != nil {
			return sum, err
		}
		defer opened.Close()
		store = opened
	} else {
		opened, err := o.open(ctx, log)
		if err != nil {
			return sum, err
		}
		defer opened.Close()
		store = opened
	}
	sum, err = generation.Replay(ctx, store, cfg, generation.Options{Rollback: o.Rollback, Unverified: o.Fast})
	var different *generation.DifferentError
	if errors.As(err, &different) {
		for _, d := range different.Report.Differences[:min(5, len(different.Report.Differences))] {
			err = fmt.Errorf("%w; %s", err, d)
		}
	}
	return sum, err
}
