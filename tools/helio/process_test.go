package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/admin"
	"heliograph/infra/kafka"
	"heliograph/infra/run"
)

// askReady asks a process whether it is ready.
func askReady(ctx context.Context, t *testing.T, p *process) (code int, status admin.Status) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/readyz", nil)
	if err != nil {
		t.Error(err)
		return 0, status
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, status
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		t.Error(err)
	}
	return answer.StatusCode, status
}

// A role that stops says so in /readyz before any of its services drains, whether a signal or a failure ends it.
func TestReadyzWhileStopping(t *testing.T) {
	for name, end := range map[string]func(cancel context.CancelFunc, failed chan<- error){
		"signal":  func(cancel context.CancelFunc, _ chan<- error) { cancel() },
		"failure": func(_ context.CancelFunc, failed chan<- error) { failed <- errors.New("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newProcess(slog.New(slog.DiscardHandler), adminFlags{Admin: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			up, failed := make(chan struct{}), make(chan error, 1)
			p.group.Go("fails", func(ctx context.Context) error {
				select {
				case err := <-failed:
					return err
				case <-ctx.Done():
					return nil
				}
			})
			var code int
			var status admin.Status
			p.group.Add(run.Service{
				Name:  "role",
				Run:   func(ctx context.Context) error { close(up); <-ctx.Done(); return nil },
				Drain: func(ctx context.Context) error { code, status = askReady(ctx, t, p); return nil },
			})
			done := make(chan error, 1)
			go func() { done <- p.run(ctx) }()
			<-up
			if code, _ := askReady(ctx, t, p); code != http.StatusOK {
				t.Errorf("status %d while it runs, want 200", code)
			}
			end(cancel, failed)
			select {
			case err := <-done:
				if (err != nil) != (name == "failure") {
					t.Errorf("the process ended with %v", err)
				}
			case <-time.After(wait):
				t.Fatal("the process did not stop")
			}
			if code != http.StatusServiceUnavailable || !status.Draining {
				t.Errorf("status %d, draining %v while it stops, want 503 and true", code, status.Draining)
			}
		})
	}
}

// fakeLag is a consumer in the state that a case says.
type fakeLag struct {
	lags   []kafka.Lag
	unsure time.Duration
}

func (f *fakeLag) Lags() []kafka.Lag     { return f.lags }
func (f *fakeLag) Unsure() time.Duration { return f.unsure }

// A consumer that is behind, stands still or cannot tell is alarmed of, and so is a gauge past its
// threshold; one that keeps up is not.
func TestWatchedGauges(t *testing.T) {
	var logged bytes.Buffer
	p, err := newProcess(slog.New(slog.NewTextHandler(&logged, nil)), adminFlags{Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	p.dog = run.NewWatchdog(100*time.Millisecond, 3, p.log, p.reg)
	p.group.Go("watchdog of the test", p.dog.Run)
	p.watchLag("a", "fine", &fakeLag{
		lags: []kafka.Lag{{Records: 100, Seconds: 1}, {Records: 5, Seconds: 2}}, unsure: time.Second,
	}, 5)
	p.watchLag("b", "old", &fakeLag{lags: []kafka.Lag{{Records: 1, Seconds: 1}, {Records: 1, Seconds: 60}}}, 5)
	p.watchLag(
		"c", "long", &fakeLag{lags: []kafka.Lag{{Records: 1, Seconds: 1}, {Records: maxLagRecords + 1, Seconds: 1}}}, 5,
	)
	p.watchLag("d", "silent", &fakeLag{unsure: time.Minute}, 5)
	p.dog.Watch("few", 1, count(func() int { return 1 }))
	p.dog.Watch("many", 1, count(func() int64 { return 2 }))
	p.dog.Watch("young", 1, seconds(func() time.Duration { return time.Second }))
	p.dog.Watch("aged", 1, seconds(func() time.Duration { return 2 * time.Second }))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	defer func() { cancel(); <-done }() //nolint:errcheck // ended as asked
	want := map[string]float64{
		"old lag seconds": 1, "long lag records": 1, "silent lag seconds": 1, "many": 1, "aged": 1,
	}
	got := map[string]float64{}
	for deadline := time.Now().Add(wait); len(got) < len(want) && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
		families, err := p.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "helio_run_watchdog_alarmed" && m.GetGauge().GetValue() > 0 {
					got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alarms (-want +got):\n%s", diff)
	}
}
