package postgres

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// stats shows a pool's own counts. Two pools of one name on one registry show only the first's.
type stats struct {
	pool *pgxpool.Pool

	acquired, idle, total, max      *prometheus.Desc
	acquires, waits, waitTime, news *prometheus.Desc
}

func observe(reg prometheus.Registerer, name string, pool *pgxpool.Pool) {
	if reg == nil {
		return
	}
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("helio_postgres_"+metric, help, nil, prometheus.Labels{"pool": name})
	}
	run.Register(reg, prometheus.Collector(&stats{
		pool:     pool,
		acquired: desc("acquired_conns", "Connections in use."),
		idle:     desc("idle_conns", "Connections idle."),
		total:    desc("total_conns", "Connections, those being made included."),
		max:      desc("max_conns", "The pool's bound."),
		acquires: desc("acquires_total", "Connections taken from the pool."),
		waits:    desc("acquire_waits_total", "Takings that had to wait for a connection."),
		waitTime: desc("acquire_wait_seconds_total", "Time spent in takings."),
		news:     desc("new_conns_total", "Connections made."),
	}))
}

func (s *stats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.acquired, s.idle, s.total, s.max, s.acquires, s.waits, s.waitTime, s.news} {
		ch <- d
	}
}

func (s *stats) Collect(ch chan<- prometheus.Metric) {
	st := s.pool.Stat()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(s.acquired, float64(st.AcquiredConns()))
	gauge(s.idle, float64(st.IdleConns()))
	gauge(s.total, float64(st.TotalConns()))
	gauge(s.max, float64(st.MaxConns()))
	count(s.acquires, float64(st.AcquireCount()))
	count(s.waits, float64(st.EmptyAcquireCount()))
	count(s.waitTime, st.AcquireDuration().Seconds())
	count(s.news, float64(st.NewConnsCount()))
}
