package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// reportQuarantine returns what a projector calls for each event that it cannot apply: it tells helio.quarantine. The rows in the store are the truth; a
// report that the log does not take is logged and not repeated.
func reportQuarantine(p *process, cfg kafka.Config) (func(view string, q projector.Quarantined), error) {
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{MaxRecords: 1024})...)
	if err != nil {
		return nil, err
	}
	p.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := cl.Flush(ctx); err != nil {
			p.log.Warn("reports of quarantine were lost", "err", err)
		}
		cl.Close()
	})
	return func(view string, q projector.Quarantined) {
		value, err := proto.Marshal(q.Event(view))
		if err != nil {
			p.log.Error("report of quarantine cannot be encoded", "err", err)
			return
		}
		rec := cfg.NewRecord(topic.Quarantine, q.Slot, q.Subject[:], value)
		cl.TryProduce(context.Background(), rec, func(_ *kgo.Record, err error) { // bounded by the delivery timeout
			if err != nil {
				p.log.Error("report of quarantine did not reach the log", "slot", q.Slot, "position", q.Position, "err", err)
			}
		})
	}, nil
}
