package embedded

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// The causes of helio_embedded_ends_total.
const (
	causeAsked   = "asked"
	causeUnasked = "unasked"
)

type metrics struct {
	up   *prometheus.GaugeVec
	ends *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helio_embedded_up_engines",
			Help: "1 while the embedded engine's process is ready, else 0.",
		}, []string{"engine"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_embedded_ends_total",
			Help: "Ends of embedded engines' processes, by whether they were asked to end.",
		}, []string{"engine", "cause"}),
	}
	for _, k := range []Kind{Kafka, Postgres, ClickHouse} {
		run.Born(m.ends, []string{string(k)}, []string{causeAsked, causeUnasked})
	}
	if reg != nil {
		reg.MustRegister(m.up, m.ends)
	}
	return m
}
