package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Tail says which events of a topic are wanted.
type Tail struct {
	Topic topic.Topic
	// Last is how many of the last events to begin with: of the subject, or of all slots together; not with Since or
	// From.
	Last int
	// Subject leaves only the events about it; nil: about any.
	Subject *topic.Subject
	// Since is the log time to begin at; the zero time is the log's start.
	Since *time.Time
	// From is the place to begin at; only its slot is read.
	From *From
	// Follow goes on with what comes.
	Follow bool
	// Bodies shows what messages say.
	Bodies bool
}

// From is a place in a topic.
type From struct {
	Slot     topic.Slot
	Position topic.Position
}

// Line is an event and where it lies.
type Line struct {
	Topic    topic.Topic    `json:"topic"`
	Slot     topic.Slot     `json:"slot"`
	Position topic.Position `json:"position"`
	Time     time.Time      `json:"time"`
	Subject  string         `json:"subject"`
	Event
}

// Run shows the events until it has all that are wanted, show fails, or ctx ends. show is called by one goroutine.
func (t Tail) Run(ctx context.Context, cfg kafka.Config, show func(Line) error) error {
	l, err := Open(ctx, cfg, t.Topic)
	if err != nil {
		return err
	}
	defer l.Close()
	slots, err := t.slots(l)
	if err != nil {
		return err
	}
	var failed error
	each := func(r *kgo.Record) bool {
		if failed == nil && t.wants(r) {
			failed = show(t.line(l, r))
		}
		return failed == nil
	}
	switch {
	case t.From != nil || t.Since != nil:
		err = t.forwards(ctx, l, slots, each)
	case t.Subject != nil:
		var found []*kgo.Record
		if found, err = l.Backwards(ctx, slots[0], t.Last, t.wants); err == nil {
			for _, r := range found {
				each(r)
			}
		}
	default:
		err = t.last(ctx, l, slots, each)
	}
	if err == nil && failed == nil && t.Follow {
		ends := map[topic.Slot]int64{}
		for _, s := range slots {
			ends[s] = l.End(s)
		}
		err = l.follow(ctx, ends, each)
	}
	if failed != nil {
		return failed
	}
	return err
}

// slots are those that are read.
func (t Tail) slots(l *Log) ([]topic.Slot, error) {
	slots := l.Slots()
	if t.Subject != nil {
		slots = []topic.Slot{topic.SlotOf(*t.Subject, len(slots))}
	}
	if t.From == nil {
		return slots, nil
	}
	only := t.From.Slot
	if only < 0 || int(only) >= l.Partitions() {
		return nil, fmt.Errorf("%s has no slot %d", l.Name(), only)
	}
	if !slices.Contains(slots, only) {
		return nil, fmt.Errorf("the events about %s are in slot %d, not in slot %d",
			id.ThreadID(*t.Subject), slots[0], only)
	}
	return []topic.Slot{only}, nil
}

func (t Tail) wants(r *kgo.Record) bool {
	return t.Subject == nil || len(r.Key) >= id.Size && topic.Subject(r.Key[:id.Size]) == *t.Subject
}

// forwards reads from a place or a time to the ends.
func (t Tail) forwards(ctx context.Context, l *Log, slots []topic.Slot, each func(*kgo.Record) bool) error {
	from := map[topic.Slot]int64{}
	switch {
	case t.From != nil:
		from[t.From.Slot] = max(l.Offset(t.From.Slot, t.From.Position), l.Begin(t.From.Slot))
	case t.Since.IsZero():
		for _, s := range slots {
			from[s] = l.Begin(s)
		}
	default:
		var err error
		if from, err = l.Since(ctx, *t.Since, slots); err != nil {
			return err
		}
	}
	sp := Span{}
	for _, s := range slots {
		sp[s] = [2]int64{from[s], l.End(s)}
	}
	return l.Scan(ctx, sp, each)
}

// last shows the last events of all slots together, by log time.
func (t Tail) last(ctx context.Context, l *Log, slots []topic.Slot, each func(*kgo.Record) bool) error {
	sp := Span{}
	for _, s := range slots {
		sp[s] = [2]int64{max(l.Begin(s), l.End(s)-int64(t.Last)), l.End(s)}
	}
	var found []*kgo.Record
	if err := l.Scan(ctx, sp, func(r *kgo.Record) bool { found = append(found, r); return true }); err != nil {
		return err
	}
	slices.SortStableFunc(found, func(a, b *kgo.Record) int { return a.Timestamp.Compare(b.Timestamp) })
	for _, r := range found[max(0, len(found)-t.Last):] {
		each(r)
	}
	return nil
}

func (t Tail) line(l *Log, r *kgo.Record) Line {
	out := Line{
		Topic:    t.Topic,
		Slot:     topic.Slot(r.Partition),
		Position: l.Position(r),
		Time:     r.Timestamp.UTC(),
		Event:    Show(r.Value, t.Bodies),
	}
	if len(r.Key) >= id.Size {
		out.Subject = uuid(r.Key[:id.Size])
	}
	return out
}
