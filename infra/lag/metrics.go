package lag

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	watching prometheus.Gauge
	records  *prometheus.GaugeVec
	seconds  *prometheus.GaugeVec
	taken    *prometheus.GaugeVec
	unowned  *prometheus.GaugeVec
	lost     *prometheus.GaugeVec
	ahead    *prometheus.GaugeVec
	untold   *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		opts := prometheus.GaugeOpts{Name: "helio_view_" + name, Help: help}
		return run.Register(reg, prometheus.NewGaugeVec(opts, []string{"view"}))
	}
	return metrics{
		watching: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_view_watching",
			Help: "1 in the process that asks the stores and the log how far the views are; the others do not tell.",
		})),
		records: gauge("lag_records", "Log end minus the view's next positions, by the store and the log."),
		seconds: gauge(
			"lag_seconds",
			"Age of the oldest record that the view has not taken in, or a few seconds less, by the store and the log.",
		),
		taken: gauge(
			"taken_in_records", "Sum of the view's next positions: it stands still when nothing is taken in.",
		),
		unowned: gauge("slots_unowned", "Slots of the view that no process owns, by its consumer group."),
		lost: gauge(
			"lost_records", "Records that the log has no more and the view never took in; the log was cut.",
		),
		ahead: gauge(
			"ahead_records", "Positions that the view has and the log does not; the log was set back.",
		),
		untold: gauge("untold_seconds", "For how long the view's store, or the log, has not told how far it is."),
	}
}

// set shows a view that was told of.
func (m *metrics) set(v View) {
	m.owned(v)
	m.records.WithLabelValues(v.View).Set(float64(v.Records))
	m.seconds.WithLabelValues(v.View).Set(v.Seconds)
	m.taken.WithLabelValues(v.View).Set(float64(v.TakenIn))
	m.lost.WithLabelValues(v.View).Set(float64(v.Lost))
	m.ahead.WithLabelValues(v.View).Set(float64(v.Ahead))
}

// owned shows how many slots have no owner, where that is known.
func (m *metrics) owned(v View) {
	if v.GroupError == "" && v.Slots > 0 {
		m.unowned.WithLabelValues(v.View).Set(float64(v.Unowned))
	} else {
		m.unowned.DeleteLabelValues(v.View)
	}
}

// hide takes away what is not known of a view any more: an old lag would look like a fresh one.
func (m *metrics) hide(view string) {
	for _, g := range []*prometheus.GaugeVec{m.records, m.seconds, m.taken, m.unowned, m.lost, m.ahead} {
		g.DeleteLabelValues(view)
	}
}
