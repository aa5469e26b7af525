package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/run"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// pair is what watermarks are coalesced by.
type pair struct {
	user   id.UserID // a device id may be another user's too
	device id.DeviceID
	thread id.ThreadID
}

// Watermark hands in how far a device has got in a thread. It is merged with one of the same device and thread that
// still waits, and appended within milliseconds, or when the log is back. When too many wait, or Run has ended, it is
// dropped and counted: the device's next one makes up for it.
func (i *Ingest) Watermark(th id.ThreadID, u id.UserID, d id.DeviceID, w thread.Watermark) {
	i.metrics.watermarks.Inc()
	i.mu.Lock()
	n := i.hold(pair{u, d, th}, w)
	i.mu.Unlock()
	if n == 1 {
		kick(i.kick)
	}
}

// holdAgain has a watermark that was taken out of waiting wait again.
func (i *Ingest) holdAgain(p pair, m thread.Watermark) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cfg.Kafka.Budget.Add(-watermarkWeight) // as part of what was taken out
	i.hold(p, m)
}

// hold merges a watermark into those that wait and returns how many do. The caller holds mu.
func (i *Ingest) hold(p pair, m thread.Watermark) int {
	if i.closed.Load() { // under mu: Run counts what waits after it has set this
		i.metrics.dropped.WithLabelValues(reasonClosed).Inc()
		return 0
	}
	if have, ok := i.waiting[p]; ok {
		i.metrics.coalesced.Inc()
		m = m.Merge(have)
	} else {
		if n := len(i.waiting); n >= maxWatermarks || (n+1)*watermarkWeight > i.most(maxWatermarks*watermarkWeight) {
			i.metrics.dropped.WithLabelValues(reasonFull).Inc()
			return n
		}
		i.cfg.Kafka.Budget.Add(watermarkWeight)
	}
	i.waiting[p] = m
	return len(i.waiting)
}

// send is the goroutine that appends watermarks, a window after the first came in.
func (i *Ingest) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.kick:
		}
		if !run.Sleep(ctx, i.cfg.receiptWindow) {
			return
		}
		if !i.down.Load() { // else the probe kicks again once the log is back
			i.sendWaiting(ctx)
		}
	}
}

// sendWaiting hands the watermarks that wait over to the producer; those of a narrow lane one by one, waiting for each.
// Those of a suspect one go on waiting, until look has them tried again.
func (i *Ingest) sendWaiting(ctx context.Context) {
	select {
	case i.sending <- struct{}{}: // one at a time, or two would not be alone
		defer func() { <-i.sending }()
	case <-ctx.Done():
		return
	}
	i.mu.Lock()
	batch := i.waiting
	i.waiting = make(map[pair]thread.Watermark, min(len(batch), 1024))
	i.mu.Unlock()
	now := time.Now()
	var narrow []pair
	for p, m := range batch {
		if i.lane(topic.Receipts, topic.SlotOf(topic.Subject(p.thread), i.cfg.Partitions)).isNarrow(now) {
			narrow = append(narrow, p)
			continue
		}
		i.sendOne(p, m)
	}
	for k, p := range narrow {
		if i.receipts.Flush(ctx) != nil {
			for _, p := range narrow[k:] {
				i.holdAgain(p, batch[p])
			}
			return
		}
		i.sendOne(p, batch[p])
	}
}

func (i *Ingest) sendOne(p pair, m thread.Watermark) {
	s := topic.Subject(p.thread)
	slot := topic.SlotOf(s, i.cfg.Partitions)
	value, err := proto.Marshal(eventv1.Event_builder{
		UserId: p.user[:], DeviceId: p.device[:], // no rules: none judges a receipt
		WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: int64(m.DeliveredPosition), DeliveredOrdinal: m.DeliveredOrdinal,
			ReadPosition: int64(m.ReadPosition), ReadOrdinal: m.ReadOrdinal,
		}.Build(),
	}.Build())
	if err != nil {
		panic(fmt.Sprintf("ingest: encode a watermark: %v", err)) // no strings in it: it always encodes
	}
	key := event.ReceiptKey(p.thread, p.device, p.user)
	begun := time.Now()
	l := i.lane(topic.Receipts, slot)
	f, ok := l.tryOff(begun)
	if !ok {
		i.holdAgain(p, m)
		return
	}
	record := i.cfg.Kafka.NewRecord(topic.Receipts, slot, key, value)
	i.receipts.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) {
		if err == nil {
			i.metrics.acknowledged(topic.Receipts, time.Since(begun))
		}
		err = i.settle(topic.Receipts, slot, l, f, err)
		if err != nil && errors.Is(err, ErrUnavailable) {
			i.holdAgain(p, m) // it only grows: appending it twice does no harm
			kick(i.kick)
			return
		}
		i.cfg.Kafka.Budget.Add(-watermarkWeight)
		if err != nil { // the log will never take it
			i.metrics.dropped.WithLabelValues(reasonRefused).Inc()
		}
	})
}
