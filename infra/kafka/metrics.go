package kafka

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// The reasons of helio_kafka_slot_failures_total.
const (
	reasonOpen      = "open"      // the sink could not be opened
	reasonTransient = "transient" // Apply failed and is retried
	reasonFenced    = "fenced"    // the stored position was moved by another writer
	reasonPermanent = "permanent" // Apply failed for good
	reasonPanic     = "panic"     // the sink panicked
	reasonFetch     = "fetch"     // the log refused a partition
	reasonPosition  = "position"  // the stored position is not in the log
)

var slotFailures = []string{
	reasonOpen, reasonTransient, reasonFenced, reasonPermanent, reasonPanic, reasonFetch, reasonPosition,
}

// The kinds of helio_kafka_rebalances_total.
const (
	movedAssigned = "assigned"
	movedRevoked  = "revoked"
	movedLost     = "lost"
)

type metrics struct {
	view string

	lagRecords  *prometheus.GaugeVec
	lagSeconds  *prometheus.GaugeVec
	unsure      prometheus.Gauge
	queue       prometheus.Gauge
	queueBytes  prometheus.Gauge
	owned       prometheus.Gauge
	stalled     prometheus.Gauge
	pauses      prometheus.Counter
	gaps        *prometheus.CounterVec
	failures    *prometheus.CounterVec
	rebalances  *prometheus.CounterVec
	records     prometheus.Counter
	batch       prometheus.Observer
	apply       prometheus.Observer
	commitFails prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, view string, topics []topic.Topic) *metrics {
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		opts := prometheus.GaugeOpts{Name: name, Help: help}
		return run.Register(reg, prometheus.NewGaugeVec(opts, append([]string{"view"}, more...)))
	}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Name: name, Help: help}
		return run.Register(reg, prometheus.NewCounterVec(opts, append([]string{"view"}, more...)))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
		return run.Register(reg, prometheus.NewHistogramVec(opts, []string{"view"}))
	}
	views := []string{view}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = string(t)
	}
	return &metrics{
		view:       view,
		lagRecords: gauge("helio_kafka_lag_records", "Log end minus the view's next position.", "topic", "slot"),
		lagSeconds: gauge(
			"helio_kafka_lag_seconds", "Age of the oldest record that the view has not taken in.", "topic", "slot",
		),
		unsure: gauge(
			"helio_kafka_lag_unsure_seconds",
			"For how long the lags could not be trusted: "+
				"the log did not tell its ends, or the group did not count this process in.",
		).WithLabelValues(view),
		queue: gauge("helio_kafka_queue_records", "Records fetched and not yet applied, all slots.").
			WithLabelValues(view),
		queueBytes: gauge("helio_kafka_queue_bytes", "Bytes fetched and not yet applied, all slots.").
			WithLabelValues(view),
		owned:   gauge("helio_kafka_slots_owned", "Slots that this process owns.").WithLabelValues(view),
		stalled: gauge("helio_kafka_slots_stalled", "Owned slots whose last attempt failed.").WithLabelValues(view),
		pauses: counter("helio_kafka_pauses_total", "Times that a slot's queue was full and its fetching was paused.").
			WithLabelValues(view),
		gaps: run.Born(counter(
			"helio_kafka_position_gaps_total", "Offset gaps seen in a topic that is kept for ever.", "topic",
		), views, names),
		failures: run.Born(counter(
			"helio_kafka_slot_failures_total", "Failed attempts to open or apply, by reason.", "reason",
		), views, slotFailures),
		rebalances: run.Born(counter(
			"helio_kafka_rebalances_total", "Slots moved by the group, by kind: assigned, revoked, lost.", "kind",
		), views, []string{movedAssigned, movedRevoked, movedLost}),
		records: counter("helio_kafka_applied_records_total", "Records applied.").WithLabelValues(view),
		batch: histogram("helio_kafka_batch_records", "Records in an applied batch.",
			prometheus.ExponentialBuckets(1, 4, 8)).WithLabelValues(view),
		apply: histogram("helio_kafka_apply_seconds", "Time of one successful Apply.",
			prometheus.ExponentialBuckets(0.0001, 3, 11)).WithLabelValues(view),
		commitFails: counter("helio_kafka_commit_failures_total", "Commits to Kafka (for its tools only) that failed.").
			WithLabelValues(view),
	}
}

func (m *metrics) failed(reason string) { m.failures.WithLabelValues(m.view, reason).Inc() }

func (m *metrics) lag(l Lag) {
	slot := strconv.Itoa(int(l.Slot))
	m.lagRecords.WithLabelValues(m.view, string(l.Topic), slot).Set(float64(l.Records))
	m.lagSeconds.WithLabelValues(m.view, string(l.Topic), slot).Set(l.Seconds)
}

func (m *metrics) forget(topics []topic.Topic, s topic.Slot) {
	for _, t := range topics {
		m.lagRecords.DeleteLabelValues(m.view, string(t), strconv.Itoa(int(s)))
		m.lagSeconds.DeleteLabelValues(m.view, string(t), strconv.Itoa(int(s)))
	}
}
