package main

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

// openTopic is a topic of the log as it stood when it was opened: what comes later is beyond its ends.
type openTopic struct {
	cfg    kafka.Config
	cl     *kgo.Client
	topic  topic.Topic
	name   string // on this cluster
	slots  int
	begins kadm.ListedOffsets
	ends   kadm.ListedOffsets
	bases  *kafka.Bases
}

// span is a part of each of some slots: offsets from the first up to, and not with, the second.
type span map[topic.Slot][2]int64

// records is how many offsets it has.
func (s span) records() (n int64) {
	for _, r := range s {
		n += max(0, r[1]-r[0])
	}
	return n
}

// lookAt asks the log where a topic begins and ends. The caller closes it.
func lookAt(ctx context.Context, cfg kafka.Config, t topic.Topic) (*openTopic, error) {
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	o := &openTopic{cfg: cfg, cl: cl, topic: t, name: cfg.Name(t)}
	if err := o.look(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return o, nil
}

func (o *openTopic) look(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if o.begins, err = o.list(ctx, kadm.NewClient(o.cl).ListStartOffsets); err != nil {
		return err
	}
	if o.ends, err = o.list(ctx, kadm.NewClient(o.cl).ListEndOffsets); err != nil {
		return err
	}
	o.slots = len(o.ends[o.name])
	if o.bases, err = kafka.LoadBases(ctx, o.cl, o.cfg, []topic.Topic{o.topic}, o.slots); err != nil {
		return fmt.Errorf("read bases: %w", err)
	}
	return nil
}

// close gives up the connections.
func (o *openTopic) close() { o.cl.Close() }

func (o *openTopic) list(
	ctx context.Context, ask func(context.Context, ...string) (kadm.ListedOffsets, error),
) (kadm.ListedOffsets, error) {
	listed, err := ask(ctx, o.name)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", strings.Join(o.cfg.Brokers, ","), o.name, err)
	}
	if len(listed[o.name]) == 0 || listed.Error() != nil {
		return nil, fmt.Errorf("there is no topic %s at %s", o.name, strings.Join(o.cfg.Brokers, ","))
	}
	return listed, nil
}

// begin and end are those of a slot.
func (o *openTopic) begin(s topic.Slot) int64 { return o.begins[o.name][int32(s)].Offset }
func (o *openTopic) end(s topic.Slot) int64   { return o.ends[o.name][int32(s)].Offset }

// all lists every slot.
func (o *openTopic) all() []topic.Slot {
	out := make([]topic.Slot, o.slots)
	for i := range out {
		out[i] = topic.Slot(i)
	}
	return out
}

// since returns the offsets of the slots' first records that were logged at a time or later; the end where there are
// none.
func (o *openTopic) since(ctx context.Context, at time.Time, slots []topic.Slot) (map[topic.Slot]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	listed, err := o.list(ctx, func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return kadm.NewClient(o.cl).ListOffsetsAfterMilli(ctx, max(0, at.UnixMilli()), names...)
	})
	if err != nil {
		return nil, err
	}
	out := map[topic.Slot]int64{}
	for _, s := range slots {
		out[s] = min(listed[o.name][int32(s)].Offset, o.end(s)) // records may have come since the ends were asked for
	}
	return out, nil
}

// around returns what was logged from one time until another.
func (o *openTopic) around(ctx context.Context, from, until time.Time, slots []topic.Slot) (span, error) {
	first, err := o.since(ctx, from, slots)
	if err != nil {
		return nil, err
	}
	last, err := o.since(ctx, until, slots)
	if err != nil {
		return nil, err
	}
	out := span{}
	for _, s := range slots {
		out[s] = [2]int64{first[s], last[s]}
	}
	return out, nil
}

// reader reads the slots from offsets on.
func (o *openTopic) reader(from map[topic.Slot]int64) (*kgo.Client, error) {
	offsets := map[int32]kgo.Offset{}
	for s, at := range from {
		offsets[int32(s)] = kgo.NewOffset().At(at)
	}
	return kafka.Dial(
		o.cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.name: offsets}),
		kgo.FetchMaxWait(250*time.Millisecond),
	)
}

// scan hands over the records of a span, each slot's in order, until there are no more or each says that it has seen
// enough.
func (o *openTopic) scan(ctx context.Context, sp span, each func(*kgo.Record) (more bool)) error {
	from := map[topic.Slot]int64{}
	for s, r := range sp {
		if r[0] < r[1] {
			from[s] = r[0]
		}
	}
	if len(from) == 0 {
		return nil
	}
	reader, err := o.reader(from)
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
			return fmt.Errorf("read %s: %w", o.name, err)
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
					reader.PauseFetchPartitions(map[string][]int32{o.name: {p.Partition}})
				}
			}
		})
	}
	return nil
}

// backwards hands over the last records of a slot that wanted takes, oldest first, at most n. It reads ever longer
// stretches before those that it has read, so that a subject that was heard of lately costs little in a long log.
func (o *openTopic) backwards(
	ctx context.Context, s topic.Slot, n int, wanted func(*kgo.Record) bool,
) ([]*kgo.Record, error) {
	var found []*kgo.Record
	until := o.end(s)
	for step := int64(2000); until > o.begin(s) && len(found) < n; step = min(2*step, 200_000) {
		from := max(o.begin(s), until-step)
		var some []*kgo.Record
		err := o.scan(ctx, span{s: {from, until}}, func(r *kgo.Record) bool {
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
