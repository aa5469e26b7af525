package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/embedded"
)

// failing are engines of which one ends at once, and does not start the first times.
type failing struct {
	began    time.Time
	ends     int
	refusals int
	starts   []time.Duration
}

func (f *failing) Wait(ctx context.Context) error {
	if f.ends == 0 {
		<-ctx.Done()
		return nil
	}
	f.ends--
	return &embedded.Error{Engine: embedded.Kafka, Err: errors.New("no space left")}
}

func (f *failing) Restart(context.Context, embedded.Kind) error {
	f.starts = append(f.starts, time.Since(f.began))
	if f.refusals == 0 {
		return nil
	}
	f.refusals--
	return errors.New("no space left")
}

// An engine that ended is started until it stands, with pauses that grow and have a bound; a signal ends that too.
func TestEnginesAreStartedUntilTheyStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := &failing{began: time.Now(), ends: 2, refusals: 5}
		if err := superviseEngines(ctx, slog.New(slog.DiscardHandler), f, nothing); err != nil {
			t.Error(err)
		}
		s := time.Second
		if diff := cmp.Diff([]time.Duration{0, s, 3 * s, 7 * s, 15 * s, 25 * s, 35 * s}, f.starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		once := &failing{began: time.Now(), ends: 1, refusals: 1}
		if err := superviseEngines(stopped, slog.New(slog.DiscardHandler), once, nothing); err != nil {
			t.Error(err)
		}
	})
}

func nothing() error { return nil }
