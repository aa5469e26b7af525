package projector

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

func record(tp topic.Topic, at topic.Position, key, value []byte) kafka.Record {
	return kafka.Record{Topic: tp, Position: at, LogTime: time.UnixMilli(int64(at) * 1000), Key: key, Value: value}
}

func encoded(t *testing.T, e *eventv1.Event) []byte {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIntakeParksBehindWhatCannotBeRead(t *testing.T) {
	good := encoded(t, eventv1.Event_builder{UserId: []byte("u"), MemberLeft: &eventv1.MemberLeft{}}.Build())
	opened := encoded(t, eventv1.Event_builder{LogOpened: eventv1.LogOpened_builder{Base: 5}.Build()}.Build())
	bad := []byte{0xff}
	a, b := make([]byte, 16), make([]byte, 16)
	a[0], b[0] = 1, 2
	batch := kafka.Batch{Records: []kafka.Record{
		record(topic.Threads, 0, []byte("log"), opened),
		record(topic.Threads, 1, a, good),
		record(topic.Threads, 2, a, bad),
		record(topic.Threads, 3, a, good),
		record(topic.Threads, 4, b, good),
		record(topic.Threads, 5, b[:15], good),
		record(topic.Threads, 6, b, good),
		record(topic.Receipts, 0, append(append([]byte{}, a...), b...), good),
		record(topic.Receipts, 1, append(append([]byte{}, a...), b...), nil),
		record(topic.Receipts, 2, a, good),
		record(topic.Users, 0, a, good),
	}}
	in := NewIntake(0, nil)
	type place struct {
		Topic topic.Topic
		At    topic.Position
	}
	for range 2 { // sorting changes nothing
		got := in.Sort(batch)
		var events []place
		for _, e := range got.Events {
			events = append(events, place{e.Topic, e.Position})
		}
		want := []place{
			{topic.Threads, 1},
			{topic.Threads, 4},
			{topic.Threads, 6},
			{topic.Receipts, 0},
			{topic.Users, 0},
		}
		if d := cmp.Diff(want, events); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		var reasons []string
		for _, q := range got.Quarantined {
			reasons = append(reasons, q.Reason)
		}
		wantReasons := []string{
			"the event cannot be decoded",
			Parked,
			"the key has 15 bytes instead of 16",
			"the key has 16 bytes instead of 48",
		}
		if d := cmp.Diff(wantReasons, reasons); d != "" {
			t.Errorf("reasons (-want +got):\n%s", d)
		}
		times := map[topic.Topic]int64{topic.Threads: 6000, topic.Receipts: 2000, topic.Users: 0}
		if d := cmp.Diff(times, got.LogTimes); d != "" {
			t.Errorf("log times (-want +got):\n%s", d)
		}
	}
	in.Commit(in.Sort(batch))
	next := in.Sort(kafka.Batch{Records: []kafka.Record{
		record(topic.Threads, 7, a, good), record(topic.Threads, 8, a, bad),
	}})
	if len(next.Events) != 0 || len(next.Quarantined) != 2 || next.Quarantined[0].Reason != Parked ||
		next.Quarantined[1].Reason != Parked {
		t.Errorf("after the commit: %+v", next)
	}
	in = NewIntake(0, []HeldRange{{Held: Held{topic.Threads, topic.Subject(a)}, First: 5, Last: 8}})
	resumed := in.Sort(kafka.Batch{Records: []kafka.Record{record(topic.Threads, 9, a, good)}})
	if len(resumed.Events) != 0 {
		t.Error("a resumed intake forgot what was held")
	}
}

func TestIntakeRefusesOtherSlots(t *testing.T) {
	subject := make([]byte, 16)
	home := topic.SlotOf(topic.Subject(subject), 4)
	for slot := range topic.Slot(4) {
		r := record(topic.Users, 0, subject, nil)
		r.Slot, r.Value = slot, encoded(t, eventv1.Event_builder{ProfileChanged: &eventv1.ProfileChanged{}}.Build())
		got := NewIntake(4, nil).Sort(kafka.Batch{Slot: slot, Records: []kafka.Record{r}})
		if want := slot == home; (len(got.Events) == 1) != want {
			t.Errorf("slot %d: taken in %v, want %v", slot, !want, want)
		}
	}
}

// What only a newer version can apply is kept with its subject, and one that may be passed over is passed over. The old
// version is the decoder of one that does not know renamed groups.
func TestIntakeKeepsWhatANewerVersionApplies(t *testing.T) {
	a, b, c := make([]byte, 16), make([]byte, 16), make([]byte, 16)
	a[0], b[0], c[0] = 1, 2, 3
	left := eventv1.Event_builder{UserId: a, MemberLeft: &eventv1.MemberLeft{}}
	renamed := eventv1.Event_builder{UserId: a, ThreadRenamed: eventv1.ThreadRenamed_builder{Title: "t"}.Build()}
	ignorable := renamed
	ignorable.Ignorable = true
	later := left
	later.MinReader = event.Reader + 1
	batch := kafka.Batch{Records: []kafka.Record{
		record(topic.Threads, 0, a, encoded(t, renamed.Build())),
		record(topic.Threads, 1, a, encoded(t, left.Build())),
		record(topic.Threads, 2, b, encoded(t, ignorable.Build())),
		record(topic.Threads, 3, b, encoded(t, left.Build())),
		record(topic.Threads, 4, c, encoded(t, later.Build())),
	}}
	sort := func(in *Intake) (events []topic.Position, reasons []string) {
		got := in.Sort(batch)
		for _, e := range got.Events {
			events = append(events, e.Position)
		}
		for _, q := range got.Quarantined {
			reasons = append(reasons, q.Reason)
		}
		return events, reasons
	}
	old := NewIntake(0, nil)
	old.decode = event.As(event.Reader, func(tp event.Type) bool {
		return tp != event.Type(eventv1.Event_ThreadRenamed_case) && event.Known(tp)
	})
	const newer = NewerVersion + ": event of a newer version: type "
	events, reasons := sort(old)
	if d := cmp.Diff([]topic.Position{3}, events); d != "" {
		t.Errorf("an old version's events (-want +got):\n%s", d)
	}
	want := []string{
		newer + "15, min_reader 0, rules 0", Parked, fmt.Sprintf("%s18, min_reader %d, rules 0", newer, event.Reader+1),
	}
	if d := cmp.Diff(want, reasons); d != "" {
		t.Errorf("an old version's quarantine (-want +got):\n%s", d)
	}
	events, reasons = sort(NewIntake(0, nil))
	if d := cmp.Diff([]topic.Position{0, 1, 3}, events); d != "" || len(reasons) != 1 {
		t.Errorf("this version's events (-want +got):\n%s; quarantine %q", d, reasons)
	}
}

func TestCache(t *testing.T) {
	c := NewCache[int](10, func(v int) int { return v })
	c.Put(1, 4)
	c.Put(2, 4)
	c.Get(1)
	c.Put(3, 4) // drops 2, used longest ago
	if _, ok := c.Get(2); ok {
		t.Error("2 is still there")
	}
	if _, ok := c.Get(1); !ok {
		t.Error("1 is gone")
	}
	c.Put(1, 9) // weighed anew
	if c.Weight() != 9 || c.Len() != 1 {
		t.Errorf("weight %d, %d values", c.Weight(), c.Len())
	}
	c.Put(4, 11)
	if c.Weight() != 0 || c.Len() != 0 {
		t.Errorf("kept a value above the limit: weight %d, %d values", c.Weight(), c.Len())
	}
}
