package generation

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// Extent is what the log has of a topic in a slot: positions from Begin up to, and not with, End. Records is how many
// offsets lie between, which is how many records at most: positions may have gaps, where a log was adopted.
type Extent struct {
	Begin, End topic.Position
	Records    int64
}

// Extents are those of all slots.
type Extents map[topic.Slot]map[topic.Topic]Extent

// log asks the log where it begins and ends.
type log struct {
	cl     *kgo.Client
	adm    *kadm.Client
	cfg    kafka.Config
	bases  *kafka.Bases
	topics []topic.Topic
}

// openLog connects; the caller closes. cfg.Partitions is P.
func openLog(ctx context.Context, cfg kafka.Config, topics []topic.Topic) (*log, error) {
	quiet := cfg
	quiet.Registerer = nil
	cl, err := kafka.Dial(quiet)
	if err != nil {
		return nil, err
	}
	bases, err := kafka.LoadBases(ctx, cl, quiet, topics, cfg.Partitions)
	if err != nil {
		cl.Close()
		return nil, err
	}
	return &log{cl: cl, adm: kadm.NewClient(cl), cfg: quiet, bases: bases, topics: topics}, nil
}

func (l *log) close() { l.cl.Close() }

// extents asks for those of all slots. A topic of a slot that holds nothing is left out.
func (l *log) extents(ctx context.Context) (Extents, error) {
	out := Extents{}
	for _, t := range l.topics {
		name := l.cfg.Name(t)
		begins, err := l.adm.ListStartOffsets(ctx, name)
		if err == nil {
			err = begins.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("ask where %s begins: %w", name, err)
		}
		ends, err := l.bases.Ends(ctx, l.cl, t)
		if err != nil {
			return nil, err
		}
		for n, end := range ends {
			s := topic.Slot(n)
			begin, _ := begins.Lookup(name, int32(s))
			first := max(begin.Offset, l.bases.First(t, s))
			e := Extent{Begin: l.bases.At(t, s, first), End: end, Records: l.bases.Offset(t, s, end) - first}
			if e.Records <= 0 {
				continue
			}
			if out[s] == nil {
				out[s] = map[topic.Topic]Extent{}
			}
			out[s][t] = e
		}
	}
	return out, nil
}

// at returns the positions of the first records that were logged at a time or later; the end where there are none.
func (l *log) at(ctx context.Context, when time.Time) (map[topic.Slot]kafka.Positions, error) {
	out := map[topic.Slot]kafka.Positions{}
	for _, t := range l.topics {
		name := l.cfg.Name(t)
		listed, err := l.adm.ListOffsetsAfterMilli(ctx, when.UnixMilli(), name)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s for %v: %w", name, when, err)
		}
		listed.Each(func(o kadm.ListedOffset) {
			s := topic.Slot(o.Partition)
			if out[s] == nil {
				out[s] = kafka.Positions{}
			}
			out[s][t] = l.bases.At(t, s, o.Offset)
		})
	}
	return out, nil
}

// logged returns when the event at a position of a thread's slot was logged.
func (l *log) logged(ctx context.Context, s topic.Slot, at topic.Position, e Extent) (time.Time, error) {
	name := l.cfg.Name(topic.Threads)
	if at < e.Begin || at >= e.End {
		return time.Time{}, fmt.Errorf("%s has positions %d to %d in slot %d, and not %d",
			name, e.Begin, e.End-1, s, at)
	}
	offset := kgo.NewOffset().At(l.bases.Offset(topic.Threads, s, at)).WithEpoch(-1)
	cl, err := kafka.Dial(l.cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {int32(s): offset}}))
	if err != nil {
		return time.Time{}, err
	}
	defer cl.Close()
	fs := cl.PollRecords(ctx, 1)
	for _, e := range fs.Errors() {
		return time.Time{}, fmt.Errorf("read %s/%d at %d: %w", name, s, at, e.Err)
	}
	for _, r := range fs.Records() {
		return r.Timestamp, nil
	}
	return time.Time{}, fmt.Errorf("read %s/%d at %d: %w", name, s, at, ctx.Err())
}

// upTo is how many records of an extent lie before a position.
func (l *log) upTo(t topic.Topic, s topic.Slot, e Extent, next topic.Position) int64 {
	return max(0, l.bases.Offset(t, s, min(next, e.End))-l.bases.Offset(t, s, e.Begin))
}

// bytes asks how many the log holds of each topic, as it is stored, of one replica; it is empty where the brokers do
// not say.
func (l *log) bytes(ctx context.Context) map[topic.Topic]int64 {
	set := kadm.TopicsSet{}
	names := map[string]topic.Topic{}
	for _, t := range l.topics {
		name := l.cfg.Name(t)
		names[name] = t
		for s := range l.cfg.Partitions {
			set.Add(name, int32(s))
		}
	}
	out := map[topic.Topic]int64{}
	dirs, err := l.adm.DescribeAllLogDirs(ctx, set)
	if err != nil {
		return out
	}
	most := map[string]map[int32]int64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if most[p.Topic] == nil {
				most[p.Topic] = map[int32]int64{}
			}
			most[p.Topic][p.Partition] = max(most[p.Topic][p.Partition], p.Size)
		})
	})
	for name, sizes := range most {
		for _, n := range sizes {
			out[names[name]] += n
		}
	}
	return out
}
