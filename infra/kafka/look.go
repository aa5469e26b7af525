package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// Standing is where somebody stands in a partition: he has taken in everything before Next, and Mark is that of the
// record before it.
type Standing struct {
	Topic topic.Topic
	Slot  topic.Slot
	Next  topic.Position
	Mark  topic.Mark
	Time  time.Time // the highest log time of what he has taken in; zero: not known
}

// Look tells, over connections of its own, what is wrong with the log for those who stand in it: of each of them at
// most one fault, in their order. Nothing at all says that each has read a part of the log that is there, which is the
// whole of it up to where he stands. An error is transient.
func Look(ctx context.Context, cfg Config, bases *Bases, at []Standing) ([]*LogError, error) {
	if len(at) == 0 {
		return nil, nil
	}
	quiet := cfg
	quiet.Registerer = nil
	cl, err := Dial(quiet)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	names := make(map[string]topic.Topic)
	for _, a := range at {
		names[cfg.Name(a.Topic)] = a.Topic
	}
	l, err := askLayout(ctx, cl, names, bases)
	if err != nil {
		return nil, err
	}
	faults := make([]*LogError, len(at))
	var read []int // those whose record is to be looked at
	for i, a := range at {
		faults[i] = l.fault(a)
		if faults[i] == nil && a.Mark.Digest != 0 && l.reads(cfg, bases, a) {
			read = append(read, i)
		}
	}
	for len(read) > 0 {
		if read, err = lookAtRecords(ctx, quiet, bases, at, read, faults); err != nil {
			return nil, err
		}
	}
	var out []*LogError
	for _, f := range faults {
		if f != nil {
			out = append(out, f)
		}
	}
	return out, nil
}

// reads tells whether the record before which somebody stands can be asked for.
func (l layout) reads(cfg Config, bases *Bases, a Standing) bool {
	start, ok := l.starts.Lookup(cfg.Name(a.Topic), int32(a.Slot))
	_, answered := l.ends[a.Topic][a.Slot]
	at := bases.Offset(a.Topic, a.Slot, a.Next) - 1
	return ok && start.Err == nil && answered && at >= max(0, start.Offset)
}

// lookAtRecords reads the records before which some stand, one of each partition, and returns those who are left.
func lookAtRecords(
	ctx context.Context, cfg Config, bases *Bases, at []Standing, read []int, faults []*LogError,
) (left []int, err error) {
	type partition struct {
		name string
		n    int32
	}
	want := make(map[string]map[int32]kgo.Offset)
	of := make(map[partition]int)
	for _, i := range read {
		a := at[i]
		p := partition{cfg.Name(a.Topic), int32(a.Slot)}
		if _, taken := of[p]; taken {
			left = append(left, i)
			continue
		}
		of[p] = i
		if want[p.name] == nil {
			want[p.name] = make(map[int32]kgo.Offset)
		}
		want[p.name][p.n] = kgo.NewOffset().At(bases.Offset(a.Topic, a.Slot, a.Next) - 1).WithEpoch(-1)
	}
	return left, firstAt(ctx, cfg, want, func(r *kgo.Record) error {
		i := of[partition{r.Topic, r.Partition}]
		a := at[i]
		// Of a topic that is compacted the record may be gone.
		same := bases.Position(r) == a.Next-1 && topic.Digest(r.Key, r.Value) == a.Mark.Digest
		if gone := bases.Position(r) >= a.Next && !keptWhole(a.Topic); !same && !gone {
			faults[i] = &LogError{Topic: a.Topic, Slot: a.Slot, Fault: FaultChanged, Next: a.Next}
		}
		return nil
	})
}
