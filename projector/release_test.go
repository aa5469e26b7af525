package projector_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/projector/sinktest"
	"heliograph/projector/verify"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// TestDropsAtAnyTime: operators drop events of random worlds out of quarantine, and have others tried again, while
// sinks are killed anywhere. What is left are the rows of a fold that knew of all drops from the beginning, and those
// of a view that is built anew.
func TestDropsAtAnyTime(t *testing.T) {
	t.Run("threads", func(t *testing.T) {
		v := threadViews(t)
		rapid.Check(t, func(rt *rapid.T) {
			dropAnyTime(rt, v, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") })
		})
		v.mustHaveDropped(t)
	})
	t.Run("history", func(t *testing.T) {
		v := historyView(t)
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 5))
				dropAnyTime(t, v, r.IntN)
			})
		}
		v.mustHaveDropped(t)
	})
}

func (v *view) mustHaveDropped(t *testing.T) {
	t.Helper()
	dropped, drained := v.counted(t, "dropped_events_total"), v.counted(t, "drained_events_total")
	t.Logf("%d events dropped, %d drained, %d times cut off", dropped, drained, v.cut)
	if dropped < 20 || drained < 10 {
		t.Error("too little was dropped to show anything")
	}
}

func dropAnyTime(t failer, v *view, pick func(n int) int) {
	ctx := context.Background()
	v.empty()
	w := eventtest.NewWorld(4, pick)
	w.Unreadable, w.Newer, w.Partitions = pick(4) > 0, pick(2) == 0, partitions
	steps := w.Steps(20 + pick(120))
	l := v.logOf(steps)
	decide := func(dropped bool) bool {
		all := v.parked()
		if len(all) == 0 {
			return false
		}
		q := all[pick(len(all))]
		l.Decide(kafka.Release{
			Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject, Dropped: dropped,
		})
		return true
	}
	for lives := 1 + pick(6); lives > 0; lives-- {
		breaks := pick(2) == 0
		var again projector.Log = l
		if breaks {
			again = brittle{l, pick}
		}
		sink := v.open(versions[pick(len(versions))], again, breaks)
		if pick(3) == 0 {
			sink.(interface{ OnFold(func(*eventv1.Event)) }).OnFold(sinktest.Brittle)
		}
		if breaks {
			v.arm(1+pick(60), pick(2) == 0)
		}
		left := pick(12)
		err := sinktest.Feed(ctx, l, sink, sinktest.Options{
			Cut: func() int { return 1 + pick(30) },
			Reopen: func() bool {
				if left--; left > 0 && pick(3) == 0 {
					return decide(pick(4) > 0)
				}
				return pick(8) == 0
			},
		})
		v.arm(-1, false)
		switch {
		case err == nil:
		case !breaks || kafka.IsPermanent(err):
			t.Fatalf("life: %v", err)
		default:
			v.cut++
		}
		decide(true)
	}
	// This version takes over, and what another broke on is tried again.
	sink := v.open(versions[len(versions)-1], l, false)
	for range 2 {
		if err := sinktest.Feed(ctx, l, sink, sinktest.Options{}); err != nil {
			t.Fatalf("last life: %v", err)
		}
		for _, q := range v.parked() {
			if q.Reason == projector.FoldPanicked {
				l.Decide(kafka.Release{Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject})
			}
		}
	}
	v.mustEqualLog(t, l)
	v.empty()
	fresh := v.open(versions[len(versions)-1], l, false)
	if err := sinktest.Feed(ctx, l, fresh, sinktest.Options{Cut: func() int { return 1 + pick(50) }}); err != nil {
		t.Fatalf("rebuild: %v", err)
	}
	v.mustEqualLog(t, l)
}

// mustEqualLog compares the view with a fold by this version of the whole log and all that was decided.
func (v *view) mustEqualLog(t failer, l *sinktest.Log) {
	t.Helper()
	ref := verify.NewReference(partitions)
	if err := sinktest.Feed(context.Background(), l, ref, sinktest.Options{}); err != nil {
		t.Fatalf("reference: %v", err)
	}
	diffs, err := v.diff(ref)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for i, d := range diffs {
		if i == 5 {
			break
		}
		t.Logf("%v", d)
	}
	if len(diffs) > 0 {
		t.Fatalf("%d differences after %v", len(diffs), l.Decided())
	}
}

// dropOf is the decision to drop the event at a position.
func (s *script) dropOf(t topic.Topic, subject topic.Subject, at topic.Position) kafka.Release {
	return kafka.Release{Topic: t, Slot: s.slot, Position: at, Subject: subject, Dropped: true}
}

// TestDropTakesOutAndDrains: a drop frees what is parked behind the event, up to the next one that cannot be applied,
// which has its own reason from then on; and a subject that ends with it is in quarantine no more.
func TestDropTakesOutAndDrains(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a, b := s.group(), s.group()
		s.created(a, 0)
		s.created(b, 0)
		s.add(topic.Threads, a[:], 0, eventv1.Event_builder{}) // 2: of no type
		s.sent(a, 0, id.NewMessage())                          // 3
		s.add(topic.Threads, b[:], 0, eventv1.Event_builder{}) // 4
		s.add(topic.Threads, a[:], 0, eventv1.Event_builder{}) // 5
		s.renamed(a, 0, "behind both")                         // 6
		l := sinktest.NewLog(s.steps, v.topics...)
		feed(t, l, v.open(reader(1), l, false))
		const broken = "the event cannot be decoded"
		if got, want := v.held(), "1/2 "+broken+" 1/3 parked 1/4 "+broken+" 1/5 parked 1/6 parked"; got != want {
			t.Fatalf("in quarantine is %s, want %s", got, want)
		}
		wrong := s.dropOf(topic.Threads, topic.Subject(b), 2)
		l.Decide(wrong) // of another subject
		l.Decide(s.dropOf(topic.Threads, topic.Subject(a), 2))
		l.Decide(s.dropOf(topic.Threads, topic.Subject(b), 4))
		feed(t, l, v.open(reader(1), l, false))
		if got, want := v.held(), "1/5 "+broken+" 1/6 parked"; got != want {
			t.Errorf("after two drops in quarantine is %s, want %s", got, want)
		}
		v.mustEqualLog(t, l)
		l.Decide(s.dropOf(topic.Threads, topic.Subject(a), 5))
		feed(t, l, v.open(reader(1), l, false))
		if got := v.held(); got != "" {
			t.Errorf("after the third drop in quarantine is %s", got)
		}
		v.mustEqualLog(t, l)
		if got := v.counted(t, "dropped_events_total"); got != 3 {
			t.Errorf("%d events are counted as dropped, want 3", got)
		}
	})
}

// TestTriedAgain: what an operator has tried again is drained by a version that can apply it, once; where it cannot,
// that is told, and nothing is read again until he asks anew.
func TestTriedAgain(t *testing.T) {
	inBoth(t, func(t *testing.T, v *view) {
		s := newScript()
		a := s.group()
		s.created(a, 0)
		s.sent(a, 0, id.NewMessage()) // 1: on which the fold breaks
		s.renamed(a, 0, "behind it")
		l := sinktest.NewLog(s.steps, v.topics...)
		breaks := func(e *eventv1.Event) {
			if e.HasMessageSent() {
				panic("broken")
			}
		}
		asked := &asked{Log: l}
		open := func(broken bool) kafka.Sink {
			sink := v.open(reader(1), asked, false)
			if broken {
				sink.(interface{ OnFold(func(*eventv1.Event)) }).OnFold(breaks)
			}
			return sink
		}
		old := open(true)
		feed(t, l, old)
		again := kafka.Release{Topic: topic.Threads, Slot: s.slot, Position: 1, Subject: topic.Subject(a)}
		l.Decide(again)
		feed(t, l, old)
		feed(t, l, old)
		const want = "1/1 the fold panicked 1/2 parked"
		if got := v.held(); got != want {
			t.Fatalf("in quarantine is %s, want %s", got, want)
		}
		if want := []string{"helio.threads 1-3"}; !slices.Equal(asked.ranges, want) {
			t.Errorf("the log was asked for %q, want %q", asked.ranges, want)
		}
		l.Decide(again)
		feed(t, l, old)
		if len(asked.ranges) != 2 {
			t.Errorf("the log was asked for %q, want it to be asked once more", asked.ranges)
		}
		feed(t, l, open(false))
		if got := v.held(); got != "" {
			t.Errorf("in quarantine is %s", got)
		}
		v.mustEqualLog(t, l)
	})
}
