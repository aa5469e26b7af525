package run

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// samples counts those that a registry has of counters and gauges.
func samples(t *testing.T, reg *prometheus.Registry) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// TestBorn: a counter has every combination of its labels' values before it counts.
func TestBorn(t *testing.T) {
	reg := prometheus.NewRegistry()
	Born(
		Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"a", "b"})),
		[]string{"1", "2"}, []string{"p", "q", "r"},
	)
	if n := samples(t, reg); n != 6 {
		t.Errorf("%d samples, want 6", n)
	}
}

// TestServicesAreBornAtZero: a service's first panic, and a gauge's first alarm, are an increase.
func TestServicesAreBornAtZero(t *testing.T) {
	reg := prometheus.NewRegistry()
	NewWatchdog(0, 0, nil, reg).Watch("queue", 1, func() float64 { return 0 })
	g := New(nil, reg)
	g.Go("quiet", func(context.Context) error { return nil })
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := samples(t, reg); n != 5 { // alarms, alarmed; running, panics, hard stops
		t.Errorf("%d samples, want 5", n)
	}
}
