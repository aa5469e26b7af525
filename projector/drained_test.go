package projector_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/projector/history"
	"heliograph/projector/sinktest"
	"heliograph/projector/verify"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// script is a log written by hand, in one slot.
type script struct {
	slot  topic.Slot
	steps []eventtest.Step
	now   int64
}

// two users, and threads of theirs that lie in the script's slot
var ann, ben = id.User([]byte("test key"), "+4915112345671", 1), id.User([]byte("test key"), "+4915112345672", 1)

func newScript() *script { return &script{now: 1_767_225_600_000} }

// group is a new thread in the script's slot.
func (s *script) group() id.ThreadID {
	for {
		if g := id.NewGroup(); topic.SlotOf(topic.Subject(g), partitions) == s.slot {
			return g
		}
	}
}

// add writes an event that a reader of a version can apply; 0: every one.
func (s *script) add(t topic.Topic, key []byte, reader uint32, b eventv1.Event_builder) topic.Position {
	s.now += 1000
	b.MinReader = reader
	value, err := proto.Marshal(b.Build())
	if err != nil {
		panic(err) // a broken test
	}
	at := topic.Position(0)
	for _, have := range s.steps {
		if have.Topic == t {
			at++
		}
	}
	s.steps = append(s.steps, eventtest.Step{
		Topic: t, Slot: s.slot, Position: at, TimeMS: s.now, Subject: topic.Subject(key), Key: key, Value: value,
	})
	return at
}

func (s *script) created(g id.ThreadID, reader uint32) topic.Position {
	return s.add(topic.Threads, g[:], reader, eventv1.Event_builder{
		UserId: ann[:], ThreadCreated: eventv1.ThreadCreated_builder{
			Title: "title", MemberIds: [][]byte{ben[:]},
		}.Build(),
	})
}

func (s *script) sent(g id.ThreadID, reader uint32, m id.MessageID) topic.Position {
	return s.add(topic.Threads, g[:], reader, eventv1.Event_builder{
		UserId: ben[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventtest.Text("a message"),
		}.Build(),
	})
}

func (s *script) renamed(g id.ThreadID, reader uint32, title string) topic.Position {
	return s.add(topic.Threads, g[:], reader, eventv1.Event_builder{
		UserId: ann[:], ThreadRenamed: eventv1.ThreadRenamed_builder{Title: title}.Build(),
	})
}

func (s *script) read(g id.ThreadID, d id.DeviceID, reader uint32, ordinal int64) topic.Position {
	return s.add(topic.Receipts, event.ReceiptKey(g, d, ben), reader, eventv1.Event_builder{
		UserId: ben[:], DeviceId: d[:], WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredOrdinal: ordinal, ReadOrdinal: ordinal,
		}.Build(),
	})
}

// reader is how a reader of a version reads what this one knows.
func reader(n uint32) version { return event.As(n, event.Known) }

// feed brings a sink what the log has.
func feed(t *testing.T, l *sinktest.Log, sink kafka.Sink) {
	t.Helper()
	if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
}

// equals compares a view with a fold of a log by a version.
func (v *view) equals(t *testing.T, l *sinktest.Log, as version) {
	t.Helper()
	ref := verify.NewReference(partitions)
	ref.ReadAs(as)
	feed(t, l, ref)
	diffs, err := v.diff(ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		t.Error(d)
	}
}

func inBoth(t *testing.T, test func(t *testing.T, v *view)) {
	t.Run("threads", func(t *testing.T) { v := threadViews(t); v.empty(); test(t, v) })
	t.Run("history", func(t *testing.T) { v := historyView(t); v.empty(); test(t, v) })
}

// TestDrainedUpToWhatIsNewerStill: the next event that this version does not know keeps its own reason, what is behind
// it stays parked, and a version after this one drains that too.
func TestDrainedUpToWhatIsNewerStill(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b, c := s.group(), s.group(), s.group()
		for _, g := range []id.ThreadID{a, b, c} {
			s.created(g, 0)
		}
		s.renamed(a, 2, "newer")          // 3
		s.sent(b, 3, id.NewMessage())     // 4: for neither
		s.sent(a, 0, id.NewMessage())     // 5
		s.sent(c, 0, id.NewMessage())     // 6
		s.renamed(a, 3, "newer still")    // 7
		s.renamed(b, 2, "behind another") // 8
		s.sent(a, 0, id.NewMessage())     // 9
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		const before = "1/3 newer_version 1/4 newer_version 1/5 parked 1/7 parked 1/8 parked 1/9 parked"
		if got := v.held(); got != before {
			t.Fatalf("an old version's quarantine %s, want %s", got, before)
		}
		feed(t, l, v.open(reader(1), l, false))
		if got := v.held(); got != before {
			t.Fatalf("opened again by the old version: %s, want %s", got, before)
		}
		logged := &logs{}
		v.log = slog.New(logged)
		feed(t, l, v.open(reader(2), l, false))
		if got, want := v.held(), "1/4 newer_version 1/7 newer_version 1/8 parked 1/9 parked"; got != want {
			t.Errorf("a newer version's quarantine %s, want %s", got, want)
		}
		v.equals(t, l, reader(2))
		if got := v.counted(t, "drained_events_total"); got != 2 {
			t.Errorf("%d events are counted as drained, want 2", got)
		}
		if !logged.has("quarantine not drained to its end, the subject stays in it", a, "events=2 position=7") {
			t.Errorf("what stays is not logged: %v", logged)
		}
		feed(t, l, v.open(reader(3), l, false))
		if got := v.held(); got != "" {
			t.Errorf("in quarantine is still %s", got)
		}
		v.equals(t, l, reader(3))
		const done = "quarantine drained"
		if !logged.has(done, a, "from=7 to=9 events=2") || !logged.has(done, b, "from=4 to=8 events=2") {
			t.Errorf("what was drained is not logged: %v", logged)
		}
	})
}

// TestCutOffBeforeWhatIsNewerStill: the next event that this version does not know has its own reason also when a drain
// was cut off right before it.
func TestCutOffBeforeWhatIsNewerStill(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a := s.group()
		s.created(a, 0)
		s.renamed(a, 2, "newer")
		s.sent(a, 3, id.NewMessage())
		s.sent(a, 0, id.NewMessage())
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		v.portion = 1
		down := errors.New("broker unreachable")
		if _, err := v.open(reader(2), failingLog{l, 3, down}, false).Open(t.Context(), s.slot); !errors.Is(err, down) {
			t.Fatalf("got %v", err)
		}
		if got, want := v.held(), "1/2 parked 1/3 parked"; got != want {
			t.Fatalf("in quarantine is %s, want %s", got, want)
		}
		feed(t, l, v.open(reader(2), l, false))
		if got, want := v.held(), "1/2 newer_version 1/3 parked"; got != want {
			t.Errorf("in quarantine is %s, want %s", got, want)
		}
		v.equals(t, l, reader(2))
	})
}

// TestOtherReasonsStay: what is in quarantine for another reason is not touched, although it could be read, nor what
// this version does not know; and the log is not read twice for that.
func TestOtherReasonsStay(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b, c := s.group(), s.group(), s.group()
		for _, g := range []id.ThreadID{a, b, c} {
			s.created(g, 0)
		}
		s.sent(a, 0, id.NewMessage()) // 3: on which the old version's fold breaks
		s.renamed(a, 2, "behind it")
		s.add(topic.Threads, b[:], 0, eventv1.Event_builder{}) // 5: of no type
		s.renamed(b, 2, "behind it")
		s.renamed(c, 9, "for neither")
		l := sinktest.NewLog(s.steps, v.topics...)
		old := v.open(reader(1), l, false)
		old.(interface{ OnFold(func(*eventv1.Event)) }).OnFold(func(e *eventv1.Event) {
			if e.HasMessageSent() {
				panic("broken")
			}
		})
		feed(t, l, old)
		const want = "1/3 the fold panicked 1/4 parked 1/5 the event cannot be decoded 1/6 parked 1/7 newer_version"
		if got := v.held(); got != want {
			t.Fatalf("an old version's quarantine %s, want %s", got, want)
		}
		rows := v.count(v.written)
		asked := &asked{Log: l}
		sink := v.open(reader(2), asked, false)
		if _, err := sink.Open(t.Context(), s.slot); err != nil {
			t.Fatal(err)
		}
		const reasons = "fold_panicked=1 newer_version=1 parked=0 partition=0 undecodable=1"
		if got := v.gauge(t, "held_subjects"); got != reasons {
			t.Errorf("subjects are counted as %s, want %s", got, reasons)
		}
		sink.Close(s.slot, false)
		if got := v.gauge(t, "held_subjects"); strings.Contains(got, "=1") {
			t.Errorf("of a slot that is closed are counted %s", got)
		}
		feed(t, l, sink)
		if got := v.held(); got != want {
			t.Errorf("a newer version's quarantine %s, want %s", got, want)
		}
		if now := v.count(v.written); now != rows {
			t.Error("what stays in quarantine was written again")
		}
		if len(asked.ranges) != 1 || asked.ranges[0] != "helio.threads 7-8" {
			t.Errorf("the log was asked for %q, want 7-8 once", asked.ranges)
		}
	})
}

// asked notes what is asked of a log.
type asked struct {
	projector.Log
	ranges []string
}

// Records implements projector.Log.
func (a *asked) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	a.ranges = append(a.ranges, fmt.Sprintf("%s %d-%d", t, from, to))
	return a.Log.Records(ctx, t, s, from, to)
}

// TestOneSubjectsTroubleIsItsOwn: a fold that breaks, or a store that refuses the rows of one subject, keeps that
// subject in quarantine; others are drained, and the slot goes on.
func TestOneSubjectsTroubleIsItsOwn(t *testing.T) {
	s := newScript()
	a, b := s.group(), s.group()
	s.created(a, 0)
	s.created(b, 0)
	s.renamed(a, 2, "first")
	s.renamed(b, 2, "first")
	s.renamed(a, 0, "trouble") // 4
	s.renamed(b, 0, "second")
	s.renamed(a, 0, "behind")
	old := len(s.steps)
	s.renamed(b, 0, "third")
	s.renamed(a, 0, "behind, later") // 8
	t.Run("fold", func(t *testing.T) {
		inBoth(t, func(t *testing.T, v *view) {
			l := sinktest.NewLog(s.steps, v.topics...)
			feed(t, sinktest.NewLog(s.steps[:old], v.topics...), v.open(reader(1), l, false))
			broken := func(e *eventv1.Event) {
				if e.GetThreadRenamed().GetTitle() == "trouble" {
					panic("broken")
				}
			}
			sink := v.open(reader(2), l, false)
			sink.(interface{ OnFold(func(*eventv1.Event)) }).OnFold(broken)
			feed(t, l, sink)
			if got, want := v.held(), "1/4 the fold panicked 1/6 parked 1/8 parked"; got != want {
				t.Errorf("in quarantine is %s, want %s", got, want)
			}
			ref := verify.NewReference(partitions)
			ref.OnFold(broken)
			feed(t, l, ref)
			if diffs, err := v.diff(ref); err != nil || len(diffs) > 0 {
				t.Errorf("%v, %v", diffs, err)
			}
		})
	})
	t.Run("store", func(t *testing.T) {
		v := threadViews(t)
		v.empty()
		v.portion = 2 // the trouble comes in a later part than the subject's first event, together with the other's
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, sinktest.NewLog(s.steps[:old], v.topics...), v.open(reader(1), l, false))
		v.exec(t, "ALTER TABLE threads ADD CONSTRAINT refused CHECK (title <> 'trouble')")
		logged := &logs{}
		v.log = slog.New(logged)
		feed(t, l, v.open(reader(2), l, false))
		if got, want := v.held(), "1/4 newer_version 1/6 parked 1/8 parked"; got != want {
			t.Errorf("in quarantine is %s, want %s", got, want)
		}
		if !logged.has("quarantine not drained to its end, the subject stays in it", a, "cannot be stored") {
			t.Errorf("the refusal is not logged: %v", logged)
		}
		feed(t, l, v.open(reader(2), l, false))
		v.exec(t, "ALTER TABLE threads DROP CONSTRAINT refused")
		feed(t, l, v.open(reader(2), l, false))
		v.equals(t, l, reader(2))
	})
}

// TestLogThatLacksWhatIsInQuarantine: without an event its subject does not go on, and that is told; a receipt that was
// compacted away is none.
func TestLogThatLacksWhatIsInQuarantine(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b, c, d := s.group(), s.group(), s.group(), s.group()
		for _, g := range []id.ThreadID{a, b, c, d} {
			s.created(g, 0)
		}
		device, other := id.NewDevice(), id.NewDevice()
		s.read(a, device, 2, 1) // 0: of each but the last of a device nothing is left
		s.read(a, device, 0, 2)
		s.read(a, other, 0, 1)
		s.read(a, device, 0, 3)
		s.read(a, other, 0, 2)
		s.renamed(a, 2, "gone")   // 4: the log does not have it any more
		s.renamed(b, 2, "first")  // 5
		s.renamed(a, 0, "behind") // 6
		s.renamed(b, 0, "gone")   // 7: nor this one
		s.renamed(c, 2, "first")  // 8
		s.renamed(b, 0, "behind") // 9
		s.renamed(c, 0, "second") // 10
		s.renamed(d, 2, "cut")    // 11: the log was set back
		s.read(d, device, 2, 1)   // 5: there too
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		var left []eventtest.Step
		for _, st := range s.steps {
			lost := st.Topic == topic.Threads && slices.Contains([]topic.Position{4, 7, 11}, st.Position)
			if !lost && (st.Topic != topic.Receipts || st.Position == 3 || st.Position == 4) {
				left = append(left, st)
			}
		}
		after := sinktest.NewLog(left, v.topics...)
		for _, portion := range []int{1, 1000} { // the second has nothing left to do
			v.portion = portion
			sink := v.open(reader(2), after, false)
			if _, err := sink.Open(t.Context(), s.slot); err != nil {
				t.Fatal(err)
			}
			sink.Close(s.slot, false)
			const want = "1/4 newer_version 1/6 parked 1/7 newer_version 1/9 parked 1/11 newer_version " +
				"2/5 newer_version"
			if got := v.held(); got != want {
				t.Errorf("in quarantine is %s, want %s", got, want)
			}
		}
		if got := v.counted(t, "undrained_subjects_total"); got != 8 {
			t.Errorf("counted %d times that a subject stays, want 8", got)
		}
		// What the log has is in the view as if the rest had never been there.
		var known []eventtest.Step
		for _, st := range s.steps {
			stays := slices.Contains([]topic.Position{4, 6, 7, 9, 11}, st.Position)
			if st.Topic == topic.Receipts {
				stays = st.Position == 5
			}
			if !stays {
				known = append(known, st)
			}
		}
		ref := verify.NewReference(partitions)
		feed(t, sinktest.NewLog(known, v.topics...), ref)
		diffs, err := v.diff(ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range diffs {
			if d.Table != "quarantine" && d.Table != "positions" && d.Table != "receipts" {
				t.Error(d)
			}
		}
		// The log has all that it will ever have.
		whole := sinktest.NewLog(slices.DeleteFunc(slices.Clone(s.steps), func(st eventtest.Step) bool {
			return st.Topic == topic.Receipts && st.Position < 3
		}), v.topics...)
		feed(t, whole, v.open(reader(2), whole, false))
		v.equals(t, whole, reader(2))
	})
}

// TestProjectorDrainsWhenItStarts: as it is run, a projector drains from its own log what an older version has left.
func TestProjectorDrainsWhenItStarts(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b := s.group(), s.group()
		s.created(a, 0)
		s.created(b, 0)
		s.renamed(a, 2, "newer")
		s.sent(b, 0, id.NewMessage())
		s.sent(a, 0, id.NewMessage())
		s.read(a, id.NewDevice(), 2, 1)
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		if got, want := v.held(), "1/2 newer_version 1/4 parked 2/0 newer_version"; got != want {
			t.Fatalf("an old version's quarantine %s, want %s", got, want)
		}
		brokers, prefix := enginetest.Kafka(t)
		kc := kafka.Config{Brokers: brokers, TopicPrefix: prefix, Partitions: partitions}
		// Without a delivery timeout, which counts from the records' stamps: those are in the past here.
		cl, err := kafka.Dial(kc, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, err := kafka.EnsureTopics(t.Context(), cl, kc); err != nil {
			t.Fatal(err)
		}
		for _, st := range s.steps {
			rec := kc.NewRecord(st.Topic, st.Slot, st.Key, st.Value)
			rec.Timestamp = time.UnixMilli(st.TimeMS)
			if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		p, err := v.projector(kc)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		for deadline := time.Now().Add(30 * time.Second); v.held() != ""; {
			if time.Now().After(deadline) {
				t.Fatalf("in quarantine is still %s", v.held())
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		v.equals(t, l, reader(2))
	})
}

// TestTwoDrainTheSame: of two that drain the same, as when one is not the slot's owner any more, the rows are written
// once.
func TestTwoDrainTheSame(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a := s.group()
		s.created(a, 0)
		s.renamed(a, 2, "first")
		for range 6 {
			s.sent(a, 0, id.NewMessage())
		}
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		v.portion = 2
		// In the middle of what the zombie reads, the heir drains everything.
		heir := v.open(reader(2), l, false)
		zombie := v.open(reader(2), &interrupted{Log: l, at: 4, fn: func() { feed(t, l, heir) }}, false)
		_, err := zombie.Open(t.Context(), s.slot)
		if v.fences && !errors.Is(err, kafka.ErrFenced) {
			t.Errorf("the zombie got %v, want ErrFenced", err)
		} else if !v.fences && err != nil {
			t.Error(err)
		}
		v.equals(t, l, reader(2))
		feed(t, l, v.open(reader(2), l, false))
		v.equals(t, l, reader(2))
	})
}

// interrupted is a log that does something else before it gives a record.
type interrupted struct {
	projector.Log
	at topic.Position
	fn func()
}

// Records implements projector.Log.
func (i *interrupted) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for r, err := range i.Log.Records(ctx, t, s, from, to) {
			if r.Position == i.at {
				i.fn()
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// TestLogThatFailsIsAskedAgain: what the log or its end of the wire refuses is no reason to leave anything in
// quarantine, nor is a slot that is given up.
func TestLogThatFailsIsAskedAgain(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a := s.group()
		s.created(a, 0)
		s.renamed(a, 2, "first")
		s.sent(a, 0, id.NewMessage())
		s.sent(a, 0, id.NewMessage())
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		v.portion = 1
		down := errors.New("broker unreachable")
		_, err := v.open(reader(2), failingLog{l, 3, down}, false).Open(t.Context(), s.slot)
		if !errors.Is(err, down) || kafka.IsPermanent(err) || errors.Is(err, kafka.ErrFenced) {
			t.Errorf("got %v, want a transient error", err)
		}
		if got, want := v.held(), "1/2 parked 1/3 parked"; got != want {
			t.Errorf("in quarantine is %s, want %s", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		given := v.open(reader(2), &interrupted{Log: l, at: 3, fn: cancel}, false)
		if _, err := given.Open(ctx, s.slot); !errors.Is(err, context.Canceled) || kafka.IsPermanent(err) {
			t.Errorf("got %v, want it to be given up", err)
		}
		feed(t, l, v.open(reader(2), l, false))
		v.equals(t, l, reader(2))
	})
}

// failingLog fails at a position.
type failingLog struct {
	projector.Log
	at  topic.Position
	err error
}

// Records implements projector.Log.
func (f failingLog) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for r, err := range f.Log.Records(ctx, t, s, from, to) {
			if r.Position == f.at {
				yield(kafka.Record{}, f.err)
				return
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// TestEachIsFoldedFromWhereItStopped: subjects that are drained together stopped at different places, and what was
// applied of one after another had stopped is known to it.
func TestEachIsFoldedFromWhereItStopped(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b, c := s.group(), s.group(), s.group()
		for _, g := range []id.ThreadID{a, b, c} {
			s.created(g, 0)
		}
		s.renamed(b, 2, "first")
		m := id.NewMessage()
		s.sent(a, 0, m)
		s.renamed(a, 2, "first")
		s.sent(a, 0, m) // again
		s.sent(a, 0, id.NewMessage())
		s.renamed(c, 2, "first") // so far the first part goes
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		v.portion = 1000
		feed(t, l, v.open(reader(2), l, false))
		v.equals(t, l, reader(2))
	})
}

// TestDrainCutOffAnywhere: wherever the connection to the store breaks, the next drain makes up for it.
func TestDrainCutOffAnywhere(t *testing.T) {
	s := newScript()
	a, b := s.group(), s.group()
	s.created(a, 0)
	s.created(b, 0)
	s.renamed(a, 2, "first")
	s.sent(a, 0, id.NewMessage())
	s.renamed(b, 2, "first")
	s.sent(b, 0, id.NewMessage())
	s.sent(a, 0, id.NewMessage())
	s.read(a, id.NewDevice(), 2, 1)
	inBoth(t, func(t *testing.T, v *view) {
		l := sinktest.NewLog(s.steps, v.topics...)
		v.portion = 1000
		for n, whole := 2, false; !whole; n++ {
			v.empty()
			feed(t, l, v.open(reader(1), l, false))
			v.arm(n/2, n%2 == 0)
			_, err := v.open(reader(2), l, true).Open(t.Context(), s.slot)
			v.arm(-1, false)
			if whole = err == nil; whole && n < 10 {
				t.Errorf("a drain of %d steps", n/2-1)
			}
			feed(t, l, v.open(reader(2), l, false))
			v.equals(t, l, reader(2))
			if t.Failed() {
				t.Fatalf("after step %d", n/2)
			}
		}
	})
}

// TestThreadInQuarantineKeepsItsTail: what comes again in a thread that is drained is found, however long it was in
// quarantine.
func TestThreadInQuarantineKeepsItsTail(t *testing.T) {
	v := threadViews(t)
	v.empty()
	s := newScript()
	a, b := s.group(), s.group()
	s.created(a, 0)
	s.created(b, 0)
	m := id.NewMessage()
	s.sent(a, 0, m)
	s.sent(b, 0, id.NewMessage())
	s.renamed(a, 2, "first")
	s.sent(a, 0, m) // again
	s.now += 60 * 24 * time.Hour.Milliseconds()
	s.sent(b, 0, id.NewMessage())
	l := sinktest.NewLog(s.steps, v.topics...)
	old := v.open(reader(1), l, false)
	feed(t, l, old)
	trim := func(sink kafka.Sink) {
		t.Helper()
		if _, err := sink.Open(t.Context(), s.slot); err != nil {
			t.Fatal(err)
		}
		if err := sink.(interface{ Trim(context.Context) error }).Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		sink.Close(s.slot, false)
	}
	trim(old)
	const kept = "SELECT count(*) FROM messages"
	if got := v.count(kept); got != 3 { // of a the first two, of b the last
		t.Errorf("%d messages after trimming, want 3", got)
	}
	newer := v.open(reader(2), l, false)
	feed(t, l, newer)
	ref := verify.NewReference(partitions)
	feed(t, l, ref)
	if diffs, err := verify.CompareThreads(t.Context(), v.pool, ref, 30*24*time.Hour); err != nil || len(diffs) > 0 {
		t.Errorf("%v, %v", diffs, err)
	}
	trim(newer)
	if got := v.count(kept); got != 1 {
		t.Errorf("%d messages after the thread has left quarantine and was trimmed, want 1", got)
	}
}

// TestRangeOfAnOlderVersion: a batch that an older version has begun and not finished is taken in by the newer one as
// if nobody had been there before.
func TestRangeOfAnOlderVersion(t *testing.T) {
	s := newScript()
	a, b := s.group(), s.group()
	s.created(a, 0)
	s.created(b, 0)
	s.renamed(a, 2, "first") // 2
	s.sent(b, 0, id.NewMessage())
	s.sent(a, 0, id.NewMessage())
	s.renamed(b, 2, "second") // 5
	s.sent(a, 3, id.NewMessage())
	s.sent(b, 0, id.NewMessage())
	v, l := historyView(t), sinktest.NewLog(s.steps, history.Topics...)
	for n := 2; ; n++ {
		v.empty()
		inserts, cuts := n/2, 0
		v.arm(inserts, n%2 == 0)
		err := sinktest.Feed(t.Context(), l, v.open(reader(1), l, true), sinktest.Options{Cut: func() int {
			cuts++
			return 4
		}})
		v.arm(-1, false)
		feed(t, l, v.open(reader(2), l, false))
		v.equals(t, l, reader(2))
		if t.Failed() {
			t.Fatalf("after insert %d", inserts)
		}
		if err != nil {
			continue
		}
		if inserts < 9 {
			t.Errorf("the old version has made only %d inserts in %d batches", inserts-1, cuts)
		}
		return
	}
}

// logs keeps what was logged.
type logs struct {
	mu    sync.Mutex // guards lines
	lines []string
}

// has tells whether a line was logged of a subject that says all of that.
func (l *logs) has(message string, subject id.ThreadID, parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		all := strings.HasPrefix(line, message+" ") && strings.Contains(line, "subject="+subject.String())
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		return all
	})
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// Enabled implements slog.Handler.
func (l *logs) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// WithAttrs implements slog.Handler.
func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *logs) WithGroup(string) slog.Handler { return l }
