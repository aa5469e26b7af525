package main

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// The reasons of helio_quarantine_reports_dropped_total.
const (
	dropEncode = "encode" // it cannot be encoded
	dropFull   = "full"   // too many wait for the log
	dropLog    = "log"    // the log did not take it in time
)

// reportsDropped is the count of reports that are only in the store's table; one for all views of a process.
func reportsDropped(reg prometheus.Registerer) *prometheus.CounterVec {
	return run.Born(run.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "helio_quarantine_reports_dropped_total",
		Help: "Reports of quarantined events that helio.quarantine has not, by reason; the store has the rows.",
	}, []string{"reason"})), []string{dropEncode, dropFull, dropLog})
}

// reportQuarantine returns what a projector calls for each event that it cannot apply: it tells helio.quarantine. The
// rows in the store are the truth; a report that the log does not take is logged, counted and not repeated.
func reportQuarantine(p *process, cfg kafka.Config) (func(view string, q projector.Quarantined), error) {
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{MaxRecords: 1024})...)
	if err != nil {
		return nil, err
	}
	lost := reportsDropped(p.reg)
	p.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := cl.Flush(ctx); err != nil {
			p.log.Warn("quarantine reports lost", "err", err)
		}
		cl.Close()
	})
	return func(view string, q projector.Quarantined) {
		value, err := proto.Marshal(q.Event(view))
		if err != nil {
			lost.WithLabelValues(dropEncode).Inc()
			p.log.Error("report of quarantine cannot be encoded", "err", err)
			return
		}
		rec := cfg.NewRecord(topic.Quarantine, q.Slot, q.Subject[:], value)
		cl.TryProduce(context.Background(), rec, func(_ *kgo.Record, err error) { // bounded by the delivery timeout
			if err != nil {
				reason := dropLog
				if errors.Is(err, kgo.ErrMaxBuffered) {
					reason = dropFull
				}
				lost.WithLabelValues(reason).Inc()
				p.log.Error("quarantine report not appended to the log",
					"slot", q.Slot, "position", q.Position, "err", err)
			}
		})
	}, nil
}
