package ingest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/infra/kafka/kafkatest"
	"heliograph/schemas/topic"
)

// put appends other events to a partition, past this process.
func put(t *testing.T, cfg kafka.Config, s topic.Slot, n int) {
	t.Helper()
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var recs []*kgo.Record
	for i := range n {
		recs = append(recs, cfg.NewRecord(topic.Threads, s, group[:], fmt.Append(nil, "other", i)))
	}
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsAcknowledgedInAnotherLog: once the log was set back, what it takes is acknowledged to nobody, however
// far it has grown again, also by an edge that was not there before and knows the log by the views alone. When the
// right log is back, all goes on.
func TestNothingIsAcknowledgedInAnotherLog(t *testing.T) {
	subject := topic.Subject(group)
	slot := topic.SlotOf(subject, partitions)
	for _, grown := range []int{0, 10, 25} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("grown=%d/restarted=%t", grown, restarted), func(t *testing.T) {
				t.Parallel()
				broker := kafkatest.Start(t)
				f := startOn(t, []string{broker.Addr()}, nil)
				send := func() (Receipt, error) {
					return f.AppendWait(t.Context(), topic.Threads, subject, message("hello"))
				}
				var last *told
				sendMany := func(n int) {
					t.Helper()
					for range n {
						if _, err := send(); err != nil {
							t.Fatal(err)
						}
					}
					last = f.lane(topic.Threads, slot).last.Load()
				}
				sendMany(10)
				kept := broker.Keep()
				until(t, "the log takes events again", func() bool { _, err := send(); return err == nil })
				sendMany(9)
				whole := broker.Keep()
				f.net.set(true)
				if restarted {
					f.stop()
				}
				broker.SetBack(kept)
				straight := f.cfg
				straight.Dial = nil
				put(t, straight, slot, grown)
				if restarted {
					at := kafka.Standing{
						Topic: topic.Threads, Slot: slot, Next: last.next, Mark: topic.Mark{Digest: last.digest},
					}
					f = startOn(t, []string{broker.Addr()}, func(c *Config) {
						c.Standing = func(context.Context) ([]kafka.Standing, error) {
							return []kafka.Standing{at}, nil
						}
					})
				} else {
					f.net.set(false)
				}
				until(t, "the fault is named", func() bool {
					rec, err := send()
					if err == nil {
						t.Fatalf("acknowledged at %d of a log that was set back", rec.Position)
					}
					var wrong *kafka.LogError
					return errors.As(err, &wrong) && errors.Is(err, ErrUnavailable) && wrong.Slot == slot
				})
				if f.Fault() == nil {
					t.Error("no fault is told")
				}
				for s := range topic.Slot(partitions) { // in a partition of which nothing is known all is well
					if s != slot && f.lane(topic.Threads, s).fault.Load() != nil {
						t.Errorf("slot %d is said to be another log's too", s)
					}
				}
				broker.SetBack(whole)
				until(t, "the right log takes events", func() bool { _, err := send(); return err == nil })
				if err := f.Fault(); err != nil {
					t.Errorf("still a fault: %v", err)
				}
			})
		}
	}
}
