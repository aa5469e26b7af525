package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/topic"
)

// eraBits: the positions of what is adopted begin at the next multiple of 1 << eraBits, so past all that anybody was
// ever told, also by an acknowledgement that no view has seen. Positions stay exact in a double for 8,192 adoptions.
const eraBits = 40

// PlanAdoption returns what adopting the log as it is would decide, for each partition that is not the log that those
// have read who stand in it. What was appended after the last event that any of them has taken in, by its log time, is
// kept and gets new positions; what they share with the log keeps its positions. It changes nothing.
func PlanAdoption(ctx context.Context, cfg Config, bases *Bases, at []Standing) ([]Opened, []*LogError, error) {
	faults, err := Look(ctx, cfg, bases, at)
	if err != nil {
		return nil, nil, err
	}
	type partition struct {
		t topic.Topic
		s topic.Slot
	}
	found := make(map[partition][]*LogError)
	wrong := make(map[partition]map[topic.Position]bool) // where those stand who have read what is not there
	for _, f := range faults {
		p := partition{f.Topic, f.Slot}
		if wrong[p] == nil {
			wrong[p] = make(map[topic.Position]bool)
		}
		wrong[p][f.Next] = true
	}
	for _, f := range faults {
		if f.Fault != FaultGivenUp { // a view's matter
			p := partition{f.Topic, f.Slot}
			found[p] = append(found[p], f)
		}
	}
	if len(found) == 0 {
		return nil, faults, nil
	}
	cl, err := Dial(cfg)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	var out []Opened
	for p, faults := range found {
		o := Opened{Topic: p.t, Slot: p.s}
		var last time.Time
		for _, a := range at {
			if a.Topic == p.t && a.Slot == p.s {
				o.Read = max(o.Read, a.Next)
				if wrong[p][a.Next] && a.Time.After(last) { // who is in order may have read on meanwhile
					last = a.Time
				}
			}
		}
		start, end, after, err := bounds(ctx, cl, cfg.Name(p.t), p.s, last)
		if err != nil {
			return nil, nil, err
		}
		known := bases.of(cfg.Name(p.t), int32(p.s)).eraAt(end)
		o.Base, o.From, o.First = known.base, known.from, known.from
		if keptWhole(p.t) {
			o.First = start
		}
		if slices.ContainsFunc(faults, func(f *LogError) bool { return f.Fault != FaultCut }) {
			o.From = after
			next := (max(o.Read, bases.At(p.t, p.s, end))>>eraBits + 1) << eraBits
			o.Base = next - topic.Position(after)
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b Opened) int {
		if a.Topic != b.Topic {
			return int(a.Topic.Number() - b.Topic.Number())
		}
		return int(a.Slot - b.Slot)
	})
	return out, faults, nil
}

// bounds returns the offsets at which a partition begins and ends, and that of the first record with a later log time.
func bounds(
	ctx context.Context, cl *kgo.Client, name string, s topic.Slot, last time.Time,
) (start, end, after int64, err error) {
	adm := kadm.NewClient(cl)
	for _, q := range []struct {
		into *int64
		ask  func() (kadm.ListedOffsets, error)
	}{
		{&start, func() (kadm.ListedOffsets, error) { return adm.ListStartOffsets(ctx, name) }},
		{&after, func() (kadm.ListedOffsets, error) {
			return adm.ListOffsetsAfterMilli(ctx, max(0, last.UnixMilli()+1), name)
		}},
		{&end, func() (kadm.ListedOffsets, error) { return adm.ListEndOffsets(ctx, name) }},
	} {
		listed, err := q.ask()
		if err == nil {
			err = listed.Error()
		}
		o, ok := listed.Lookup(name, int32(s))
		if err == nil && !ok {
			err = errors.New("no such partition")
		}
		if err != nil {
			return 0, 0, 0, fmt.Errorf("kafka: list offsets of %s/%d: %w", name, s, err)
		}
		*q.into = o.Offset
	}
	if after < 0 || after > end {
		after = end
	}
	return start, end, after, nil
}

// Adopt carries decisions out: it appends them to helio.quarantine and, once they are there, to the partitions that
// they are about. Roles take them up by themselves. When it fails it may be called again with the same decisions.
func Adopt(ctx context.Context, cfg Config, decisions []Opened) error {
	cl, err := Dial(cfg, ProducerOpts(ProducerConfig{DeliveryTimeout: 30 * time.Second})...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var listed, marks []*kgo.Record
	for _, o := range decisions {
		value, err := proto.Marshal(o.event())
		if err != nil {
			return fmt.Errorf("kafka: encode a decision: %w", err)
		}
		var nobody topic.Subject
		listed = append(listed, cfg.NewRecord(topic.Quarantine, o.Slot, nobody[:], value))
		// In a compacted topic it stays, since it has a key of its own.
		mark := cfg.NewRecord(o.Topic, o.Slot, fmt.Appendf(nil, "log-opened/%d", o.Base), value)
		mark.Headers = append(mark.Headers, kgo.RecordHeader{
			Key: topic.BaseHeader, Value: binary.BigEndian.AppendUint64(nil, uint64(o.Base)),
		})
		marks = append(marks, mark)
	}
	for _, recs := range [][]*kgo.Record{listed, marks} {
		if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
			return fmt.Errorf("kafka: append decisions: %w", err)
		}
	}
	return nil
}
