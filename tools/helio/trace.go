package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	logevent "heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// traceCmd tells how far one message has got. It only reads.
type traceCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
	Message string        `arg:"" help:"The message's id."`
	Thread  string        `help:"Thread that it was sent to: where no view has the message, only that slot is searched." placeholder:"ID"`
	Window  time.Duration `help:"How long before and after the time in the message's id the log is searched, where no view has the message." default:"15m"`
}

// Help shows how it is used.
func (traceCmd) Help() string {
	return `Examples:
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f -o json
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f --window 24h

The views are asked first, because they know the place in the log; that place is then read. A message that no view has, or that no view can tell of, is searched
for in the log itself, among what was logged around the time that its id carries: the clock of the device that wrote it. A message that is in the log and not in
a view is not there yet, or it was refused or parked by the fold, which is then told with its reason.`
}

// place is where a message is.
type place struct {
	Message    string     `json:"message"`
	Thread     string     `json:"thread,omitempty"`
	Sender     string     `json:"sender,omitempty"`
	Log        *logPlace  `json:"log"` // null: not found there
	LogError   string     `json:"log_error,omitempty"`
	Copies     []logPlace `json:"copies,omitempty"` // further records of it, of a device that sent it again
	Searched   *searched  `json:"searched,omitempty"`
	Postgres   viewPlace  `json:"postgres"`
	ClickHouse viewPlace  `json:"clickhouse"`
	Refused    string     `json:"refused,omitempty"` // what the fold has against it
	Devices    []received `json:"devices"`
}

type logPlace struct {
	Topic    string    `json:"topic"`
	Slot     int32     `json:"slot"` // the partition
	Offset   int64     `json:"offset"`
	Position int64     `json:"position"`
	Ordinal  int64     `json:"ordinal,omitempty"`
	Time     time.Time `json:"time"`
}

// searched is the part of the log that was read in search of a message.
type searched struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Slots   int       `json:"slots"`
	Records int64     `json:"records"`
}

// Run prints what locate finds. A message that is nowhere is a failure, told after the table.
func (c *traceCmd) Run(ctx context.Context, log *slog.Logger) error {
	out, err := c.locate(ctx, log)
	if err != nil {
		return err
	}
	out.Postgres.State, out.ClickHouse.State = out.Postgres.word(), out.ClickHouse.word()
	if err := c.print(out, table.Row{"place", "state", "detail"}, out.rows()); err != nil {
		return err
	}
	if out.LogError != "" {
		return fmt.Errorf("the log could not be asked: %s", out.LogError)
	}
	if out.Log == nil {
		return fmt.Errorf("no view has message %s, and it is not in the log: %s", out.Message, out.Searched)
	}
	return nil
}

// String says what was searched.
func (s *searched) String() string {
	if s == nil {
		return "its id is not of the kind that is accepted, so it never was"
	}
	return fmt.Sprintf(
		"searched %d records of %d slots, logged from %s until %s (--window)", s.Records, s.Slots,
		s.From.Local().Format(time.DateTime), s.Until.Local().Format(time.DateTime),
	)
}

func (p *place) rows() []table.Row {
	at := func(l logPlace) string {
		return fmt.Sprintf(
			"%s slot %d offset %d position %d at %s", l.Topic, l.Slot, l.Offset, l.Position,
			l.Time.Local().Format("2006-01-02 15:04:05.000"),
		)
	}
	var rows []table.Row
	switch {
	case p.LogError != "":
		rows = append(rows, table.Row{"log", stateUnknown, p.LogError})
	case p.Log == nil:
		rows = append(rows, table.Row{"log", "no", p.Searched.String()})
	default:
		rows = append(rows, table.Row{"log", stateHas, at(*p.Log)})
	}
	for _, l := range p.Copies {
		rows = append(rows, table.Row{"log", "again", at(l)})
	}
	if p.Refused != "" {
		rows = append(rows, table.Row{"fold", "refused", p.Refused})
	}
	rows = append(
		rows, table.Row{"postgres", p.Postgres.word(), p.Postgres.detail()},
		table.Row{"clickhouse", p.ClickHouse.word(), p.ClickHouse.detail()},
	)
	for _, d := range p.Devices {
		state := "not yet"
		switch {
		case d.Read:
			state = "read"
		case d.Delivered:
			state = "delivered"
		}
		rows = append(rows, table.Row{"device", state, fmt.Sprintf("%s %s of %s", d.Device, d.Name, d.User)})
	}
	return rows
}

// locate asks the views first, because they know the place in the log, and then the log itself.
func (c *traceCmd) locate(ctx context.Context, log *slog.Logger) (*place, error) {
	mid, err := id.Parse[id.MessageID](c.Message)
	if err != nil {
		return nil, fmt.Errorf("%q is not a message id: %w", c.Message, err)
	}
	var only *id.ThreadID
	if c.Thread != "" {
		t, err := id.Parse[id.ThreadID](c.Thread)
		if err != nil {
			return nil, fmt.Errorf("--thread %q is not a thread's id: %w", c.Thread, err)
		}
		only = &t
	}
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags); err != nil {
		return nil, err
	}
	if c.Window <= 0 {
		return nil, fmt.Errorf("--window %v is not positive", c.Window)
	}
	v, err := openStores(ctx, log, c.postgresFlags, c.clickhouseFlags)
	if err != nil {
		return nil, err
	}
	defer v.close()
	out := &place{Message: mid.String(), Devices: []received{}}
	known := v.message(ctx, mid, out)
	o, err := lookAt(ctx, c.kafkaFlags.config(log, nil, "helio-trace"), topic.Threads)
	if err != nil {
		out.LogError = err.Error()
		return out, nil
	}
	defer o.close()
	var found []*hit
	if known != nil {
		found, err = o.at(ctx, *known, mid)
	} else if mid.Valid() {
		slots := o.all()
		if only != nil {
			slots = []topic.Slot{topic.SlotOf(topic.Subject(*only), o.slots)}
		}
		found, out.Searched, err = o.search(ctx, mid, slots, c.Window)
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return out, nil
	}
	first := found[0]
	out.Thread, out.Sender, out.Log = first.thread.String(), first.sender.String(), &first.logPlace
	if known != nil {
		out.Log.Ordinal = known.ordinal
	}
	for _, f := range found[1:] {
		out.Copies = append(out.Copies, f.logPlace)
	}
	v.progress(ctx, first.logPlace, out)
	if known == nil && out.Postgres.Parked == "" && out.ClickHouse.Parked == "" {
		passed := out.Postgres.passed(first.Position) || out.ClickHouse.passed(first.Position)
		if out.Refused, err = o.refusal(ctx, first, passed); err != nil {
			return nil, err
		}
	}
	if out.Postgres.Error == "" && out.Refused == "" && out.Postgres.Parked == "" {
		v.devices(ctx, first.thread, first.Position, out)
	}
	return out, nil
}

// known is where a view has a message.
type known struct {
	thread            id.ThreadID
	position, ordinal int64
}

// hit is a record of the message.
type hit struct {
	logPlace
	thread id.ThreadID
	sender id.UserID
}

// match tells whether a record is the message. What cannot be it is not decoded.
func (o *openTopic) match(r *kgo.Record, m id.MessageID) *hit {
	if len(r.Key) < id.Size || !bytes.Contains(r.Value, m[:]) {
		return nil
	}
	var ev eventv1.Event
	if err := proto.Unmarshal(r.Value, &ev); err != nil || !ev.HasMessageSent() ||
		!bytes.Equal(ev.GetMessageSent().GetMessageId(), m[:]) {
		return nil
	}
	h := &hit{thread: id.ThreadID(r.Key[:id.Size]), logPlace: logPlace{
		Topic: o.name, Slot: r.Partition, Offset: r.Offset, Position: int64(o.bases.Position(r)),
		Time: r.Timestamp.UTC(),
	}}
	h.sender, _ = id.From[id.UserID](ev.GetUserId()) // a malformed one is shown as zero
	return h
}

// at reads the record where a view has the message, so that the answer rests on the log and on no view.
func (o *openTopic) at(ctx context.Context, k known, m id.MessageID) (found []*hit, err error) {
	slot := topic.SlotOf(topic.Subject(k.thread), o.slots)
	offset := k.position - int64(o.bases.Of(o.topic, slot))
	if offset >= o.begin(slot) && offset < o.end(slot) {
		err = o.scan(ctx, span{slot: {offset, offset + 1}}, func(r *kgo.Record) bool {
			if h := o.match(r, m); h != nil {
				found = append(found, h)
			}
			return true
		})
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf(
			"a view places the message at slot %d position %d, where the log has something else", slot, k.position,
		)
	}
	return found, err
}

// nearby is how long before and after its own time a message is searched for first: most are logged within moments of
// being written.
const nearby = 30 * time.Second

// search looks for the records of a message, those of each slot in order, in what was logged around its time.
func (o *openTopic) search(
	ctx context.Context, m id.MessageID, slots []topic.Slot, window time.Duration,
) (found []*hit, s *searched, err error) {
	written := m.Time()
	if last := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC); written.After(last) {
		written = last // what is searched must be a time that JSON can tell
	}
	for _, w := range []time.Duration{min(nearby, window), window} {
		sp, err := o.around(ctx, written.Add(-w), written.Add(w), slots)
		if err != nil {
			return nil, nil, err
		}
		s = &searched{From: written.Add(-w), Until: written.Add(w), Slots: len(slots), Records: sp.records()}
		err = o.scan(ctx, sp, func(r *kgo.Record) bool {
			if h := o.match(r, m); h != nil {
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
func (o *openTopic) refusal(ctx context.Context, h *hit, passed bool) (string, error) {
	slot := topic.Slot(h.Slot)
	sp := span{slot: {o.begin(slot), h.Offset + 1}}
	if n := sp.records(); n > maxFold {
		if !passed {
			return "", nil
		}
		return fmt.Sprintf(
			"a view has taken in what is behind it without it; why is not told, since %d records lie before it", n,
		), nil
	}
	state, word := thread.New(h.thread), ""
	err := o.scan(ctx, sp, func(r *kgo.Record) bool {
		if len(r.Key) < id.Size || id.ThreadID(r.Key[:id.Size]) != h.thread {
			return true
		}
		ev, err := logevent.Decode(r.Value)
		if err != nil {
			return true
		}
		v := state.Apply(ev, o.bases.Position(r), r.Timestamp.UnixMilli())
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
