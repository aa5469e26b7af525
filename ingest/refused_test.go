package ingest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// inSlot makes a group of a slot.
func inSlot(s topic.Slot) topic.Subject {
	for {
		if g := topic.Subject(id.NewGroup()); topic.SlotOf(g, partitions) == s {
			return g
		}
	}
}

// large is an event of more than 16 KiB that does not compress.
func large() *eventv1.Event {
	var members [][]byte
	for range thread.MaxMembers - 1 {
		m := make([]byte, id.Size)
		_, _ = rand.Read(m)
		members = append(members, m)
	}
	m := id.NewMessage()
	return eventv1.Event_builder{UserId: alice[:], RequestId: m[:], ThreadCreated: eventv1.ThreadCreated_builder{
		Title: "large", MemberIds: members,
	}.Build()}.Build()
}

// limit lowers or raises the longest batch of a topic.
func (f *fixture) limit(t *testing.T, tp topic.Topic, bytes string) {
	t.Helper()
	cl, err := kafka.Dial(kafka.Config{Brokers: f.cfg.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	alter := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}
	res, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), alter, f.cfg.Name(tp))
	if err != nil || res[0].Err != nil {
		t.Fatal(err, res)
	}
}

// outcomes gathers what callbacks say, by name.
type outcomes struct {
	mu  sync.Mutex // guards got
	got map[string]error
	wg  sync.WaitGroup
}

func (o *outcomes) of(name string) func(Receipt, error) {
	o.wg.Add(1)
	return func(_ Receipt, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.got == nil {
			o.got = map[string]error{}
		}
		if _, twice := o.got[name]; twice {
			panic(name + " ends twice")
		}
		o.got[name] = err
		o.wg.Done()
	}
}

// permanent tells whether a sender is told never to send an event again.
func permanent(err error) bool {
	var bad *event.Invalid
	return errors.As(err, &bad) && !errors.Is(err, ErrUnavailable)
}

// TestRefusedRecordIsItsSendersMatter: one record that a broker refuses is refused for good, with its type, and nobody
// else notices: not the log, not another partition, not another event of its own partition.
func TestRefusedRecordIsItsSendersMatter(t *testing.T) {
	for _, c := range []struct {
		name    string
		tooLong bool
		set     func(f *fixture)
	}{
		{"too large", true, func(f *fixture) { f.limit(t, topic.Threads, "8192") }},
		{"invalid", false, func(f *fixture) {
			f.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: f.cfg.Name(topic.Threads), Partitions: []int32{1},
				Err:   kerr.InvalidRecord,
				Count: -1, When: func(r kmsg.Request) bool { return holdsLarge(r, 1) },
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil)
			c.set(f)
			bad, other := inSlot(1), inSlot(2)
			// Alone: the first answer is the last word.
			_, err := f.AppendWait(t.Context(), topic.Threads, bad, large())
			var inv *event.Invalid
			if !permanent(err) || !errors.As(err, &inv) || inv.TooLong != c.tooLong {
				t.Errorf("a refused record: %v, want invalid, too long: %v", err, c.tooLong)
			}
			// In a crowd, sent again by those who are told to.
			waits := map[string]func() *eventv1.Event{"large": large}
			subject := func(name string) topic.Subject {
				if name[:5] == "other" {
					return other
				}
				return bad
			}
			for k := range 20 {
				waits[fmt.Sprintf("same %d", k)] = func() *eventv1.Event { return message("small") }
				waits[fmt.Sprintf("other %d", k)] = func() *eventv1.Event { return message("small") }
			}
			for round := 0; len(waits) > 0; round++ {
				if round == 5 {
					t.Fatalf("after %d rounds these are neither acknowledged nor refused: %v", round, waits)
				}
				var o outcomes
				for name, ev := range waits {
					f.Append(topic.Threads, subject(name), ev(), o.of(name))
				}
				o.wg.Wait()
				for name, err := range o.got {
					switch {
					case !f.Up():
						t.Fatal("the log counts as down")
					case name[:5] == "other" && err != nil:
						t.Errorf("%s, of another partition: %v", name, err)
					case err == nil && name == "large":
						t.Error("the refused record is acknowledged")
					case permanent(err) != (name == "large") && err != nil && !errors.Is(err, ErrUnavailable):
						t.Errorf("%s: %v", name, err)
					}
					if err == nil || permanent(err) {
						delete(waits, name)
					}
				}
			}
		})
	}
}

// holdsLarge tells whether a produce request has a batch of more than 8 KiB for a partition.
func holdsLarge(r kmsg.Request, partition int32) bool {
	for _, tp := range r.(*kmsg.ProduceRequest).Topics {
		for _, p := range tp.Partitions {
			if p.Partition == partition && len(p.Records) > 8<<10 {
				return true
			}
		}
	}
	return false
}

// TestOrderWhileOneAtATime: events of a lane that takes one at a time lie in the log in the order in which they came,
// and Flush and the end of Run leave none without an answer.
func TestOrderWhileOneAtATime(t *testing.T) {
	f := start(t, nil)
	f.limit(t, topic.Threads, "8192")
	s := inSlot(1)
	if _, err := f.AppendWait(t.Context(), topic.Threads, s, large()); !permanent(err) {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []topic.Position
	for range 100 {
		f.Append(topic.Threads, s, message("x"), func(r Receipt, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("append: %v", err)
			}
			got = append(got, r.Position)
		})
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	for k, p := range got {
		if int(p) != k {
			t.Fatalf("append %d lies at %d", k, p)
		}
	}
	mu.Unlock()
	if len(got) != 100 {
		t.Errorf("%d were acknowledged when Flush returned, want 100", len(got))
	}

	var o outcomes
	f.net.set(true)
	for k := range 2 * maxHeld {
		f.Append(topic.Threads, s, message("x"), o.of(fmt.Sprint(k)))
	}
	f.stop()
	o.wg.Wait() // each has an answer
	for k, err := range o.got {
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// TestRefusedWatermark: a watermark that a broker refuses is dropped and counted, and those beside it arrive.
func TestRefusedWatermark(t *testing.T) {
	f := start(t, nil)
	g := inSlot(1)
	unfit := id.NewDevice()
	f.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: f.cfg.Name(topic.Receipts), Partitions: []int32{1},
		Err:   kerr.InvalidRecord,
		Count: -1, When: func(r kmsg.Request) bool {
			// At both ends a byte may be as in another id, and then compression takes it.
			return bytes.Contains(r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records, unfit[10:14])
		},
	})
	for range 3 {
		f.Watermark(id.ThreadID(g), alice, id.NewDevice(), thread.Watermark{DeliveredPosition: 1})
	}
	f.Watermark(id.ThreadID(g), alice, unfit, thread.Watermark{DeliveredPosition: 1})
	f.records(t, topic.Receipts, 3)
	until(t, "the refused one dropped", func() bool {
		var m dto.Metric
		_ = f.metrics.dropped.WithLabelValues(reasonRefused).Write(&m)
		return m.GetCounter().GetValue() == 1 && f.WatermarksPending() == 0
	})
}

// TestOnePartitionDownLeavesTheOthers: a partition whose leader takes nothing has its events refused, at once after the
// first; all others go on, and it comes back by itself.
func TestOnePartitionDownLeavesTheOthers(t *testing.T) {
	f := start(t, nil)
	sick := f.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: f.cfg.Name(topic.Threads), Partitions: []int32{1},
		Err: kerr.TopicAuthorizationFailed, Count: -1,
	})
	_, err := f.AppendWait(t.Context(), topic.Threads, inSlot(1), message("x"))
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append to the sick partition: %v, want ErrUnavailable", err)
	}
	tried := sick.Hits()
	for range 200 {
		_, err := f.AppendWait(t.Context(), topic.Threads, inSlot(1), message("x"))
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("append to the sick partition: %v, want ErrUnavailable", err)
		}
		if _, err := f.AppendWait(t.Context(), topic.Threads, inSlot(2), message("x")); err != nil || !f.Up() {
			t.Fatalf("append to another partition: %v; up: %v", err, f.Up())
		}
	}
	if n := sick.Hits() - tried; n > 100 {
		t.Errorf("the sick partition was tried %d times for 200 events", n)
	}
	sick.Remove()
	until(t, "the partition back", func() bool {
		_, err := f.AppendWait(t.Context(), topic.Threads, inSlot(1), message("x"))
		return err == nil
	})
	var m dto.Metric
	if err := f.metrics.suspect.Write(&m); err != nil || m.GetGauge().GetValue() != 0 {
		t.Errorf("%v partitions are suspect, %v", m.GetGauge().GetValue(), err)
	}
}

// TestEveryEventFitsTheTopics: what ingest takes, the topics as they are made take too.
func TestEveryEventFitsTheTopics(t *testing.T) {
	if MaxEvent+1<<10 > kafka.MaxBatch {
		t.Errorf("an event may have %d bytes, and a batch %d", MaxEvent, kafka.MaxBatch)
	}
}
