package run

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Watchdog samples gauges (queue lengths, lags) and raises an alarm, a log line and a counter, when one is past its threshold and has grown
// for Samples samples in a row; it says so again when the gauge is back below the threshold. Watch and Run may be called from any goroutine.
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
}

// NewWatchdog returns a watchdog that samples at the interval every (default 1 s) and alarms after samples growths (default 5). log and reg may be nil.
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

// Watch adds a gauge. name is a metric label, so it comes from a closed set. sample is called once per interval and must not block.
func (w *Watchdog) Watch(name string, threshold float64, sample func() float64) {
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
	for _, g := range gauges {
		v := g.sample()
		switch {
		case v <= g.threshold:
			g.grown = 0
			if g.alarmed {
				g.alarmed = false
				w.metrics.alarmed.WithLabelValues(g.name).Set(0)
				w.log.Info("watchdog: recovered", "gauge", g.name, "value", v, "threshold", g.threshold)
			}
		case v > g.last:
			g.grown++
		case v < g.last:
			g.grown = 0
		}
		if !g.alarmed && g.grown >= w.samples {
			g.alarmed = true
			w.metrics.alarms.WithLabelValues(g.name).Inc()
			w.metrics.alarmed.WithLabelValues(g.name).Set(1)
			w.log.Warn("watchdog: past its threshold and growing", "gauge", g.name, "value", v, "threshold", g.threshold, "samples", g.grown)
		}
		g.last = v
	}
}
