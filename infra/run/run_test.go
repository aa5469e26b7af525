package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newGroup() *Group { return New(nil, prometheus.NewRegistry()) }

func TestGroupStopsInReverse(t *testing.T) {
	var mu sync.Mutex
	var events []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, s)
	}
	g := newGroup()
	up := make(chan struct{}, 3)
	for _, name := range []string{"log", "projector", "edge"} {
		g.Add(Service{
			Name: name,
			Run: func(ctx context.Context) error {
				up <- struct{}{}
				<-ctx.Done()
				note("stopped " + name)
				return ctx.Err()
			},
			Drain: func(context.Context) error { note("drain " + name); return nil },
		})
	}
	g.Go("one shot", func(context.Context) error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	for range 3 {
		<-up
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	want := []string{"drain edge", "stopped edge", "drain projector", "stopped projector", "drain log", "stopped log"}
	if d := cmp.Diff(want, events); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

func TestGroupEndsOnErrorAndPanic(t *testing.T) {
	boom := errors.New("boom")
	for name, run := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return boom },
		"panic": func(context.Context) error { panic(boom) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup()
			g.Go("waits", func(ctx context.Context) error { <-ctx.Done(); return nil })
			g.Go("fails", run)
			if err := g.Run(t.Context()); !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "fails: ") {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

func TestGroupHardStop(t *testing.T) {
	g := newGroup()
	g.drain, g.hard = time.Millisecond, time.Millisecond
	release, up := make(chan struct{}), make(chan struct{})
	g.Go("polite", func(ctx context.Context) error { <-ctx.Done(); return nil })
	g.Go("deaf", func(context.Context) error { close(up); <-release; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-up; cancel() }()
	err := g.Run(ctx)
	close(release)
	if !errors.Is(err, ErrHardStop) || !strings.HasSuffix(err.Error(), ": deaf") {
		t.Errorf("Run = %v", err)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	b := Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}
	for i, top := range []time.Duration{10, 20, 40, 80, 100, 100} {
		top *= time.Millisecond
		if d := b.Next(); d < top/2 || d > top {
			t.Errorf("delay %d = %v, want %v..%v", i, d, top/2, top)
		}
	}
	for range 100 {
		if d := b.Next(); d > b.Max || d < b.Max/2 {
			t.Fatalf("late delay = %v", d)
		}
	}
	b.Reset()
	if d := b.Next(); d > b.Min {
		t.Errorf("after Reset = %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Min, b.Max = time.Hour, time.Hour
	if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	reg := prometheus.NewRegistry()
	var logged strings.Builder
	w := NewWatchdog(time.Hour, 3, slog.New(slog.NewTextHandler(&logged, nil)), reg)
	v, nan := 0.0, math.NaN()
	w.Watch("outbox", 10, func() float64 { return v })
	alarms := func() (n float64) {
		fams, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fams {
			if f.GetName() == "helio_run_watchdog_alarms_total" {
				n = f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return n
	}
	for _, step := range []struct {
		v    float64
		want float64
	}{
		{5, 0}, {9, 0}, {20, 0}, {30, 0}, {25, 0}, {30, 0}, {31, 0}, {32, 1}, // grown three times since it fell
		{40, 1}, {9, 1}, // recovered
		{11, 1}, {12, 1}, {13, 2}, {9, 2},
		{20, 2}, {20, 2}, {20, 3}, {9, 3}, // at its bound
		{nan, 3}, {nan, 3}, {5, 3}, {nan, 3}, {nan, 3}, {nan, 4}, // without a value
	} {
		v = step.v
		w.sample()
		if got := alarms(); got != step.want {
			t.Errorf("alarms at %v = %v, want %v", step.v, got, step.want)
		}
	}
	if got := strings.Count(logged.String(), "recovered"); got != 3 {
		t.Errorf("recoveries logged = %d, want 3:\n%s", got, logged.String())
	}
}

// A gauge whose sample does not return is alarmed of, once, and holds up no other.
func TestWatchdogBehindALock(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := NewWatchdog(10*time.Millisecond, 3, nil, reg)
	held := make(chan struct{})
	defer close(held)
	var asked atomic.Int32
	w.Watch("stuck", 10, func() float64 { asked.Add(1); <-held; return 0 })
	w.Watch("full", 10, func() float64 { return 11 })
	for range 4 {
		w.sample()
	}
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	alarmed := map[string]float64{}
	for _, f := range fams {
		if f.GetName() == "helio_run_watchdog_alarms_total" {
			for _, m := range f.GetMetric() {
				alarmed[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if diff := cmp.Diff(map[string]float64{"stuck": 1, "full": 1}, alarmed); diff != "" || asked.Load() != 1 {
		t.Errorf("alarms (-want +got):\n%s\nasked %d times, want once", diff, asked.Load())
	}
}

func TestSecretNeverShows(t *testing.T) {
	type conf struct{ Password Secret }
	c := conf{"hunter2"}
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "conf", c, "password", c.Password)
	for _, s := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v %#v %q %s", c, c, c, c.Password), string(js), logged.String(),
	} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("shown in %s", s)
		}
	}
	if c.Password.Reveal() != "hunter2" {
		t.Error("Reveal does not")
	}
}

func TestClientTLSValidate(t *testing.T) {
	if err := (ClientTLS{CertFile: "x"}).Validate(); err == nil {
		t.Error("a certificate without a key, and without TLS, is taken")
	}
	if c, err := (ClientTLS{}).Load(); c != nil || err != nil {
		t.Errorf("Load = %v, %v", c, err)
	}
	if _, err := (ClientTLS{Enable: true, CAFile: "/nonexistent"}).Load(); err == nil {
		t.Error("a missing CA file is taken")
	}
}
