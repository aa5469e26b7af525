package auth

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	pins       prometheus.Counter
	registered prometheus.Counter
	refused    *prometheus.CounterVec
	unpaid     *prometheus.CounterVec
	budget     prometheus.Gauge
}

// refusals are the reasons of helio_auth_refusals_total: those of budgets are named after them.
var refusals = []string{
	"limit_address", "limit_phone", "limit_number", "limit_range", "limit_country", "limit_deployment", "limit_tries",
	"budget_unknown", "budget_" + string(Groups), "budget_" + string(Additions), "budget_" + string(Changes),
	"budget_" + string(Profile), "budget_" + string(Settings),
	"pin_wrong", "pin_dead", "too_soon", "proof", "revoked", "unavailable",
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
		unpaid: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_auth_sms_over_budget_total",
			Help: "SMS that were refused because the deployment's or the country's budget was used up, by country.",
		}, []string{"country"}),
		budget: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_auth_sms_budget", Help: "SMS that the deployment may send in a day.",
		}),
	}
	run.Born(m.refused, refusals)
	reg.MustRegister(m.pins, m.registered, m.refused, m.unpaid, m.budget)
	return m
}
