package run

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Watchdog samples gauges (queue lengths, lags) and raises an alarm, a log line and a counter, when one is past its
// threshold and has not fallen for Samples samples in a row; it says so again when the gauge is back below the
// threshold. A queue that stands at its bound is as bad as one that grows, and a gauge that has no value (NaN) or that
// cannot be sampled in time is worse: all of them count. Watch and Run may be called from any goroutine.
type Watchdog struct {
	// Fixed after New.
	every   time.Duration
	samples int
	log     *slog.Logger
	metrics metrics

	mu     sync.Mutex // guards gauges; the sample functions are called without it
	gauges []*watched
}

// watched's fields are fixed after Watch, but for those of the sampler, which only the goroutine in sample touches.
type watched struct {
	name      string
	sample    func() float64
	threshold float64

	// Sampler.
	last    float64
	grown   int
	alarmed bool
	pending chan float64 // of a sample that is late; nil: none is
}

// NewWatchdog returns a watchdog that samples at the interval every (default 1 s) and alarms after samples samples
// without a fall (default 5). log and reg may be nil.
func NewWatchdog(every time.Duration, samples int, log *slog.Logger, reg prometheus.Registerer) *Watchdog {
	if every <= 0 {
		every = time.Second
	}
	if samples <= 0 {
		samples = 5
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Watchdog{every: every, samples: samples, log: log, metrics: newMetrics(reg)}
}

// Watch adds a gauge. name is a metric label, so it comes from a closed set. sample is called once per interval, by a
// goroutine of its own; NaN means that there is no value.
func (w *Watchdog) Watch(name string, threshold float64, sample func() float64) {
	Born(w.metrics.alarms, []string{name})
	w.metrics.alarmed.WithLabelValues(name).Set(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gauges = append(w.gauges, &watched{name: name, threshold: threshold, sample: sample})
}

// Run samples until ctx is cancelled.
func (w *Watchdog) Run(ctx context.Context) error {
	t := time.NewTicker(w.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			w.sample()
		}
	}
}

func (w *Watchdog) sample() {
	w.mu.Lock()
	gauges := w.gauges[:len(w.gauges):len(w.gauges)]
	w.mu.Unlock()
	late := time.NewTimer(w.every / 2)
	defer late.Stop()
	for _, g := range gauges {
		g.begin()
	}
	expired := false
	for _, g := range gauges {
		v := math.NaN()
		if expired {
			select {
			case v = <-g.pending:
				g.pending = nil
			default:
			}
		} else {
			select {
			case v = <-g.pending:
				g.pending = nil
			case <-late.C:
				expired = true
			}
		}
		w.judge(g, v)
	}
}

// begin has a sample taken, unless the last one is still under way: a gauge whose lock is held for ever costs one
// goroutine, and not one for each sample.
func (g *watched) begin() {
	if g.pending != nil {
		return
	}
	taken := make(chan float64, 1)
	g.pending = taken
	go func() { taken <- g.sample() }()
}

// judge takes a sample in.
func (w *Watchdog) judge(g *watched, v float64) {
	switch {
	case math.IsNaN(v):
		g.grown++
	case v <= g.threshold:
		g.grown = 0
		if g.alarmed {
			g.alarmed = false
			w.metrics.alarmed.WithLabelValues(g.name).Set(0)
			w.log.Info("watchdog: recovered", "gauge", g.name, "value", v, "threshold", g.threshold)
		}
	case v < g.last:
		g.grown = 0
	default:
		g.grown++
	}
	if !g.alarmed && g.grown >= w.samples {
		g.alarmed = true
		w.metrics.alarms.WithLabelValues(g.name).Inc()
		w.metrics.alarmed.WithLabelValues(g.name).Set(1)
		if math.IsNaN(v) {
			w.log.Warn("watchdog: no value", "gauge", g.name, "samples", g.grown)
		} else {
			w.log.Warn("watchdog: past its threshold and not falling",
				"gauge", g.name, "value", v, "threshold", g.threshold, "samples", g.grown)
		}
	}
	if !math.IsNaN(v) {
		g.last = v
	}
}
