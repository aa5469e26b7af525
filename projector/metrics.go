package projector

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	events      *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	panics      prometheus.Counter
	cacheBytes  prometheus.Gauge
	held        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, kind string) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		name = "helio_" + kind + "_" + name
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	gauge := func(name, help string) prometheus.Gauge {
		name = "helio_" + kind + "_" + name
		return run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
	}
	return &metrics{
		events: counter("events_total", "Events folded, by topic and outcome.", "topic", "outcome"),
		quarantined: counter(
			"quarantined_events_total", "Events put into quarantine: first of a subject, or parked behind it.", "topic",
			"kind",
		),
		panics: counter(
			"fold_panics_total", "Events on which the fold panicked; each goes into quarantine.",
		).WithLabelValues(),
		cacheBytes: gauge("cache_bytes", "Estimated size of the fold states kept."),
		held:       gauge("held_subjects", "Subjects whose events are parked, in the slots owned."),
	}
}
