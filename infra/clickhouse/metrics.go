package clickhouse

import (
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// stats shows a pool's own counts. Two pools of one name on one registry show only the first's.
type stats struct {
	conn driver.Conn

	open, idle, max *prometheus.Desc
}

func observe(reg prometheus.Registerer, name string, conn driver.Conn) {
	if reg == nil {
		return
	}
	if name == "" {
		name = "helio"
	}
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("helio_clickhouse_"+metric, help, nil, prometheus.Labels{"pool": name})
	}
	run.Register(reg, prometheus.Collector(&stats{
		conn: conn,
		open: desc("open_conns", "Connections in use."),
		idle: desc("idle_conns", "Connections idle."),
		max:  desc("max_conns", "The pool's bound."),
	}))
}

func (s *stats) Describe(ch chan<- *prometheus.Desc) {
	ch <- s.open
	ch <- s.idle
	ch <- s.max
}

func (s *stats) Collect(ch chan<- prometheus.Metric) {
	st := s.conn.Stats()
	ch <- prometheus.MustNewConstMetric(s.open, prometheus.GaugeValue, float64(st.Open))
	ch <- prometheus.MustNewConstMetric(s.idle, prometheus.GaugeValue, float64(st.Idle))
	ch <- prometheus.MustNewConstMetric(s.max, prometheus.GaugeValue, float64(st.MaxOpenConns))
}
