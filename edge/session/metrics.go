package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// The reasons of helio_session_dropped_frames_total and helio_session_dropped_receipts_total.
const (
	dropLagged = "lagged" // waiting pushes when the outbox was full; receipts that it had no room for
	dropClosed = "closed" // what waited when the session ended
)

var drops = []string{dropLagged, dropClosed}

// codes are the names of all codes.
var codes = func() (names []string) {
	all := wirev1.Code(0).Descriptor().Values()
	for i := range all.Len() {
		names = append(names, wire.Lookup(wirev1.Code(all.Get(i).Number())).Name)
	}
	return names
}()

type metrics struct {
	sessions   *prometheus.GaugeVec
	frames     *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	closes     *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	unsent     *prometheus.CounterVec
	resyncs    prometheus.Counter
	begun      prometheus.Counter
	panics     prometheus.Counter
	requests   *prometheus.HistogramVec
	watermarks *prometheus.CounterVec
	received   []prometheus.Counter // by field number, as kindNames
}

// kindNames are the names of the bodies of a ClientFrame by their field numbers, as the protocol declares them; a body
// that it does not have is the first.
var kindNames = func() []string {
	names := []string{"unknown"}
	bodies := (*wirev1.ClientFrame)(nil).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		f := bodies.Get(i)
		for len(names) <= int(f.Number()) {
			names = append(names, "unknown")
		}
		names[f.Number()] = string(f.Name())
	}
	return names
}()

// kindName names a body by its field number.
func kindName(n int) string {
	if n < 0 || n >= len(kindNames) {
		n = 0
	}
	return kindNames[n]
}

func newMetrics(reg prometheus.Registerer, srv *Server) *metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	m := &metrics{
		sessions: run.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helio_session_open_count", Help: "Sessions, by state.",
		}, []string{"state"})),
		frames:   counters("helio_session_received_frames_total", "Frames received, by kind.", "kind"),
		refusals: counters("helio_session_refusals_total", "Requests refused, by code.", "code"),
		closes:   counters("helio_session_closes_total", "Sessions ended, by code; ok when the device went.", "code"),
		dropped: counters(
			"helio_session_dropped_frames_total", "Frames dropped from outboxes, by reason.", "reason",
		),
		unsent: counters(
			"helio_session_dropped_receipts_total", "Members' watermarks dropped from outboxes, by reason.", "reason",
		),
		resyncs: counters(
			"helio_session_resyncs_total", "Times that a device was told to sync again.",
		).WithLabelValues(),
		begun: counters("helio_session_threads_begun_total", "Threads begun.").WithLabelValues(),
		panics: counters(
			"helio_session_panics_total", "Panics recovered at a session's boundary.",
		).WithLabelValues(),
		watermarks: counters("helio_session_watermarks_total", "Watermarks received, by outcome.", "outcome"),
		requests: run.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helio_session_request_seconds", Help: "Time of a request that takes its own goroutine, by kind.",
			Buckets: []float64{.001, .004, .016, .064, .256, 1, 4, 16},
		}, []string{"kind"})),
	}
	m.received = make([]prometheus.Counter, len(kindNames))
	run.Born(m.refusals, codes)
	run.Born(m.closes, codes)
	run.Born(m.dropped, drops)
	run.Born(m.unsent, drops)
	run.Born(m.watermarks, []string{
		markTaken, markInvalid, markUnknown, markAhead, markFull, markSame, markLate,
	})
	for n := range m.received {
		m.received[n] = m.frames.WithLabelValues(kindName(n))
	}
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_session_outbox_frames", Help: "Frames waiting in all outboxes.",
	}, func() float64 { return float64(srv.Waiting()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_session_outbox_bytes", Help: "Bytes waiting in all outboxes.",
	}, func() float64 { return float64(srv.load.bytes.Load()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_session_outbox_receipts", Help: "Members' watermarks waiting in all outboxes.",
	}, func() float64 { return float64(srv.WaitingReceipts()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_session_oldest_undelivered_seconds",
		Help: "How long the oldest of what waits in any outbox has waited.",
	}, func() float64 { return srv.OldestWaiting().Seconds() }))
	return m
}

func (m *metrics) refused(c wirev1.Code) { m.refusals.WithLabelValues(wire.Lookup(c).Name).Inc() }
