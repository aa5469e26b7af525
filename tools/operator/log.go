package operator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// askTime bounds one question to the log, which is not the reading of it.
const askTime = 20 * time.Second

// Log is one topic of the log as it stood when it was opened: what comes later is beyond its ends. Its methods may be
// called from any goroutine.
type Log struct {
	cfg    kafka.Config
	cl     *kgo.Client
	topic  topic.Topic
	name   string // on this cluster
	slots  int
	begins kadm.ListedOffsets
	ends   kadm.ListedOffsets
	bases  *kafka.Bases
}

// Span is a part of each of some slots: offsets from the first up to, and not with, the second.
type Span map[topic.Slot][2]int64

// Records is how many offsets it has, which is how many records at most.
func (s Span) Records() (n int64) {
	for _, r := range s {
		n += max(0, r[1]-r[0])
	}
	return n
}

// Open asks the log where a topic begins and ends. The caller closes it.
func Open(ctx context.Context, cfg kafka.Config, t topic.Topic) (*Log, error) {
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, cl: cl, topic: t, name: cfg.Name(t)}
	if err := l.look(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) look(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if l.begins, err = l.list(ctx, kadm.NewClient(l.cl).ListStartOffsets); err != nil {
		return err
	}
	if l.ends, err = l.list(ctx, kadm.NewClient(l.cl).ListEndOffsets); err != nil {
		return err
	}
	l.slots = len(l.ends[l.name])
	if l.bases, err = kafka.LoadBases(ctx, l.cl, l.cfg, []topic.Topic{l.topic}, l.slots); err != nil {
		return fmt.Errorf("read bases: %w", err)
	}
	return nil
}

// Close gives up the connections.
func (l *Log) Close() { l.cl.Close() }

func (l *Log) list(
	ctx context.Context, ask func(context.Context, ...string) (kadm.ListedOffsets, error),
) (kadm.ListedOffsets, error) {
	listed, err := ask(ctx, l.name)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", strings.Join(l.cfg.Brokers, ","), l.name, err)
	}
	if len(listed[l.name]) == 0 || listed.Error() != nil {
		return nil, fmt.Errorf("there is no topic %s at %s", l.name, strings.Join(l.cfg.Brokers, ","))
	}
	return listed, nil
}

// Name is the topic's on this cluster.
func (l *Log) Name() string { return l.name }

// Partitions is P.
func (l *Log) Partitions() int { return l.slots }

// Slots lists every slot.
func (l *Log) Slots() []topic.Slot {
	out := make([]topic.Slot, l.slots)
	for i := range out {
		out[i] = topic.Slot(i)
	}
	return out
}

// Begin is the offset of a slot's first record.
func (l *Log) Begin(s topic.Slot) int64 { return l.begins[l.name][int32(s)].Offset }

// End is the offset after a slot's last record.
func (l *Log) End(s topic.Slot) int64 { return l.ends[l.name][int32(s)].Offset }

// Position is where a record of the topic lies.
func (l *Log) Position(r *kgo.Record) topic.Position { return l.bases.Position(r) }

// Offset is where the record at a position of a slot lies.
func (l *Log) Offset(s topic.Slot, at topic.Position) int64 {
	return l.bases.Offset(l.topic, s, at)
}

// Since returns the offsets of the slots' first records that were logged at a time or later; the end where there are
// none.
func (l *Log) Since(ctx context.Context, at time.Time, slots []topic.Slot) (map[topic.Slot]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	listed, err := l.list(ctx, func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return kadm.NewClient(l.cl).ListOffsetsAfterMilli(ctx, max(0, at.UnixMilli()), names...)
	})
	if err != nil {
		return nil, err
	}
	out := map[topic.Slot]int64{}
	for _, s := range slots {
		out[s] = min(listed[l.name][int32(s)].Offset, l.End(s)) // records may have come since the ends were asked for
	}
	return out, nil
}

// Around returns what was logged from one time until another.
func (l *Log) Around(ctx context.Context, from, until time.Time, slots []topic.Slot) (Span, error) {
	first, err := l.Since(ctx, from, slots)
	if err != nil {
		return nil, err
	}
	last, err := l.Since(ctx, until, slots)
	if err != nil {
		return nil, err
	}
	out := Span{}
	for _, s := range slots {
		out[s] = [2]int64{first[s], last[s]}
	}
	return out, nil
}

// follow hands over what the slots have from offsets on, and what comes, until ctx ends or each says that it has seen
// enough.
func (l *Log) follow(ctx context.Context, from map[topic.Slot]int64, each func(*kgo.Record) (more bool)) error {
	reader, err := l.reader(from)
	if err != nil {
		return err
	}
	defer reader.Close()
	for more := true; more; {
		fs := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fs.EachRecord(func(r *kgo.Record) { more = more && each(r) })
		if err := fs.Err(); err != nil {
			return fmt.Errorf("follow %s: %w", l.name, err)
		}
	}
	return nil
}

// reader reads the slots from offsets on.
func (l *Log) reader(from map[topic.Slot]int64) (*kgo.Client, error) {
	offsets := map[int32]kgo.Offset{}
	for s, at := range from {
		offsets[int32(s)] = kgo.NewOffset().At(at)
	}
	return kafka.Dial(
		l.cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.name: offsets}),
		kgo.FetchMaxWait(250*time.Millisecond),
	)
}

// Scan hands over the records of a Span, each slot's in order, until there are no more or each says that it has seen
// enough.
func (l *Log) Scan(ctx context.Context, sp Span, each func(*kgo.Record) (more bool)) error {
	from := map[topic.Slot]int64{}
	for s, r := range sp {
		if r[0] < r[1] {
			from[s] = r[0]
		}
	}
	if len(from) == 0 {
		return nil
	}
	reader, err := l.reader(from)
	if err != nil {
		return err
	}
	defer reader.Close()
	more := true
	for len(from) > 0 && more {
		fs := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fs.Err(); err != nil {
			return fmt.Errorf("read %s: %w", l.name, err)
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			s := topic.Slot(p.Partition)
			for _, r := range p.Records {
				if _, wanted := from[s]; !wanted || !more {
					return
				}
				if r.Offset < sp[s][1] {
					more = each(r)
				}
				if r.Offset+1 >= sp[s][1] {
					delete(from, s)
					reader.PauseFetchPartitions(map[string][]int32{l.name: {p.Partition}})
				}
			}
		})
	}
	return nil
}

// Backwards hands over the last records of a slot that wanted takes, oldest first, at most n. It reads ever longer
// stretches before those that it has read, so that a subject that was heard of lately costs little in a long log.
func (l *Log) Backwards(
	ctx context.Context, s topic.Slot, n int, wanted func(*kgo.Record) bool,
) ([]*kgo.Record, error) {
	var found []*kgo.Record
	until := l.End(s)
	for step := int64(2000); until > l.Begin(s) && len(found) < n; step = min(2*step, 200_000) {
		from := max(l.Begin(s), until-step)
		var some []*kgo.Record
		err := l.Scan(ctx, Span{s: {from, until}}, func(r *kgo.Record) bool {
			if wanted(r) {
				some = append(some, r)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		found, until = append(some, found...), from
	}
	return found[max(0, len(found)-n):], nil
}
