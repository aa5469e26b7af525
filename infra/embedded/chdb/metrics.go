package chdb

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the front's own counters; the engine's stand in system.metrics and system.events.
type metrics struct {
	statements *prometheus.CounterVec   // by kind and outcome
	seconds    *prometheus.HistogramVec // by kind
	refused    *prometheus.CounterVec   // by reason
	running    prometheus.Gauge
	waiting    prometheus.Gauge
	received   prometheus.Counter
	sent       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		statements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_chdb_statements_total",
			Help: "Statements that ended, by kind and outcome (ok, error, cancelled).",
		}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helio_chdb_statement_seconds", Help: "Time from the statement's start in the engine to its end.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_chdb_refused_total", Help: "Requests refused before the engine saw them, by reason.",
		}, []string{"reason"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_chdb_running_statements", Help: "Statements that the engine is running.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_chdb_waiting_statements", Help: "Statements that wait for another to end.",
		}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_chdb_insert_bytes_total", Help: "Bytes of INSERT bodies received, after decompression.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_chdb_result_bytes_total", Help: "Bytes of results taken from the engine, before compression.",
		}),
	}
	for _, c := range []prometheus.Collector{
		m.statements, m.seconds, m.refused, m.running, m.waiting, m.received, m.sent,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("chdb: register metrics: %w", err)
		}
	}
	return m, nil
}
