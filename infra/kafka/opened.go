package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// Opened is an operator's decision on a partition that is not the log that was read: to go on with what is there.
type Opened struct {
	Topic topic.Topic
	Slot  topic.Slot
	Base  topic.Position // of the offsets from From on
	From  int64          // Kafka offset: what comes before it is what was read there
	First int64          // Kafka offset at which the partition began
	Read  topic.Position // how far it had been read, as far as is known
	Note  string
}

// event is how it stands in the log.
func (o Opened) event() *eventv1.Event {
	return eventv1.Event_builder{LogOpened: eventv1.LogOpened_builder{
		Base: int64(o.Base), Topic: o.Topic.Number(), FromOffset: o.From, FirstOffset: o.First,
		ReadUpTo: int64(o.Read), Note: o.Note,
	}.Build()}.Build()
}

// readOpened reads the decisions that stand in helio.quarantine, of all partitions.
func readOpened(ctx context.Context, cl *kgo.Client, cfg Config) ([]Opened, error) {
	var out []Opened
	err := readAll(ctx, cl, cfg, topic.Quarantine, func(r *kgo.Record) error {
		var e eventv1.Event
		// What cannot be read is told by those who read of quarantine.
		if err := proto.Unmarshal(r.Value, &e); err == nil && !e.HasLogOpened() || err != nil {
			return nil //nolint:nilerr // see above
		}
		l := e.GetLogOpened()
		if l.GetTopic() == 0 {
			return nil // of this topic itself
		}
		t, err := topic.FromNumber(l.GetTopic())
		if err != nil {
			return fmt.Errorf("a decision on a topic of a later version: %w", err)
		}
		out = append(out, Opened{
			Topic: t, Slot: topic.Slot(r.Partition), Base: topic.Position(l.GetBase()), From: l.GetFromOffset(),
			First: l.GetFirstOffset(), Read: topic.Position(l.GetReadUpTo()), Note: l.GetNote(),
		})
		return nil
	})
	return out, err
}

// readAll reads every record that a topic has now, each partition's in order.
func readAll(ctx context.Context, cl *kgo.Client, cfg Config, t topic.Topic, fn func(*kgo.Record) error) error {
	name := cfg.Name(t)
	starts, err := listOffsets(ctx, cl, false, []string{name})
	if err != nil {
		return err
	}
	ends, err := listOffsets(ctx, cl, true, []string{name})
	if err != nil {
		return err
	}
	want := make(map[int32]kgo.Offset)
	left := make(map[int32]int64) // where what is still to come ends
	for n, o := range starts[name] {
		if end, ok := ends.Lookup(name, n); ok && end.Offset > o.Offset {
			want[n], left[n] = kgo.NewOffset().At(o.Offset).WithEpoch(-1), end.Offset
		}
	}
	if len(left) == 0 {
		return nil
	}
	quiet := cfg
	quiet.Registerer = nil
	rd, err := Dial(quiet, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: want}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(250*time.Millisecond), kgo.FetchMaxBytes(1<<20))
	if err != nil {
		return err
	}
	defer rd.Close()
	for len(left) > 0 {
		fs := rd.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		var bad error
		fs.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && bad == nil {
				bad = fn(r)
				if r.Offset+1 >= end {
					delete(left, r.Partition)
				}
			}
		})
		if bad != nil {
			return bad
		}
	}
	return nil
}
