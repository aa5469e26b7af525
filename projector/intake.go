package projector

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Reasons of quarantine that are asked for by name.
const (
	// Parked is the reason of an event that stands behind one of its subject that could not be applied.
	Parked = "parked"
	// FoldPanicked is the reason of an event on which the fold broke.
	FoldPanicked = "the fold panicked"
	// NewerVersion begins the reason of an event that only a newer version can apply. When a Sink of that version opens
	// the slot, it drains the event and all that is parked behind it into the view.
	NewerVersion = "newer_version"
	// badKey begins the reason of an event whose key has no subject.
	badKey = "the key "
	// wrongSlot begins the reason of an event whose subject belongs to another slot.
	wrongSlot = "the subject belongs to slot "
)

// Event is a record of the log that could be read.
type Event struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	TimeMS   int64 // log time, Unix milliseconds
	Subject  topic.Subject
	Device   id.DeviceID // of a receipt, from its key
	Body     *event.Event
	Key      event.Key
	Raw      []byte // as it stands in the log
}

// Quarantined is an event that is not applied, and why.
type Quarantined struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	Subject  topic.Subject
	Reason   string // Parked when it stands behind another
	TimeMS   int64
}

// Event returns what is told to the log about it.
func (q Quarantined) Event(view string) *eventv1.Event {
	return eventv1.Event_builder{Quarantined: eventv1.Quarantined_builder{
		View: view, Topic: string(q.Topic), Slot: int32(q.Slot), Position: int64(q.Position), Reason: q.Reason,
		Code: codeOf(q.Reason),
	}.Build()}.Build()
}

// Held names a subject on a topic.
type Held struct {
	Topic   topic.Topic
	Subject topic.Subject
}

// The codes of reasons, as Quarantined.code in event.proto has them: a closed set, fit for a metric label.
const (
	codeUndecodable = "undecodable"
	codeKey         = "key"
	codePartition   = "partition"
	codeFold        = "fold_panicked"
	codeNewer       = "newer_version"
	codeParked      = "parked" // nothing is before it any more: a drain was cut off there
)

// codeOf is the code of the reason for which a subject is held.
func codeOf(reason string) string {
	switch {
	case reason == Parked:
		return codeParked
	case reason == FoldPanicked:
		return codeFold
	case strings.HasPrefix(reason, NewerVersion):
		return codeNewer
	case strings.HasPrefix(reason, badKey):
		return codeKey
	case strings.HasPrefix(reason, wrongSlot):
		return codePartition
	}
	return codeUndecodable
}

// Intake sorts the records of one slot into events and quarantine. It belongs to the goroutine of its slot. Its set of
// held subjects grows only with events that cannot be read, which ingest never writes.
type Intake struct {
	partitions int
	held       map[Held]string // with the code of the reason
	broken     map[place]bool  // events of the batch at hand on which the fold panicked
	decode     func(raw []byte) (*event.Event, error)
}

// place is where an event lies in its slot.
type place struct {
	topic topic.Topic
	at    topic.Position
}

// NewIntake returns an intake that holds back the subjects that the view has parked already. With partitions (P) set,
// an event whose subject belongs to another slot cannot be applied either; 0 does not look.
func NewIntake(partitions int, held []HeldRange) *Intake {
	in := &Intake{
		partitions: partitions, held: make(map[Held]string, len(held)), broken: map[place]bool{}, decode: event.Decode,
	}
	for _, h := range held {
		in.held[h.Held] = codeOf(h.Reason)
	}
	return in
}

// Sorted is a batch after Sort.
type Sorted struct {
	Events      []Event
	Quarantined []Quarantined
	LogTimes    map[topic.Topic]int64 // the highest log time of each topic, Unix milliseconds

	fresh []freshly
}

// freshly is a subject that is held from an event of the batch on.
type freshly struct {
	Held
	code string
}

// Fold gives the events of a sorted batch to a view's fold, in order. When the fold panics, Fold ends with a
// *run.PanicError and that event is condemned: the view takes back what the batch has done to its states, which are
// half way, sorts the batch again, whereupon the event is in quarantine and its subject parked behind it, and folds
// again. So a broken fold stops one subject and never a slot.
func (in *Intake) Fold(s Sorted, fold func(*Event)) error {
	i := 0
	err := run.Protect(func() error {
		for ; i < len(s.Events); i++ {
			fold(&s.Events[i])
		}
		return nil
	})
	if err != nil {
		e := &s.Events[i]
		in.broken[place{e.Topic, e.Position}] = true
		return fmt.Errorf("fold %s/%d at %d: %w", e.Topic, e.Slot, e.Position, err)
	}
	return nil
}

// Stack is where the panic of an error of Fold came from.
func Stack(err error) string {
	var p *run.PanicError
	if errors.As(err, &p) {
		return string(p.Stack)
	}
	return ""
}

// Sort sorts a batch. It changes nothing in the intake until Commit, so a batch may be sorted again.
func (in *Intake) Sort(b kafka.Batch) Sorted {
	out := Sorted{Events: make([]Event, 0, len(b.Records)), LogTimes: make(map[topic.Topic]int64, 2)}
	var fresh map[Held]bool
	for i := range b.Records {
		r := &b.Records[i]
		ms := r.LogTime.UnixMilli()
		if t, ok := out.LogTimes[r.Topic]; !ok || ms > t {
			out.LogTimes[r.Topic] = ms
		}
		if r.Value == nil {
			continue // a tombstone
		}
		body, err := in.decode(r.Value)
		if errors.Is(err, event.ErrIgnorable) || err == nil && body.HasLogOpened() {
			continue
		}
		e := Event{Topic: r.Topic, Slot: r.Slot, Position: r.Position, TimeMS: ms, Raw: r.Value, Body: body}
		reason, keyed := in.key(&e, r.Key)
		if err != nil && reason == "" {
			reason = reasonOf(err)
		}
		if reason == "" && in.broken[place{r.Topic, r.Position}] {
			reason = FoldPanicked
		}
		h := Held{Topic: r.Topic, Subject: e.Subject}
		held := fresh[h]
		if !held {
			_, held = in.held[h]
		}
		switch {
		case reason == "" && !held:
			out.Events = append(out.Events, e)
			continue
		case keyed && held:
			reason = Parked
		case keyed:
			if fresh == nil {
				fresh = make(map[Held]bool)
			}
			fresh[h] = true
			out.fresh = append(out.fresh, freshly{h, codeOf(reason)})
		}
		out.Quarantined = append(out.Quarantined, Quarantined{
			Topic:    r.Topic,
			Slot:     r.Slot,
			Position: r.Position,
			Subject:  e.Subject,
			Reason:   reason,
			TimeMS:   ms,
		})
	}
	return out
}

// reasonOf says why an event could not be read.
func reasonOf(err error) string {
	if newer := (*event.NewerError)(nil); errors.As(err, &newer) {
		return NewerVersion + ": " + newer.Error()
	}
	return event.ErrMalformed.Error()
}

// key reads a record's key; keyed tells whether there is a subject in it.
func (in *Intake) key(e *Event, raw []byte) (reason string, keyed bool) {
	k, err := event.ParseKey(e.Topic, raw)
	if err != nil {
		return err.Error(), false
	}
	e.Subject, e.Device, e.Key = k.Subject, k.Device, k
	if in.partitions > 0 {
		if s := topic.SlotOf(e.Subject, in.partitions); s != e.Slot {
			return fmt.Sprint(wrongSlot, s), true
		}
	}
	return "", true
}

// Commit takes over what Sort found, once the batch is stored.
func (in *Intake) Commit(s Sorted) {
	for _, f := range s.fresh {
		in.held[f.Held] = f.code
	}
	clear(in.broken)
}

// Held is the number of subjects that are held back.
func (in *Intake) Held() int { return len(in.held) }

// codes counts the subjects that are held back by code.
func (in *Intake) codes() map[string]int {
	out := map[string]int{}
	for _, code := range in.held {
		out[code]++
	}
	return out
}

// Time turns log time in Unix milliseconds into what the stores take.
func Time(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
