package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// The reasons of helio_edge_refused_total.
const (
	refuseRate = "rate" // more handshakes a second than handshakeRate
	refuseFull = "full" // MaxConnections
	// more connections that are not authenticated, or whose handshake is under way, than the memory for strangers takes
	refuseStrangers = "strangers"
	refuseAddress   = "address"  // maxEarlyPerAddress
	refuseDraining  = "draining" // the edge is going down
	refuseStream    = "stream"   // no control stream in time
)

var refusals = []string{refuseRate, refuseFull, refuseStrangers, refuseAddress, refuseDraining, refuseStream}

type metrics struct {
	accepted prometheus.Counter
	refused  *prometheus.CounterVec
	retries  prometheus.Counter
	draining prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, e *Edge) *metrics {
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_edge_connections_count", Help: "Open connections, authenticated or not.",
	}, func() float64 { return float64(e.open.Load()) }))
	run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helio_edge_strangers_count",
		Help: "Connections that are not authenticated, handshakes under way included.",
	}, func() float64 { return float64(e.others.count.Load()) }))
	return &metrics{
		accepted: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_edge_accepted_connections_total", Help: "Connections whose handshake was finished.",
		})),
		refused: run.Born(run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_edge_refused_connections_total", Help: "Connections refused, by reason.",
		}, []string{"reason"})), refusals),
		retries: run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "helio_edge_address_checks_total", Help: "Handshakes whose address was verified first.",
		})),
		draining: run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "helio_edge_draining_state", Help: "1 while the edge goes down.",
		})),
	}
}
