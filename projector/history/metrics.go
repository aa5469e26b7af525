package history

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	events      *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	rows        *prometheus.CounterVec
	inserts     *prometheus.HistogramVec
	loaded      prometheus.Counter
	lookedUp    prometheus.Counter
	repeated    prometheus.Counter
	panics      prometheus.Counter
	cacheBytes  prometheus.Gauge
	held        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
	}
	return &metrics{
		events: counter("helio_history_events_total", "Events folded, by topic and outcome.", "topic", "outcome"),
		quarantined: counter(
			"helio_history_quarantined_events_total",
			"Events put into quarantine: first of a subject, or parked behind it.", "topic", "kind",
		),
		rows: counter(
			"helio_history_inserted_rows_total", "Rows inserted, repetitions included, by table.", "table",
		),
		inserts: run.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helio_history_insert_seconds", Help: "Time of one insert, by table.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10),
		}, []string{"table"})),
		loaded: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_history_loaded_states_total", Help: "Thread states loaded from the tables.",
		})),
		lookedUp: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_history_looked_up_messages_total",
			Help: "Messages whose ids were looked up in the tables, to see whether they were sent before.",
		})),
		repeated: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_history_repeated_ranges_total",
			Help: "Begun ranges found without their end and inserted again.",
		})),
		panics: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_history_fold_panics_total",
			Help: "Events on which the fold panicked; each goes into quarantine.",
		})),
		cacheBytes: gauge("helio_history_cache_bytes", "Estimated size of the fold states kept."),
		held:       gauge("helio_history_held_subjects", "Subjects whose events are parked, in the slots owned."),
	}
}
