package load

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Result is what was measured; what was not is null.
type Result struct {
	// ThroughputPerS are the 1:1 messages delivered a second.
	ThroughputPerS *float64 `json:"throughput_per_s"`
	// AckMS and DeliveryMS are the latencies at the first rate, 1,000 a second.
	AckMS      *Quantiles `json:"ack_ms"`
	DeliveryMS *Quantiles `json:"delivery_ms"`
	// FanoutPerS are the deliveries a second to the members of a group.
	FanoutPerS *float64 `json:"fanout_per_s"`
	// IdleConnKiB is the servers' resident memory for each idle authenticated connection.
	IdleConnKiB *float64 `json:"idle_conn_kib"`
	// ConnectsPerS are full handshakes with proof and synchronisation a second.
	ConnectsPerS *float64 `json:"connects_per_s"`
	// ServerCPUPer1000 are the servers' CPU seconds for each 1,000 messages delivered in the throughput part.
	ServerCPUPer1000 *float64 `json:"server_cpu_s_per_1000"`
	// Raw ceilings of the same run.
	Ceiling Raw `json:"ceiling"`
	// Ratio is throughput over each ceiling.
	Ratio Ratio `json:"ratio"`
	// LagMaxRecords is how many records the slowest view was behind at most, during the throughput part.
	LagMaxRecords *float64 `json:"lag_max_records"`
	// Rates are the latencies at every rate.
	Rates []Rate `json:"rates"`
}

// Raw are the ceilings: what the parts below do alone.
type Raw struct {
	ProducePerS  *float64 `json:"produce_per_s"`
	ConsumePerS  *float64 `json:"consume_per_s"`
	QUICEchoPerS *float64 `json:"quic_echo_per_s"`
}

// Ratio is throughput over a ceiling.
type Ratio struct {
	Produce  *float64 `json:"produce"`
	Consume  *float64 `json:"consume"`
	QUICEcho *float64 `json:"quic_echo"`
}

// Quantiles of a latency in milliseconds.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// String writes them for people.
func (q Quantiles) String() string {
	return fmt.Sprintf("p50 %.2f p95 %.2f p99 %.2f p99.9 %.2f ms", q.P50, q.P95, q.P99, q.P999)
}

// Rate is what happened at one rate of the latency part.
type Rate struct {
	PerS             int       `json:"per_s"`
	DeliveredPerS    float64   `json:"delivered_per_s"`
	AckMS            Quantiles `json:"ack_ms"`
	DeliveryMS       Quantiles `json:"delivery_ms"`
	ServerCPUPer1000 *float64  `json:"server_cpu_s_per_1000"`
}

// quantiles sorts the latencies; of none, every quantile is 0.
func quantiles(all []time.Duration) Quantiles {
	if len(all) == 0 {
		return Quantiles{}
	}
	slices.Sort(all)
	at := func(q float64) float64 {
		i := int(math.Ceil(q*float64(len(all)))) - 1
		return float64(all[max(0, i)]) / float64(time.Millisecond)
	}
	return Quantiles{P50: at(0.5), P95: at(0.95), P99: at(0.99), P999: at(0.999)}
}

func (r *Result) ratios() {
	over := func(ceiling *float64) *float64 {
		if r.ThroughputPerS == nil || ceiling == nil || *ceiling == 0 {
			return nil
		}
		v := *r.ThroughputPerS / *ceiling
		return &v
	}
	r.Ratio = Ratio{
		Produce:  over(r.Ceiling.ProducePerS),
		Consume:  over(r.Ceiling.ConsumePerS),
		QUICEcho: over(r.Ceiling.QUICEchoPerS),
	}
}

func figure(v *float64, digits int) string {
	if v == nil {
		return "unknown"
	}
	return strconv.FormatFloat(*v, 'f', digits, 64)
}

// Row is a line of the table for people.
type Row struct{ What, Value, Aim string }

// Rows are the lines of what was measured. Aim is what the project wants to reach on two cores with the embedded log.
func (r Result) Rows() []Row {
	var out []Row
	add := func(what string, v *float64, digits int, unit, aim string) {
		if v != nil {
			out = append(out, Row{what, figure(v, digits) + unit, aim})
		}
	}
	add("1:1 messages delivered", r.ThroughputPerS, 0, " /s", "10,000")
	add("server CPU per 1,000 messages", r.ServerCPUPer1000, 3, " s", "")
	add("views behind at most", r.LagMaxRecords, 0, " records", "not growing")
	for _, rate := range r.Rates {
		ack, delivery := "", ""
		switch rate.PerS {
		case 1000:
			ack, delivery = "p50 2", "p99 10"
		case 5000:
			delivery = "p99 50"
		}
		at := fmt.Sprintf(" at %d/s", rate.PerS)
		out = append(out,
			Row{"ack" + at, rate.AckMS.String(), ack}, Row{"delivery" + at, rate.DeliveryMS.String(), delivery})
		add("delivered"+at, &rate.DeliveredPerS, 0, " /s", "")
		add("server CPU per 1,000"+at, rate.ServerCPUPer1000, 3, " s", "")
	}
	add("deliveries in a group", r.FanoutPerS, 0, " /s", "50,000")
	add("memory of an idle connection", r.IdleConnKiB, 1, " KiB", "72")
	add("authenticated connections", r.ConnectsPerS, 0, " /s", "1,000")
	for _, c := range []struct {
		what     string
		v, ratio *float64
	}{
		{"produce alone", r.Ceiling.ProducePerS, r.Ratio.Produce},
		{"consume alone", r.Ceiling.ConsumePerS, r.Ratio.Consume},
		{"QUIC echo alone", r.Ceiling.QUICEchoPerS, r.Ratio.QUICEcho},
	} {
		unit := " /s"
		if c.ratio != nil {
			unit += fmt.Sprintf(" (throughput is %.3f of it)", *c.ratio)
		}
		add(c.what, c.v, 0, unit, "")
	}
	return out
}
