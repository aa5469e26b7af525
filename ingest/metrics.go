package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// The reasons of helio_ingest_failures_total.
const (
	reasonInvalid = "invalid" // the event breaks the schema's rules
	reasonClock   = "clock"   // this machine's clock is off
	reasonDown    = "down"    // the log was known to be down, nothing was sent
	reasonFull    = "full"    // the buffer was full, nothing was sent
	reasonTimeout = "timeout" // not acknowledged in time: unknown
	reasonBroker  = "broker"  // the broker or the client refused
	reasonClosed  = "closed"  // ingest is stopping
	// its partition took nothing when it was last tried, nothing was sent
	reasonPartition = "partition"
	reasonRefused   = "refused"   // the broker will never take it
	reasonLog       = "other_log" // its partition is another log's than the one that was read
	reasonBeside    = "beside"    // it, or one that was sent with it: sent again it goes alone
)

var (
	failures = []string{
		reasonInvalid, reasonClock, reasonDown, reasonFull, reasonTimeout, reasonBroker, reasonClosed, reasonPartition,
		reasonRefused, reasonLog, reasonBeside,
	}
	// what an edge appends to
	appendedTo = []topic.Topic{topic.Threads, topic.Receipts, topic.Users, topic.Presence}
)

type metrics struct {
	taken      []taken // by topic number
	failures   *prometheus.CounterVec
	watermarks prometheus.Counter
	coalesced  prometheus.Counter
	dropped    *prometheus.CounterVec
	up         prometheus.Gauge
	suspect    prometheus.Gauge
	wrong      prometheus.Gauge
}

// taken is the metrics of the events of a topic that the log acknowledged.
type taken struct {
	events prometheus.Counter
	ack    prometheus.Observer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	appended := run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "helio_ingest_appended_total", Help: "Events that the log acknowledged.",
	}, []string{"topic"}))
	ack := run.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "helio_ingest_ack_seconds", Help: "From Append to the log's acknowledgement.",
		Buckets: []float64{.0002, .0005, .001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 4},
	}, []string{"topic"}))
	m := &metrics{
		taken: make([]taken, topic.Presence.Number()+1),
		failures: run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_ingest_failures_total", Help: "Events that were not acknowledged, by reason.",
		}, []string{"topic", "reason"})),
		watermarks: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_ingest_watermarks_total", Help: "Watermarks that were handed in.",
		})),
		coalesced: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_ingest_watermarks_coalesced_total",
			Help: "Watermarks that were merged into one that was waiting.",
		})),
		dropped: run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_ingest_watermarks_dropped_total",
			Help: "Watermarks that were dropped, by reason; the device's next one makes up for it.",
		}, []string{"reason"})),
		up: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_ingest_log_up", Help: "1 while the log takes events.",
		})),
		suspect: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_ingest_suspect_partitions_count",
			Help: "Partitions that took nothing when they were last tried; their events are refused.",
		})),
		wrong: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_ingest_other_log_partitions_count",
			Help: "Partitions that are not the log that was read: set back, made anew or cut. " +
				"Nothing in them is acknowledged.",
		})),
	}
	run.Born(m.dropped, []string{reasonFull, reasonClosed, reasonRefused})
	for _, t := range appendedTo {
		run.Born(m.failures, []string{string(t)}, failures)
		m.taken[t.Number()] = taken{appended.WithLabelValues(string(t)), ack.WithLabelValues(string(t))}
	}
	return m
}

// acknowledged counts an event that the log acknowledged after a while.
func (m *metrics) acknowledged(t topic.Topic, took time.Duration) {
	m.taken[t.Number()].events.Inc()
	m.taken[t.Number()].ack.Observe(took.Seconds())
}

// gauges registers what is read from the clients when asked.
func (i *Ingest) gauges(reg prometheus.Registerer) {
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_ingest_clock_off_seconds",
		Help: "How far this machine's clock is ahead; 0 while it is less than a minute off. Else events are refused.",
	}, func() float64 { return time.Duration(i.clock.off.Load()).Seconds() }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_ingest_clock_unknown",
		Help: "1 while there is nothing to compare this machine's clock with: events are stamped as before.",
	}, func() float64 {
		if i.clock.unknown.Load() {
			return 1
		}
		return 0
	}))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_ingest_buffered_records", Help: "Events handed over and not acknowledged yet, both producers.",
	}, func() float64 { return float64(i.Buffered()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_ingest_buffered_bytes", Help: "Their bytes.",
	}, func() float64 { return float64(i.events.BufferedProduceBytes() + i.receipts.BufferedProduceBytes()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_ingest_watermarks_pending_count", Help: "Pairs of device and thread whose watermark waits.",
	}, func() float64 { return float64(i.WatermarksPending()) }))
}

// Buffered is the number of events handed over to the log and not acknowledged yet. Any goroutine may call it.
func (i *Ingest) Buffered() int64 {
	return i.heldN.Load() + i.events.BufferedProduceRecords() + i.receipts.BufferedProduceRecords()
}

// WatermarksPending is the number of pairs of device and thread whose watermark waits for the log. Any goroutine may
// call it.
func (i *Ingest) WatermarksPending() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.waiting)
}
