package generation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/projector/generation"
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

func (o order) replay(ctx context.Context, log *slog.Logger) (sum generation.Summary, err error) {
	store, err := o.open(ctx, log)
	if err != nil {
		return sum, err
	}
	defer store.Close()
	sum, err = generation.Replay(ctx, store, o.config(), generation.Options{Rollback: o.Rollback, Unverified: o.Fast})
	var different *generation.DifferentError
	if errors.As(err, &different) {
		for _, d := range different.Report.Differences[:min(5, len(different.Report.Differences))] {
			err = fmt.Errorf("%w; %s", err, d)
		}
	}
	return sum, err
}
