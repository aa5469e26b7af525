package history

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	rows     *prometheus.CounterVec
	inserts  *prometheus.HistogramVec
	loaded   prometheus.Counter
	lookedUp prometheus.Counter
	repeated prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	return &metrics{
		rows: run.Born(counter(
			"helio_history_inserted_rows_total", "Rows inserted, repetitions included, by table.", "table",
		), []string{
			tableMessages.name, tableEvents.name, tableChanges.name, tableMembers.name, tableInvitations.name,
			tableReceipts.name, tableQuarantine.name, tablePositions.name, tableOwners.name,
		}),
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
	}
}
