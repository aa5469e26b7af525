package run

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	running   *prometheus.GaugeVec
	panics    *prometheus.CounterVec
	hardStops *prometheus.CounterVec
	alarms    *prometheus.CounterVec
	alarmed   *prometheus.GaugeVec
}

// newMetrics makes the collectors of Group and Watchdog; both may be built on one registry.
func newMetrics(reg prometheus.Registerer) metrics {
	return metrics{
		running: Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helio_run_service_running", Help: "1 while the service runs.",
		}, []string{"service"})),
		panics: Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_run_panics_total", Help: "Panics recovered at a service's boundary.",
		}, []string{"service"})),
		hardStops: Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_run_hard_stops_total", Help: "Services that were late in the orderly stop.",
		}, []string{"service"})),
		alarms: Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helio_run_watchdog_alarms_total",
			Help: "Times that a watched gauge stayed past its threshold without falling, or had no value.",
		}, []string{"gauge"})),
		alarmed: Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helio_run_watchdog_alarmed", Help: "1 from a gauge's alarm until it is below its threshold again.",
		}, []string{"gauge"})),
	}
}

// Born makes a counter of every combination of its labels' values, at 0, and returns v: an alert does not see the event
// that a counter is born with. values has those of each label, in the order of the labels.
func Born(v *prometheus.CounterVec, values ...[]string) *prometheus.CounterVec {
	combine(nil, values, func(labels []string) { v.WithLabelValues(labels...) })
	return v
}

func combine(some []string, values [][]string, each func(labels []string)) {
	if len(values) == 0 {
		each(some)
		return
	}
	for _, v := range values[0] {
		combine(append(some[:len(some):len(some)], v), values[1:], each)
	}
}

// Register registers c and returns it, or the equal collector that reg already has, so that two parts of one process
// can share a metric. With a nil reg, c is returned unregistered. It panics on a metric that is declared differently in
// two places: a broken invariant.
func Register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	var dup prometheus.AlreadyRegisteredError
	if errors.As(err, &dup) {
		if have, ok := dup.ExistingCollector.(C); ok {
			return have
		}
	}
	panic(err)
}
