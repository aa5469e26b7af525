package auth

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	pins       prometheus.Counter
	registered prometheus.Counter
	refused    *prometheus.CounterVec
	unpaid     *prometheus.CounterVec
	budget     prometheus.Gauge
}

// Refusals that an alert watches: they are there from the start, at 0.
const (
	refusedCountry    = "limit_country"
	refusedDeployment = "limit_deployment"
)

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
		unpaid: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_auth_sms_over_budget_total",
			Help: "SMS that were refused because the deployment's or the country's budget was used up, by country.",
		}, []string{"country"}),
		budget: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_auth_sms_budget", Help: "SMS that the deployment may send in a day.",
		}),
	}
	m.refused.WithLabelValues(refusedCountry)
	m.refused.WithLabelValues(refusedDeployment)
	reg.MustRegister(m.pins, m.registered, m.refused, m.unpaid, m.budget)
	return m
}
