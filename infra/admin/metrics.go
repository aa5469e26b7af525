package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	up *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	return metrics{up: run.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "helio_admin_dependency_up", Help: "1 when the dependency's last readiness check succeeded.",
	}, []string{"dependency"}))}
}
