package kafka

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// Bases holds the base of every partition: position = base + Kafka offset. It is read without locks, from any
// goroutine.
type Bases struct {
	cfg    Config
	byName map[string][]atomic.Int64 // by the topic's name on the cluster, then by slot
}

// LoadBases reads the first record of every partition of the topics: its header topic.BaseHeader carries the base of a
// log that was restored or resharded. Empty partitions have base 0 until their first record says otherwise (see
// Observe).
func LoadBases(ctx context.Context, cl *kgo.Client, cfg Config, topics []topic.Topic, partitions int) (*Bases, error) {
	b := &Bases{cfg: cfg, byName: make(map[string][]atomic.Int64)}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = cfg.Name(t)
		b.byName[names[i]] = make([]atomic.Int64, partitions)
	}
	starts, err := listOffsets(ctx, cl, false, names)
	if err != nil {
		return nil, err
	}
	ends, err := listOffsets(ctx, cl, true, names)
	if err != nil {
		return nil, err
	}
	want := make(map[string]map[int32]kgo.Offset)
	starts.Each(func(o kadm.ListedOffset) {
		end, ok := ends.Lookup(o.Topic, o.Partition)
		if !ok || end.Offset <= o.Offset || int(o.Partition) >= partitions {
			return
		}
		if want[o.Topic] == nil {
			want[o.Topic] = make(map[int32]kgo.Offset)
		}
		want[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset).WithEpoch(-1)
	})
	err = firstAt(ctx, cfg, want, func(r *kgo.Record) error {
		_, err := b.Observe(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// firstAt reads the first record of each partition at or after an offset, at which, or after which, it must have one.
func firstAt(
	ctx context.Context, cfg Config, want map[string]map[int32]kgo.Offset, fn func(*kgo.Record) error,
) error {
	left := 0
	for _, parts := range want {
		left += len(parts)
	}
	if left == 0 {
		return nil
	}
	quiet := cfg
	quiet.Registerer = nil
	rd, err := Dial(quiet, kgo.ConsumePartitions(want), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxPartitionBytes(1<<10), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer rd.Close()
	seen := make(map[string]map[int32]bool, len(want))
	for left > 0 {
		fs := rd.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("kafka: read single records: %w", err)
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("kafka: read a record of %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		done := make(map[string][]int32)
		var bad error
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 || seen[p.Topic][p.Partition] || bad != nil {
				return
			}
			bad = fn(p.Records[0])
			if seen[p.Topic] == nil {
				seen[p.Topic] = make(map[int32]bool)
			}
			seen[p.Topic][p.Partition] = true
			done[p.Topic] = append(done[p.Topic], p.Partition)
			left--
		})
		if bad != nil {
			return bad
		}
		rd.PauseFetchPartitions(done) // else a long log would be read on for nothing
	}
	return nil
}

// Observe learns the base from a record that carries one and tells whether it is another than was known. Records
// without the header change nothing.
func (b *Bases) Observe(rec *kgo.Record) (changed bool, err error) {
	for _, h := range rec.Headers {
		if h.Key != topic.BaseHeader {
			continue
		}
		base, err := topic.ParseBase(h.Value)
		if err != nil {
			return false, fmt.Errorf("kafka: first record of %s/%d: %w", rec.Topic, rec.Partition, err)
		}
		slots := b.byName[rec.Topic]
		if int(rec.Partition) >= len(slots) {
			return false, nil
		}
		return slots[rec.Partition].Swap(int64(base)) != int64(base), nil
	}
	return false, nil
}

// Of returns the base of a partition.
func (b *Bases) Of(t topic.Topic, s topic.Slot) topic.Position {
	return b.of(b.cfg.Name(t), int32(s))
}

// Position returns the position of a record that was produced or fetched.
func (b *Bases) Position(rec *kgo.Record) topic.Position {
	return b.of(rec.Topic, rec.Partition) + topic.Position(rec.Offset)
}

func (b *Bases) of(name string, p int32) topic.Position {
	slots := b.byName[name]
	if p < 0 || int(p) >= len(slots) {
		return 0
	}
	return topic.Position(slots[p].Load())
}
