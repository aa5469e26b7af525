package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/lag"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	"heliograph/schemas/topic"
)

// Deployment is where the log and both stores are, and which views are in them.
type Deployment struct {
	Kafka      kafka.Config
	Postgres   postgres.Config
	ClickHouse clickhouse.Config
	// Sources returns the views, over what was opened.
	Sources func(*kgo.Client, *kafka.Bases, *views.Views, *history.History) []lag.Source
}

// Lag asks how far each view is behind the log. Its methods are not to be called concurrently.
type Lag struct {
	meter *lag.Meter
	close func()
}

// OpenLag opens the log, which must answer, and both stores, which need not. Records that say how old a lag is are read
// for as many partitions as lag. The caller closes it.
func OpenLag(ctx context.Context, d Deployment) (*Lag, error) {
	l, err := Open(ctx, d.Kafka, topic.Threads)
	if err != nil {
		return nil, err
	}
	slots := l.Partitions()
	l.Close()
	cl, err := kafka.Dial(d.Kafka)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	bases, err := kafka.LoadBases(bounded, cl, d.Kafka, topic.Folded, slots)
	if err != nil {
		cl.Close()
		return nil, err
	}
	pool, err := postgres.Open(ctx, d.Postgres)
	if err != nil {
		cl.Close()
		return nil, err
	}
	conn, err := clickhouse.Open(d.ClickHouse)
	if err != nil {
		cl.Close()
		pool.Close()
		return nil, err
	}
	return &Lag{
		lag.NewMeter(lag.Config{
			Kafka: d.Kafka, Client: cl, Bases: bases, Reads: len(topic.Folded) * slots,
			Sources: d.Sources(cl, bases, views.New(pool), history.New(conn)),
		}),
		func() {
			cl.Close()
			pool.Close()
			_ = conn.Close() // read only
		},
	}, nil
}

// Ask returns how far each view is behind; from the second time on also how fast that changes.
func (l *Lag) Ask(ctx context.Context) ([]lag.View, error) { return l.meter.Ask(ctx) }

// Close gives up the connections.
func (l *Lag) Close() { l.close() }

// Limits are what a view's lag is judged by.
type Limits struct {
	Warn, Critical float64 // seconds
}

// Judgement is what a monitor is told, as its exit code.
type Judgement int

// The judgements, by their exit codes.
const (
	OK Judgement = iota
	Warning
	Critical
	Unknown
)

// String is the word that monitors show.
func (j Judgement) String() string { return [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[j] }

// worse returns the one that a monitor must hear of: what is known to be critical counts more than what is unknown,
// and that more than a warning.
func worse(a, b Judgement) Judgement {
	rank := [...]int{OK: 0, Warning: 1, Unknown: 2, Critical: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// Finding is the judgement of one view.
type Finding struct {
	View      string    `json:"view"`
	Judgement Judgement `json:"-"`
	State     string    `json:"state"`
	Why       []string  `json:"why,omitempty"`
	Told      bool      `json:"told"` // how far behind it is; what follows is 0 otherwise
	Records   int64     `json:"records"`
	Seconds   float64   `json:"seconds"`
	Unowned   int       `json:"unowned"`
	Lost      int64     `json:"lost"`
	Ahead     int64     `json:"ahead"`
}

// Judge judges each view, and all of them.
func Judge(all []lag.View, by Limits) (Judgement, []Finding) {
	whole := OK
	out := make([]Finding, len(all))
	for i, v := range all {
		f := Finding{
			View: v.View, Told: v.Error == "", Records: v.Records, Seconds: v.Seconds, Unowned: v.Unowned,
			Lost: v.Lost, Ahead: v.Ahead,
		}
		found := func(j Judgement, why string) {
			f.Judgement = worse(f.Judgement, j)
			f.Why = append(f.Why, why)
		}
		switch {
		case v.Error != "":
			found(Unknown, "its store does not tell how far it is: "+v.Error)
		case v.Seconds >= by.Critical:
			found(Critical, "it is "+Ago(v.Seconds)+" behind")
		case v.Seconds >= by.Warn:
			found(Warning, "it is "+Ago(v.Seconds)+" behind")
		}
		if v.Lost > 0 {
			found(Critical, fmt.Sprintf("records that it never took in are gone from the log: %d", v.Lost))
		}
		if v.Ahead > 0 {
			found(Critical, fmt.Sprintf("it is ahead of the log, which was set back, by positions: %d", v.Ahead))
		}
		switch {
		case v.GroupError != "":
			found(Unknown, "who owns its slots is not known: "+v.GroupError)
		case v.Unowned > 0:
			found(Critical, fmt.Sprintf("of its %d slots have no owner: %d", v.Slots, v.Unowned))
		}
		f.State = f.Judgement.String()
		whole = worse(whole, f.Judgement)
		out[i] = f
	}
	return whole, out
}

// Ago is a number of seconds as people read it.
func Ago(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Minute).String()
}
