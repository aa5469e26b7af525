package projector

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// The kinds of quarantined_events_total.
const (
	kindFirst  = "first" // of its subject
	kindParked = "parked"
)

// Outcomes of events_total beside the reasons for which a fold rejects.
const (
	outcomeAccepted  = "accepted"
	outcomeStale     = "stale"
	outcomeDuplicate = "duplicate"
	outcomeRejected  = "rejected"
)

// outcomes are those that each topic's events have.
var outcomes = map[topic.Topic][]string{
	topic.Threads: {
		outcomeAccepted, outcomeStale, outcomeDuplicate, string(thread.NotMember), string(thread.NotAdmin),
		string(thread.Malformed), string(thread.Exists), string(thread.Missing), string(thread.NotInvited),
		string(thread.Full), string(thread.WrongKind), string(thread.Unknown),
	},
	topic.Receipts: {outcomeAccepted, string(thread.Malformed)},
	topic.Users:    {outcomeAccepted, outcomeStale, outcomeRejected},
}

type metrics struct {
	events      *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	drained     *prometheus.CounterVec
	dropped     *prometheus.CounterVec
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
		dropped: counter(
			"dropped_events_total", "Events that an operator has dropped from quarantine: they are passed over.",
			"topic",
		),
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
	for _, t := range topic.Folded {
		name := []string{string(t)}
		run.Born(m.events, name, outcomes[t])
		run.Born(m.quarantined, name, []string{kindFirst, kindParked})
		run.Born(m.drained, name)
		run.Born(m.dropped, name)
		run.Born(m.undrained, name, []string{undrainedNewer, undrainedBroken, undrainedMissing, undrainedFailed})
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
