package delivery

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// The reasons of helio_delivery_links_closed_total.
const (
	reasonPeer     = "peer"     // the edge or the network closed it
	reasonStop     = "stop"     // this instance stops
	reasonSlow     = "slow"     // its queue was full
	reasonBehind   = "behind"   // its subscription could not catch up within the ring
	reasonGap      = "gap"      // the log could not be read for a subscription
	reasonProtocol = "protocol" // a frame that link.proto does not allow
	reasonSubjects = "subjects" // more interest than MaxSubjects
)

var linkEnds = []string{
	reasonPeer, reasonStop, reasonSlow, reasonBehind, reasonGap, reasonProtocol, reasonSubjects,
}

// How a Subscribe was served, for helio_delivery_subscribes_total.
const (
	servedFresh    = "fresh"     // without a cursor: from the ring's start
	servedRing     = "ring"      // the ring covered the cursor
	servedLog      = "log"       // the gap was read from the log
	servedSnapshot = "snapshot"  // the cursor was too old: the edge takes a snapshot
	servedNotOwner = "not_owner" // the slot is another's
)

var servings = []string{servedFresh, servedRing, servedLog, servedSnapshot, servedNotOwner}

type metrics struct {
	in        [topics]prometheus.Counter
	out       [topics]prometheus.Counter
	latency   prometheus.Histogram
	links     prometheus.Gauge
	closed    *prometheus.CounterVec
	subjects  prometheus.Gauge
	subscribe *prometheus.CounterVec
	refused   prometheus.Counter
	queueMax  prometheus.Gauge
	ringBytes prometheus.Gauge
	ringAge   prometheus.Gauge
	owned     prometheus.Gauge
	oldest    prometheus.Gauge
	gapReads  prometheus.Counter
	gapFails  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
	}
	counter := func(name, help string) prometheus.Counter {
		return run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return run.Register(
			reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label}),
		)
	}
	in := vec("helio_delivery_events_read_total", "Events read from the log.", "topic")
	out := vec(
		"helio_delivery_events_sent_total", "Events put into links' queues; one that goes to two links counts twice.",
		"topic",
	)
	m := &metrics{
		latency: run.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "helio_delivery_push_seconds",
			Help:    "Log time of a batch's newest event until the batch was put into the links' queues.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14),
		})),
		links:     gauge("helio_delivery_links", "Links that stand."),
		closed:    vec("helio_delivery_links_closed_total", "Links that ended, by reason.", "reason"),
		subjects:  gauge("helio_delivery_subjects", "Subscribed subjects, all links."),
		subscribe: vec("helio_delivery_subscribes_total", "Subscribe frames, by how they were served.", "served"),
		refused: counter("helio_delivery_subjects_refused_total",
			"Subjects that were not subscribed, because the link has as many as it may."),
		queueMax:  gauge("helio_delivery_link_queue_frames", "Frames that wait in the fullest link's queue."),
		ringBytes: gauge("helio_delivery_ring_bytes", "Bytes held in the rings of all slots."),
		ringAge:   gauge("helio_delivery_ring_seconds", "How long ago the oldest event in a ring was read."),
		owned:     gauge("helio_delivery_slots_owned", "Slots that are open here."),
		oldest: gauge(
			"helio_delivery_oldest_undelivered_seconds",
			"Age of the oldest event of an owned slot that was not pushed yet.",
		),
		gapReads: counter(
			"helio_delivery_gap_records_total", "Records read again from the log for cursors older than the ring.",
		),
		gapFails: counter("helio_delivery_gap_failures_total", "Such reads that failed."),
	}
	run.Born(m.closed, linkEnds)
	run.Born(m.subscribe, servings)
	for i, t := range topic.Folded {
		m.in[i] = in.WithLabelValues(string(t))
		m.out[i] = out.WithLabelValues(string(t))
	}
	return m
}
