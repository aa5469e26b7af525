package threads

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// The subjects of helio_threads_loaded_states_total.
const (
	subjectThread = "thread"
	subjectUser   = "user"
)

type metrics struct {
	rows      *prometheus.CounterVec
	loaded    *prometheus.CounterVec
	lookedUp  prometheus.Counter
	trimmed   prometheus.Counter
	trimFails prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	return &metrics{
		rows: run.Born(counter(
			"helio_threads_written_rows_total", "Rows written, by path: unnest or copy.", "path",
		), []string{pathUnnest, pathCopy}),
		loaded: run.Born(counter(
			"helio_threads_loaded_states_total", "Fold states loaded from the tables, by subject.", "subject",
		), []string{subjectThread, subjectUser}),
		lookedUp: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_looked_up_messages_total",
			Help: "Messages whose ids were looked up in the tables, to see whether they were sent before.",
		})),
		trimmed: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_trimmed_rows_total", Help: "Messages removed from the tail.",
		})),
		trimFails: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_threads_trim_failures_total", Help: "Trimming statements that failed.",
		})),
	}
}
