package fanout

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// The reasons of helio_fanout_drops_total.
const (
	dropOutbox   = "outbox_full"
	dropReceipts = "receipts_full"
	dropPending  = "pending_full"   // too much came during a catch-up
	dropCatchUp  = "catchup_failed" // what was read for it could not be pushed
)

type metrics struct {
	sessions      prometheus.Gauge
	syncing       prometheus.Gauge
	pushes        prometheus.Counter
	late          prometheus.Counter
	drops         *prometheus.CounterVec
	revoked       prometheus.Counter
	older         prometheus.Counter
	historyErrors prometheus.Counter
	syncSeconds   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, f *Fanout) metrics {
	name := func(n string) string { return "helio_fanout_" + n }
	counter := func(n, help string) prometheus.Counter {
		return run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help}))
	}
	gauge := func(n, help string) prometheus.Gauge {
		return run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name(n), Help: help}))
	}
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: name("oldest_undelivered_seconds"),
		Help: "How long a device has been on line and behind with a thread, or an event held back, at most.",
	}, func() float64 { return f.OldestUndelivered().Seconds() }))
	return metrics{
		late: counter("catchups_late_total",
			"Devices that were on line and behind with a thread for five seconds; it is tried again."),
		sessions: gauge("sessions", "Sessions that are attached."),
		syncing:  gauge("sessions_catching_up", "Catch-ups under way."),
		pushes:   counter("pushes_total", "Events handed to sessions."),
		drops: run.Born(run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name("drops_total"),
			Help: "Pushes that were dropped, by reason; the device makes up for it by a catch-up.",
		}, []string{"reason"})), []string{dropOutbox, dropReceipts, dropPending, dropCatchUp}),
		revoked: counter("sessions_revoked_total", "Sessions that were cut because their device was revoked."),
		older: counter("older_events_total",
			"Events of catch-ups that were trimmed from the thread views and read from the history."),
		historyErrors: counter("history_errors_total",
			"Catch-ups that the history did not answer; each is tried again."),
		syncSeconds: run.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("sync_seconds"), Help: "Duration of a session's Sync.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		})),
	}
}
