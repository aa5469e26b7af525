package demo

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"heliograph/projector/verify"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"

	"google.golang.org/protobuf/proto"
)

func message(at topic.Position, text string) Entry {
	return Entry{
		Position: at,
		Ordinal:  int64(at),
		Kind:     messageSent,
		Sender:   id.UserID{1},
		Message:  id.MessageID{byte(at)},
		Text:     text,
	}
}

func TestCompare(t *testing.T) {
	want := []Entry{message(0, "a"), message(3, "b"), message(7, "c"), message(9, "d")}
	change := func(i int, f func(*Entry)) []Entry {
		got := slices.Clone(want)
		f(&got[i])
		return got
	}
	one := func(at topic.Position, f Fault, detail string) []Difference {
		return []Difference{{Position: at, Fault: f, Detail: detail}}
	}
	for _, tc := range []struct {
		name string
		got  []Entry
		want []Difference
	}{
		{"the same", want, nil},
		{"missing", []Entry{want[0], want[2], want[3]}, one(3, Missing, `message_sent "b"`)},
		{"the first missing", want[1:], one(0, Missing, `message_sent "a"`)},
		{"doubled", []Entry{want[0], want[1], want[1], want[2], want[3]}, one(3, Doubled, `message_sent "b"`)},
		{"doubled later", append(slices.Clone(want), want[0]), one(0, Doubled, `message_sent "a"`)},
		{"reordered", []Entry{want[0], want[2], want[1], want[3]}, one(3, Reordered, "it came after 7")},
		{"unexpected", append(slices.Clone(want), message(11, "e")), one(11, Unexpected, `message_sent "e"`)},
		{
			"a retry at another place",
			append(slices.Clone(want), func() Entry { e := want[1]; e.Position = 12; return e }()),
			one(12, Unexpected, `message_sent "b"`),
		},
		{"other text", change(1, func(e *Entry) { e.Text = "x" }), one(3, Different, `text "x", want "b"`)},
		{"other ordinal", change(3, func(e *Entry) { e.Ordinal = 8 }), one(9, Different, "ordinal 8, want 9")},
		{"nothing at all", nil, []Difference{
			{Position: 0, Fault: Missing, Detail: `message_sent "a"`},
			{Position: 3, Fault: Missing, Detail: `message_sent "b"`},
			{Position: 7, Fault: Missing, Detail: `message_sent "c"`},
			{Position: 9, Fault: Missing, Detail: `message_sent "d"`},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(compare("", want, tc.got), tc.want); diff != "" {
				t.Errorf("got -, want +:\n%s", diff)
			}
		})
	}
}

func TestCompareAll(t *testing.T) {
	a, b, c := id.ThreadID{1}, id.ThreadID{2}, id.ThreadID{3}
	want := entries{a: {message(1, "a")}, b: {message(2, "b")}}
	got := entries{a: {message(1, "a")}, c: {message(5, "c")}}
	names := map[id.ThreadID]string{a: "a", b: "b", c: "c"}
	if diff := cmp.Diff(compareAll("here", want, got, func(t id.ThreadID) string { return names[t] }), Comparison{
		Place: "here", Threads: 2, Messages: 2, Events: 2, Differences: []Difference{
			{Thread: "b", Position: 2, Fault: Missing, Detail: `message_sent "b"`},
			{Thread: "c", Position: 5, Fault: Unexpected, Detail: `message_sent "c"`},
		},
	}); diff != "" {
		t.Errorf("got -, want +:\n%s", diff)
	}
}

// Whatever differs anywhere, or cannot be compared, is no good end.
func TestConclude(t *testing.T) {
	report := func(f func(*verify.Report)) []ViewComparison {
		r := &verify.Report{Places: []verify.Place{{Topic: topic.Threads, Next: 3, Log: 3}}}
		f(r)
		return []ViewComparison{{"Postgres", r}}
	}
	differs := []verify.Difference{{Table: "threads"}}
	for name, c := range map[string]struct {
		result  Result
		unasked []string
		ok      bool
		verdict string
	}{
		"all is well": {result: Result{Views: report(func(*verify.Report) {})}, ok: true, verdict: "fine"},
		"a row": {
			result:  Result{Views: report(func(r *verify.Report) { r.Differences = differs })},
			verdict: "1 difference: Postgres",
		},
		"a watermark": {
			result:  Result{Views: report(func(r *verify.Report) { r.Moved = 2 })},
			verdict: "2 differences: Postgres",
		},
		"a short log": {
			result:  Result{Views: report(func(r *verify.Report) { r.Places[0].Log = 2 })},
			verdict: "1 difference: Postgres",
		},
		"a device": {
			result:  Result{Comparisons: []Comparison{{Place: "Ann's phone", Differences: make([]Difference, 2)}}},
			verdict: "2 differences: Ann's phone",
		},
		"a dead role": {unasked: []string{"edge 1 ended"}, verdict: "no difference, but edge 1 ended"},
		"two of those": {
			result: Result{
				Views:       report(func(r *verify.Report) { r.Differences = differs }),
				Comparisons: []Comparison{{Place: "Bob's tablet", Differences: make([]Difference, 1)}},
			},
			unasked: []string{"edge 1 ended"}, verdict: "2 differences: Postgres, Bob's tablet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.result.conclude(c.unasked, "fine")
			if c.result.OK != c.ok || c.result.Verdict != c.verdict {
				t.Errorf("ok %v, %q, want %v, %q", c.result.OK, c.result.Verdict, c.ok, c.verdict)
			}
		})
	}
}

// What a user may see of a thread is bounded by his membership and by when his device came in.
func TestSeenBy(t *testing.T) {
	ann, bob, dev := id.UserID{1}, id.UserID{2}, id.DeviceID{1}
	g := id.NewGroup()
	sent := func(u id.UserID) *eventv1.Event {
		m := id.NewMessage()
		data, err := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
		if err != nil {
			t.Fatal(err)
		}
		return eventv1.Event_builder{UserId: u[:], DeviceId: dev[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventv1.Sealed_builder{Data: data}.Build(),
		}.Build()}.Build()
	}
	s := thread.New(g)
	r := &reference{
		accepted: entries{}, times: map[id.ThreadID]map[topic.Position]int64{g: {}},
		threads: map[id.ThreadID]*thread.State{g: s},
	}
	for i, ev := range []*eventv1.Event{
		eventv1.Event_builder{
			UserId: ann[:], DeviceId: dev[:],
			ThreadCreated: eventv1.ThreadCreated_builder{Title: "g"}.Build(),
		}.Build(),
		sent(ann),
		eventv1.Event_builder{
			UserId: ann[:], DeviceId: dev[:],
			MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{bob[:]}}.Build(),
		}.Build(),
		sent(ann),
		sent(bob),
		eventv1.Event_builder{UserId: bob[:], DeviceId: dev[:], MemberLeft: &eventv1.MemberLeft{}}.Build(),
		sent(bob), // no member any more
		sent(ann),
	} {
		at := topic.Position(i)
		v := s.Apply(event.Of(ev), at, 1000+int64(i))
		if v.Outcome != thread.Accepted {
			continue
		}
		e, err := entryOf(event.Of(ev), at, v.Ordinal)
		if err != nil {
			t.Fatal(err)
		}
		r.accepted[g], r.times[g][at] = append(r.accepted[g], e), 1000+int64(i)
	}
	positions := func(u id.UserID) []topic.Position {
		var out []topic.Position
		for _, e := range r.seenBy(u, dev)[g] {
			out = append(out, e.Position)
		}
		return out
	}
	if diff := cmp.Diff(positions(ann), []topic.Position{0, 1, 2, 3, 4, 5, 7}); diff != "" {
		t.Errorf("Ann: got -, want +:\n%s", diff)
	}
	if diff := cmp.Diff(positions(bob), []topic.Position{2, 3, 4, 5}); diff != "" {
		t.Errorf("Bob: got -, want +:\n%s", diff)
	}
}
