package main

import (
	"log/slog"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// A report of quarantine that the log does not take is counted.
func TestLostReportsOfQuarantine(t *testing.T) {
	p, err := newProcess(slog.New(slog.DiscardHandler), adminFlags{Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	report, err := reportQuarantine(p, kafka.Config{Brokers: []string{"127.0.0.1:1"}, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	p.close() // nothing is taken any more
	report(
		"threads",
		projector.Quarantined{Topic: topic.Threads, Subject: topic.Subject(id.NewGroup()), Reason: "unreadable"},
	)
	count := func() float64 {
		var m dto.Metric
		if err := reportsDropped(p.reg).WithLabelValues(dropLog).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(wait); count() != 1; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%v reports are counted as lost, want 1", count())
		}
	}
}
