package projector

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// FuzzIntake sorts records that nobody checked before. Whatever they hold: no panic; sorting again gives the same;
// every record but tombstones and the first of a log is an event, which can be folded, as long as it can be read and
// none of its subject could not be, else in quarantine with a reason; and cut anywhere, the parts give what the whole
// gave.
func FuzzIntake(f *testing.F) {
	for seed := range uint64(4) {
		w := eventtest.NewWorld(4, rand.New(rand.NewPCG(seed, 7)).IntN)
		w.Unreadable, w.Newer = seed%2 == 1, seed >= 2
		f.Add(byte(seed), uint16(15), eventtest.Script(w.Steps(30)))
	}
	f.Fuzz(func(t *testing.T, partitions byte, cut uint16, script []byte) {
		var all []kafka.Record
		for n, s := range eventtest.ParseScript(script) {
			r := kafka.Record{
				Topic:    s.Topic,
				Position: s.Position,
				LogTime:  time.UnixMilli(s.TimeMS),
				Key:      s.Key,
				Value:    s.Value,
			}
			if n%16 == 15 && len(s.Value) == 0 {
				r.Value = nil
			}
			all = append(all, r)
		}
		p := int(partitions) % 8
		in := NewIntake(p, nil)
		whole := in.Sort(kafka.Batch{Records: all})
		compare(t, "sorted again", whole, in.Sort(kafka.Batch{Records: all}))
		held := map[Held]bool{}
		events, aside := whole.Events, whole.Quarantined
		for _, r := range all {
			switch want := fate(r, p, held); {
			case want == "skipped":
			case want == "event" && len(events) > 0 && events[0].Topic == r.Topic && events[0].Position == r.Position:
				events = events[1:]
			case want == "event" || len(aside) == 0 || aside[0].Topic != r.Topic || aside[0].Position != r.Position ||
				aside[0].Reason == "" || (aside[0].Reason == Parked) != (want == "parked"):
				t.Fatalf("%s/%d, want %s; next are %+v and %+v",
					r.Topic, r.Position, want, events[:min(1, len(events))], aside[:min(1, len(aside))])
			default:
				_ = aside[0].Event("view")
				aside = aside[1:]
			}
		}
		if len(events)+len(aside) > 0 {
			t.Fatalf("out of nothing: %+v and %+v", events, aside)
		}
		for k := range whole.Events {
			e := &whole.Events[k]
			if e.Body == nil || e.Position < 0 || e.Raw == nil {
				t.Fatalf("an event that cannot be folded: %+v", e)
			}
			if _, w, ok := thread.Receipt(e.Key, e.Body); ok &&
				(w.ReadPosition < 0 || w.DeliveredPosition < 0 || w.ReadOrdinal < 0 || w.DeliveredOrdinal < 0) {
				t.Fatalf("a watermark below nothing: %+v", w)
			}
		}
		in.Commit(whole)
		if in.Held() != len(held) {
			t.Fatalf("%d subjects are held, want %d", in.Held(), len(held))
		}
		for _, e := range in.Sort(kafka.Batch{Records: all}).Events {
			if held[Held{e.Topic, e.Subject}] {
				t.Fatalf("%v of a held subject", e.Position)
			}
		}
		at := min(int(cut), len(all))
		parts := NewIntake(p, nil)
		first := parts.Sort(kafka.Batch{Records: all[:at]})
		parts.Commit(first)
		second := parts.Sort(kafka.Batch{Records: all[at:]})
		first.Events = append(first.Events, second.Events...)
		first.Quarantined = append(first.Quarantined, second.Quarantined...)
		first.fresh = append(first.fresh, second.fresh...)
		for tp, ms := range second.LogTimes {
			first.LogTimes[tp] = max(first.LogTimes[tp], ms)
		}
		compare(t, "cut", whole, first)
	})
}

// fate is what must become of a record, said without regard to speed.
func fate(r kafka.Record, partitions int, held map[Held]bool) string {
	e, err := event.Decode(r.Value)
	if r.Value == nil || errors.Is(err, event.ErrIgnorable) || err == nil && e.HasLogOpened() {
		return "skipped"
	}
	keyed := len(r.Key) == id.Size
	if r.Topic == topic.Receipts {
		keyed = len(r.Key) == 2*id.Size || len(r.Key) == 3*id.Size
	}
	if !keyed {
		return "refused"
	}
	h := Held{r.Topic, topic.Subject(r.Key[:id.Size])}
	switch {
	case held[h]:
		return "parked"
	case err == nil && (partitions == 0 || topic.SlotOf(h.Subject, partitions) == r.Slot):
		return "event"
	}
	held[h] = true
	return "refused"
}

func compare(t *testing.T, what string, want, got Sorted) {
	t.Helper()
	sameEvent := func(a, b Event) bool {
		return a.Topic == b.Topic && a.Position == b.Position && a.TimeMS == b.TimeMS && a.Subject == b.Subject &&
			a.Device == b.Device &&
			bytes.Equal(a.Raw, b.Raw)
	}
	if slices.EqualFunc(want.Events, got.Events, sameEvent) && slices.Equal(want.Quarantined, got.Quarantined) &&
		slices.Equal(want.fresh, got.fresh) && maps.Equal(want.LogTimes, got.LogTimes) {
		return // cmp takes much longer, and a fuzzer lives on speed
	}
	t.Fatalf("%s (-want +got):\n%s", what, cmp.Diff(want, got, cmp.AllowUnexported(Sorted{}), protocmp.Transform()))
}
