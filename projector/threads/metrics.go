package threads

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	events      *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	rows        *prometheus.CounterVec
	loaded      *prometheus.CounterVec
	lookedUp    prometheus.Counter
	cacheBytes  prometheus.Gauge
	held        prometheus.Gauge
	trimmed     prometheus.Counter
	trimFails   prometheus.Counter
	panics      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	return &metrics{
		events: counter("helio_threads_events_total", "Events folded, by topic and outcome.", "topic", "outcome"),
		quarantined: counter(
			"helio_threads_quarantined_events_total",
			"Events put into quarantine: first of a subject, or parked behind it.", "topic", "kind",
		),
		rows: counter("helio_threads_written_rows_total", "Rows written, by path: unnest or copy.", "path"),
		loaded: counter(
			"helio_threads_loaded_states_total", "Fold states loaded from the tables, by subject.", "subject",
		),
		lookedUp: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_looked_up_messages_total",
			Help: "Messages whose ids were looked up in the tables, to see whether they were sent before.",
		})),
		cacheBytes: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_threads_cache_bytes", Help: "Estimated size of the fold states kept.",
		})),
		held: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_threads_held_subjects", Help: "Subjects whose events are parked, in the slots owned.",
		})),
		trimmed: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_trimmed_rows_total", Help: "Messages removed from the tail.",
		})),
		trimFails: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_trim_failures_total", Help: "Trimming statements that failed.",
		})),
		panics: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_fold_panics_total",
			Help: "Events on which the fold panicked; each goes into quarantine.",
		})),
	}
}
