package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/tools/operator"
)

// reference is the log, read raw to its end and folded in memory: what the devices are compared with.
type reference struct {
	records  int
	accepted entries // by the fold, in order
	refused  int     // duplicates and rejected events
	times    map[id.ThreadID]map[topic.Position]int64
	slots    map[id.ThreadID]topic.Slot
	threads  map[id.ThreadID]*thread.State
	users    map[id.UserID]*user.State
	ends     operator.Ends
}

// readLog reads threads, receipts and users from their first record to where they end now.
func readLog(ctx context.Context, cfg kafka.Config) (*reference, error) {
	r := &reference{
		accepted: entries{}, times: map[id.ThreadID]map[topic.Position]int64{}, slots: map[id.ThreadID]topic.Slot{},
		threads: map[id.ThreadID]*thread.State{},
		users:   map[id.UserID]*user.State{}, ends: operator.Ends{},
	}
	topics := []topic.Topic{topic.Threads, topic.Receipts, topic.Users}
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	bases, err := kafka.LoadBases(ctx, cl, cfg, topics, cfg.Partitions)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i], r.ends[t] = cfg.Name(t), map[topic.Slot]topic.Position{}
	}
	adm := kadm.NewClient(cl)
	begins, err := adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("where the log begins: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("where the log ends: %w", err)
	}
	from, left := map[string]map[int32]kgo.Offset{}, 0
	for name, parts := range ends {
		from[name] = map[int32]kgo.Offset{}
		for p, end := range parts {
			begin, _ := begins.Lookup(name, p)
			if end.Offset > begin.Offset {
				from[name][p] = kgo.NewOffset().At(begin.Offset)
				left++
			}
		}
	}
	reader, err := kafka.Dial(cfg, kgo.ConsumePartitions(from))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	for left > 0 {
		fs := reader.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		for _, rec := range fs.Records() {
			end, _ := ends.Lookup(rec.Topic, rec.Partition)
			if rec.Offset >= end.Offset {
				continue
			}
			t, ok := cfg.Topic(rec.Topic)
			if !ok {
				return nil, fmt.Errorf("a record of topic %s", rec.Topic)
			}
			at := bases.Position(rec)
			if err := r.add(t, rec, at); err != nil {
				return nil, fmt.Errorf("%s slot %d position %d: %w", t, rec.Partition, at, err)
			}
			r.ends[t][topic.Slot(rec.Partition)] = at + 1
			if rec.Offset == end.Offset-1 {
				left--
			}
		}
	}
	return r, nil
}

// add folds a record.
func (r *reference) add(t topic.Topic, rec *kgo.Record, at topic.Position) error {
	r.records++
	ev, err := event.Decode(rec.Value)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if len(rec.Key) < id.Size {
		return fmt.Errorf("a key of %d bytes", len(rec.Key))
	}
	ms := rec.Timestamp.UnixMilli()
	subject := rec.Key[:id.Size]
	switch t {
	case topic.Threads:
		tid := id.ThreadID(subject)
		s := r.threads[tid]
		if s == nil {
			s = thread.New(tid)
			r.threads[tid], r.times[tid] = s, map[topic.Position]int64{}
			r.slots[tid] = topic.Slot(rec.Partition)
		}
		v := s.Apply(ev, at, ms)
		if v.Outcome != thread.Accepted {
			r.refused++
			return nil
		}
		e, err := entryOf(ev, at, v.Ordinal)
		if err != nil {
			return err
		}
		r.accepted[tid] = append(r.accepted[tid], e)
		r.times[tid][at] = ms
	case topic.Users:
		u := id.UserID(subject)
		s := r.users[u]
		if s == nil {
			s = user.New(u)
			r.users[u] = s
		}
		s.Apply(ev, at, ms)
	}
	return nil
}

// seenBy is what a device of a user should have been given.
func (r *reference) seenBy(me id.UserID, d id.DeviceID) entries {
	out := entries{}
	var floor user.Floor
	if s := r.users[me]; s != nil && s.Devices[d] != nil {
		floor = s.Devices[d].Floor()
	}
	for t, all := range r.accepted {
		m := r.threads[t].Member(me)
		if m == nil {
			continue
		}
		from, ms := floor.In(r.slots[t])
		for _, e := range all {
			if m.Sees(e.Position) && e.Position >= from && r.times[t][e.Position] >= ms {
				out[t] = append(out[t], e)
			}
		}
	}
	return out
}

// messages counts the accepted messages.
func (r *reference) messages() int {
	n := 0
	for _, es := range r.accepted {
		for _, e := range es {
			if e.Kind == messageSent {
				n++
			}
		}
	}
	return n
}

// sorted returns the threads in the order of their ids.
func sorted(m map[id.ThreadID]bool) []id.ThreadID {
	out := make([]id.ThreadID, 0, len(m))
	for t := range m {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b id.ThreadID) int { return strings.Compare(string(a[:]), string(b[:])) })
	return out
}
