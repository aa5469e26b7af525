package operator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	logevent "heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Question asks where a message is.
type Question struct {
	Message id.MessageID
	// Thread it was sent to: where no view has the message, only that slot is searched. nil: every slot is.
	Thread *id.ThreadID
	// Window is how long before and after the time in the message's id the log is searched, where no view has the
	// message.
	Window time.Duration
}

// Place is where a message is.
type Place struct {
	Message    string     `json:"message"`
	Thread     string     `json:"thread,omitempty"`
	Sender     string     `json:"sender,omitempty"`
	Log        *LogPlace  `json:"log"` // null: not found there
	LogError   string     `json:"log_error,omitempty"`
	Copies     []LogPlace `json:"copies,omitempty"` // further records of it, of a device that sent it again
	Searched   *Searched  `json:"searched,omitempty"`
	Postgres   ViewPlace  `json:"postgres"`
	ClickHouse ViewPlace  `json:"clickhouse"`
	Refused    string     `json:"refused,omitempty"` // what the fold has against it
	Devices    []Received `json:"devices"`
}

// LogPlace is where a record of a message lies.
type LogPlace struct {
	Topic    string         `json:"topic"` // as it is named on the cluster
	Slot     topic.Slot     `json:"slot"`  // the partition
	Offset   int64          `json:"offset"`
	Position topic.Position `json:"position"`
	Ordinal  int64          `json:"ordinal,omitempty"`
	Time     time.Time      `json:"time"`
	Envelope
}

// Searched is the part of the log that was read in search of a message.
type Searched struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Slots   int       `json:"slots"`
	Records int64     `json:"records"`
}

// String says what was searched.
func (s *Searched) String() string {
	if s == nil {
		return "its id is not of the kind that is accepted, so it never was"
	}
	return fmt.Sprintf("searched %d records of %d slots, logged from %s until %s",
		s.Records, s.Slots, s.From.Local().Format(time.DateTime), s.Until.Local().Format(time.DateTime))
}

// Trace tells how far a message has got. The views are asked first, because they know the place in the log, and then
// the log itself. A message that is nowhere is no error: Place.Log is nil.
func Trace(ctx context.Context, cfg kafka.Config, v *Views, q Question) (*Place, error) {
	out := &Place{Message: q.Message.String(), Devices: []Received{}}
	if err := trace(ctx, cfg, v, q, out); err != nil {
		return nil, err
	}
	out.Postgres.State, out.ClickHouse.State = out.Postgres.word(), out.ClickHouse.word()
	return out, nil
}

func trace(ctx context.Context, cfg kafka.Config, v *Views, q Question, out *Place) error {
	known := v.message(ctx, q.Message, out)
	l, err := Open(ctx, cfg, topic.Threads)
	if err != nil {
		out.LogError = err.Error()
		return nil
	}
	defer l.Close()
	var found []*hit
	if known != nil {
		found, err = l.at(ctx, *known, q.Message)
	} else if q.Message.Valid() {
		slots := l.Slots()
		if q.Thread != nil {
			slots = []topic.Slot{topic.SlotOf(topic.Subject(*q.Thread), l.slots)}
		}
		found, out.Searched, err = l.search(ctx, q.Message, slots, q.Window)
	}
	if err != nil || len(found) == 0 {
		return err
	}
	first := found[0]
	out.Thread, out.Sender, out.Log = first.thread.String(), first.sender.String(), &first.LogPlace
	if known != nil {
		out.Log.Ordinal = known.ordinal
	}
	for _, f := range found[1:] {
		out.Copies = append(out.Copies, f.LogPlace)
	}
	v.progress(ctx, first.LogPlace, out)
	if known == nil && out.Postgres.Parked == "" && out.ClickHouse.Parked == "" {
		passed := out.Postgres.passed(first.Position) || out.ClickHouse.passed(first.Position)
		if out.Refused, err = l.refusal(ctx, first, passed); err != nil {
			return err
		}
	}
	if out.Postgres.Error == "" && out.Refused == "" && out.Postgres.Parked == "" {
		v.devices(ctx, first.thread, first.Position, out)
	}
	return nil
}

// known is where a view has a message.
type known struct {
	thread   id.ThreadID
	position topic.Position
	ordinal  int64
}

// hit is a record of the message.
type hit struct {
	LogPlace
	thread id.ThreadID
	sender id.UserID
}

// match tells whether a record is the message. What cannot be it is not decoded.
func (l *Log) match(r *kgo.Record, m id.MessageID) *hit {
	if len(r.Key) < id.Size || !bytes.Contains(r.Value, m[:]) {
		return nil
	}
	var ev eventv1.Event
	if err := proto.Unmarshal(r.Value, &ev); err != nil || !ev.HasMessageSent() ||
		!bytes.Equal(ev.GetMessageSent().GetMessageId(), m[:]) {
		return nil
	}
	h := &hit{thread: id.ThreadID(r.Key[:id.Size]), LogPlace: LogPlace{
		Topic: l.name, Slot: topic.Slot(r.Partition), Offset: r.Offset, Position: l.Position(r),
		Time: r.Timestamp.UTC(), Envelope: envelope(&ev),
	}}
	h.sender, _ = id.From[id.UserID](ev.GetUserId()) // a malformed one is shown as zero
	return h
}

// at reads the record where a view has the message, so that the answer rests on the log and on no view.
func (l *Log) at(ctx context.Context, k known, m id.MessageID) (found []*hit, err error) {
	slot := topic.SlotOf(topic.Subject(k.thread), l.slots)
	offset := l.Offset(slot, k.position)
	if offset >= l.Begin(slot) && offset < l.End(slot) {
		err = l.Scan(ctx, Span{slot: {offset, offset + 1}}, func(r *kgo.Record) bool {
			if h := l.match(r, m); h != nil {
				found = append(found, h)
			}
			return true
		})
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("a view places the message at slot %d position %d, where the log has something else",
			slot, k.position)
	}
	return found, err
}

// nearby is how long before and after its own time a message is searched for first: most are logged within moments of
// being written.
const nearby = 30 * time.Second

// search looks for the records of a message, those of each slot in order, in what was logged around its time.
func (l *Log) search(
	ctx context.Context, m id.MessageID, slots []topic.Slot, window time.Duration,
) (found []*hit, s *Searched, err error) {
	written := m.Time()
	if last := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC); written.After(last) {
		written = last // what is searched must be a time that JSON can tell
	}
	for _, w := range []time.Duration{min(nearby, window), window} {
		sp, err := l.Around(ctx, written.Add(-w), written.Add(w), slots)
		if err != nil {
			return nil, nil, err
		}
		s = &Searched{From: written.Add(-w), Until: written.Add(w), Slots: len(slots), Records: sp.Records()}
		err = l.Scan(ctx, sp, func(r *kgo.Record) bool {
			if h := l.match(r, m); h != nil {
				found = append(found, h)
			}
			return true
		})
		if err != nil || len(found) > 0 {
			slices.SortStableFunc(found, func(a, b *hit) int { return a.Time.Compare(b.Time) })
			return found, s, err
		}
	}
	return nil, s, nil
}

// maxFold is how many records are folded again to tell why a message was refused.
const maxFold = 2_000_000

// refusal folds the message's thread up to it, as every view does, and returns what the fold has against it; empty when
// it accepts the message. With passed a view has not taken it, so that it was refused is known even when it would be
// too much to fold.
func (l *Log) refusal(ctx context.Context, h *hit, passed bool) (string, error) {
	slot := h.Slot
	sp := Span{slot: {l.Begin(slot), h.Offset + 1}}
	if n := sp.Records(); n > maxFold {
		if !passed {
			return "", nil
		}
		return fmt.Sprintf("a view has taken in what is behind it without it; why is not told, "+
			"since %d records lie before it", n), nil
	}
	decisions := kafka.NewDecisions(l.cfg, l.slots, nil)
	if err := decisions.Read(ctx); err != nil {
		return "", fmt.Errorf("read what was decided of quarantine: %w", err)
	}
	decided := decisions.Known(slot)
	state, word := thread.New(h.thread), ""
	err := l.Scan(ctx, sp, func(r *kgo.Record) bool {
		if len(r.Key) < id.Size || id.ThreadID(r.Key[:id.Size]) != h.thread {
			return true
		}
		if decided.Drops(l.topic, topic.Subject(h.thread), l.Position(r)) {
			if r.Offset == h.Offset {
				word = "an operator has dropped it out of quarantine"
			}
			return true
		}
		ev, err := logevent.Decode(r.Value)
		if err != nil {
			return true
		}
		v := state.Apply(ev, l.Position(r), r.Timestamp.UnixMilli())
		if r.Offset == h.Offset {
			switch v.Outcome {
			case thread.Rejected:
				word = string(v.Reason)
			case thread.Duplicate:
				word = fmt.Sprintf("it was accepted before, at position %d", v.Original.Position)
			}
		}
		return true
	})
	return word, err
}
