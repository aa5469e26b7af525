package auth

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	pins       prometheus.Counter
	registered prometheus.Counter
	refused    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		pins: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_auth_pins_sent_total", Help: "PINs sent by SMS.",
		}),
		registered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_auth_registrations_total", Help: "Registrations that the log has.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_auth_refusals_total",
			Help: "Requests for a PIN, registrations and proofs that were refused, by reason.",
		}, []string{"reason"}),
	}
	reg.MustRegister(m.pins, m.registered, m.refused)
	return m
}
