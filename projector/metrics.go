package projector

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	events      *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	drained     *prometheus.CounterVec
	undrained   *prometheus.CounterVec
	panics      prometheus.Counter
	cacheBytes  prometheus.Gauge
	held        *prometheus.GaugeVec
}

// The reasons of undrained_subjects_total.
const (
	undrainedNewer   = "newer_version" // a later event needs a newer version still
	undrainedBroken  = "broken"        // a later event cannot be applied
	undrainedMissing = "missing"       // the log does not have an event any more
	undrainedFailed  = "failed"        // the store refuses its rows
)

func newMetrics(reg prometheus.Registerer, kind string) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		name = "helio_" + kind + "_" + name
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	m := &metrics{
		events: counter("events_total", "Events folded, by topic and outcome.", "topic", "outcome"),
		quarantined: counter(
			"quarantined_events_total", "Events put into quarantine: first of a subject, or parked behind it.", "topic",
			"kind",
		),
		drained: counter("drained_events_total", "Events that have left quarantine, being known now.", "topic"),
		undrained: counter(
			"undrained_subjects_total",
			"Subjects that were to leave quarantine and stay there, or a part of them, each time that it is tried.",
			"topic", "reason",
		),
		panics: counter(
			"fold_panics_total", "Events on which the fold panicked; each goes into quarantine.",
		).WithLabelValues(),
		cacheBytes: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_" + kind + "_cache_bytes", Help: "Estimated size of the fold states kept.",
		})),
		held: run.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helio_" + kind + "_held_subjects",
			Help: "Subjects whose events are parked, in the slots owned, by the reason of the first.",
		}, []string{"reason"})),
	}
	for _, code := range []string{codeUndecodable, codePartition, codeFold, codeNewer, codeParked} {
		m.held.WithLabelValues(code)
	}
	return m
}

// hold counts an intake's subjects in (by 1) or out (by -1).
func (m *metrics) hold(in *Intake, by float64) {
	for code, n := range in.codes() {
		m.held.WithLabelValues(code).Add(by * float64(n))
	}
}

func (m *metrics) count(outcomes map[outcome]int) {
	for o, n := range outcomes {
		m.events.WithLabelValues(string(o.topic), o.outcome).Add(float64(n))
	}
}
