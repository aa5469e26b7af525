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

// readOpened reads the decisions that stand in helio.quarantine, of all partitions, from offsets on, and returns up to
// which it has read.
func readOpened(
	ctx context.Context, cl *kgo.Client, cfg Config, from map[int32]int64,
) (out []Opened, read map[int32]int64, err error) {
	read, err = readAll(ctx, cl, cfg, topic.Quarantine, from, func(r *kgo.Record) error {
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
	return out, read, err
}

// readAll reads the records that a topic has now from offsets on, each partition's in order, and returns up to which. A
// partition that ends before its offset, or has none, is read whole.
func readAll(
	ctx context.Context, cl *kgo.Client, cfg Config, t topic.Topic, from map[int32]int64, fn func(*kgo.Record) error,
) (read map[int32]int64, err error) {
	name := cfg.Name(t)
	starts, err := listOffsets(ctx, cl, false, []string{name})
	if err != nil {
		return nil, err
	}
	ends, err := listOffsets(ctx, cl, true, []string{name})
	if err != nil {
		return nil, err
	}
	read = make(map[int32]int64)
	want := make(map[int32]kgo.Offset)
	left := make(map[int32]int64) // where what is still to come ends
	for n, o := range starts[name] {
		end, ok := ends.Lookup(name, n)
		if !ok || end.Err != nil || o.Err != nil {
			read[n] = from[n] // next time
			continue
		}
		at := o.Offset
		if from[n] <= end.Offset {
			at = max(at, from[n])
		}
		read[n] = end.Offset
		if end.Offset > at {
			want[n], left[n] = kgo.NewOffset().At(at).WithEpoch(-1), end.Offset
		}
	}
	if len(left) == 0 {
		return read, nil
	}
	quiet := cfg
	quiet.Registerer = nil
	rd, err := Dial(quiet, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: want}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(250*time.Millisecond), kgo.FetchMaxBytes(1<<20))
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	for len(left) > 0 {
		fs := rd.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, e := range fs.Errors() {
			return nil, fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
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
			return nil, bad
		}
	}
	return read, nil
}
