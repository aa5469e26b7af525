package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

const (
	// againAtOnce is how many slots may read the log again at one time, each with a client of its own and some 8 MiB of
	// records fetched ahead.
	againAtOnce = 4
	// againSilence is how long the log may say nothing to one that reads it again.
	againSilence = 30 * time.Second
)

// Records yields the records of a topic of a slot at positions from <= p < to, in order, as far as the log has them: of
// a compacted topic those that are left, and none from before the log's start. What comes with an error is the last and
// no record: the error is ErrPositions when the log ends before to, else transient. Those that an operator has dropped
// have no value. It reads beside what the consumer reads, once that runs; when too many do, it waits.
func (c *Consumer) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		select {
		case c.again <- struct{}{}:
			defer func() { <-c.again }()
		case <-ctx.Done():
			yield(Record{}, ctx.Err())
			return
		}
		stopped := false
		err := c.readAgain(ctx, t, s, from, to, func(r Record) bool {
			stopped = !yield(r, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Record{}, fmt.Errorf("kafka: read %s/%d again from %d to %d: %w", t, s, from, to, err))
		}
	}
}

// readAgain gives the records to take until it returns false.
func (c *Consumer) readAgain(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position, take func(Record) bool,
) error {
	if c.Partitions() == 0 {
		return errors.New("the log is not known yet")
	}
	name := c.cfg.Kafka.Name(t)
	start, end, err := c.extent(ctx, t, s)
	if err != nil {
		return err
	}
	at, stop := max(from, start), min(to, end)
	if at < stop {
		quiet := c.cfg.Kafka
		quiet.Registerer = nil
		offset := kgo.NewOffset().At(c.bases.Offset(t, s, at)).WithEpoch(-1)
		cl, err := Dial(quiet,
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {int32(s): offset}}),
			kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(250*time.Millisecond),
			kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(1<<20), kgo.MaxDecompressBatchBytes(16<<20))
		if err != nil {
			return err
		}
		defer cl.Close()
		for at < stop {
			recs, err := pollAgain(ctx, cl)
			if err != nil {
				return err
			}
			for _, r := range recs {
				if len(r.Headers) > 0 {
					if changed, err := c.bases.Observe(r); err != nil || changed {
						return errors.Join(err, errBase)
					}
				}
				at = c.bases.Position(r) + 1
				if at > stop {
					break
				}
				again := Record{
					Topic: t, Slot: s, Position: at - 1, LogTime: r.Timestamp, Key: r.Key, Value: r.Value,
				}
				if c.decisions != nil {
					c.decisions.Known(s).blank(&again)
				}
				if !take(again) {
					return nil
				}
			}
		}
	}
	if end < to {
		return fmt.Errorf("%w: the log ends at %d", ErrPositions, end)
	}
	return nil
}

// extent asks the log where a partition begins and ends.
func (c *Consumer) extent(ctx context.Context, t topic.Topic, s topic.Slot) (start, end topic.Position, err error) {
	name := c.cfg.Kafka.Name(t)
	for i, at := range []*topic.Position{&start, &end} {
		listed, err := listOffsets(ctx, c.cl, i == 1, []string{name})
		if err != nil {
			return 0, 0, err
		}
		o, ok := listed.Lookup(name, int32(s))
		if !ok {
			return 0, 0, fmt.Errorf("no partition %d", s)
		}
		*at = c.bases.At(t, s, o.Offset)
		if i == 1 {
			*at = c.bases.end(name, int32(s), o.Offset)
		}
	}
	return start, end, nil
}

// pollAgain waits for the next records of a client that reads one partition.
func pollAgain(ctx context.Context, cl *kgo.Client) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, againSilence)
	defer cancel()
	fs := cl.PollFetches(ctx)
	for _, e := range fs.Errors() {
		return nil, fetchError(e.Topic, e.Partition, e.Err)
	}
	return fs.Records(), ctx.Err()
}
