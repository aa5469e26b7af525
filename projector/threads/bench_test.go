package threads_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/projector/threads"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// BenchmarkApply is one slot's batch: direct messages of a hundred pairs, states cached.
func BenchmarkApply(b *testing.B) {
	pool := newViews(b)
	users := eventtest.NewWorld(200, seeded(1)).Users()
	for _, size := range []int{1, 50, 500, 2000, 5000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			empty(b, pool)
			cfg := config(0)
			sink := threads.NewSink(cfg, pool, nil, nil)
			next, err := sink.Open(context.Background(), 0)
			if err != nil {
				b.Fatal(err)
			}
			defer sink.Close(0, false)
			n := 0
			for b.Loop() {
				const text = "a message of some hundred bytes, as people write them to one another every day in a chat"
				batch := kafka.Batch{From: next.Clone(), To: next.Clone()}
				for range size {
					a, p := users[n%100], users[100+n%100]
					t, m := id.DirectThread(a, p), id.NewMessage()
					v, err := proto.Marshal(eventv1.Event_builder{
						UserId: a[:],
						MessageSent: eventv1.MessageSent_builder{
							MessageId: m[:], Content: eventtest.Text(text), DirectPeer: p[:],
						}.Build(),
					}.Build())
					if err != nil {
						b.Fatal(err)
					}
					batch.Records = append(batch.Records, kafka.Record{
						Topic:    topic.Threads,
						Position: topic.Position(n),
						LogTime:  time.UnixMilli(int64(n)),
						Key:      t[:],
						Value:    v,
					})
					n++
				}
				batch.To[topic.Threads] = topic.Position(n)
				if err := sink.Apply(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
				next = batch.To
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
