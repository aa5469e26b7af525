package thread_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// FuzzApply folds logs that nobody checked before. Whatever they hold: no panic, the event is left as it was, what has
// no effect changes nothing, an event at the position of one before is stale, an accepted message is a duplicate when
// it comes again, the state keeps what its comments promise, the log twice gives what it gives once, and stored and
// loaded anywhere in between, it gives what the whole gives.
func FuzzApply(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(uint16(10*seed), eventtest.Script(eventtest.NewWorld(4, rand.New(rand.NewPCG(seed, 7)).IntN).Steps(40)))
	}
	// A text whose preview would end within a character.
	data, err := proto.Marshal(eventv1.Content_builder{Text: "x" + strings.Repeat("é", thread.MaxPreview)}.Build())
	if err != nil {
		f.Fatal(err)
	}
	a, b, m := id.UserID{1}, id.UserID{2}, id.NewMessage()
	th := id.DirectThread(a, b)
	sent, err := proto.Marshal(eventv1.Event_builder{UserId: a[:], MessageSent: eventv1.MessageSent_builder{
		MessageId: m[:], DirectPeer: b[:], Content: eventv1.Sealed_builder{Data: data}.Build(),
	}.Build()}.Build())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(0), eventtest.Script([]eventtest.Step{{Topic: topic.Threads, Key: th[:], Value: sent}}))
	f.Fuzz(func(t *testing.T, cut uint16, script []byte) {
		log, parts := states{}, states{}
		steps := slices.DeleteFunc(
			eventtest.ParseScript(script),
			func(s eventtest.Step) bool { return s.Event == nil || s.Topic != topic.Threads },
		)
		for n, s := range steps {
			if n == int(cut) {
				for k, st := range parts {
					parts[k] = stored(st, st.Next)
				}
			}
			want := parts.apply(s)
			was := log[id.ThreadID(s.Subject)]
			if was == nil {
				was = thread.New(id.ThreadID(s.Subject))
			}
			was = was.Clone()
			given := proto.CloneOf(s.Event.Event)
			v := log.apply(s)
			if !reflect.DeepEqual(v, want) {
				t.Fatalf("%+v as a whole, %+v when cut", v, want)
			}
			is := log[id.ThreadID(s.Subject)]
			if !proto.Equal(given, s.Event.Event) {
				t.Fatalf("%v was changed into %v", given, s.Event)
			}
			if v.Outcome != thread.Stale {
				was.Next = s.Position + 1
			}
			if v.Outcome != thread.Accepted {
				same(t, "an event without effect", was, is)
			}
			again := is.Clone()
			if v := again.Apply(s.Event, s.Position, s.TimeMS); v.Outcome != thread.Stale {
				t.Fatalf("the same event again is %+v", v)
			}
			same(t, "the same event again", is, again)
			if v.Outcome == thread.Accepted && s.Event.WhichBody() == eventv1.Event_MessageSent_case &&
				is.LastTimeMS-s.TimeMS <= thread.Window.Milliseconds() {
				w := again.Apply(s.Event, s.Position+1, s.TimeMS)
				if w.Outcome != thread.Duplicate || w.Original.Position != s.Position ||
					w.Original.Ordinal != v.Ordinal {
					t.Fatalf("accepted as %+v, and its retry is %+v", v, w)
				}
			}
			sound(t, is, v)
		}
		for k, is := range log {
			same(t, "cut", stored(is, is.Next), stored(parts[k], parts[k].Next))
			log[k] = is.Clone()
		}
		for _, s := range steps {
			log.apply(s)
		}
		for k, is := range log {
			same(t, "twice", stored(is, is.Next), stored(parts[k], parts[k].Next))
		}
	})
}

func same(t *testing.T, what string, was, is *thread.State) {
	t.Helper()
	if !reflect.DeepEqual(was, is) { // much faster than cmp, and a fuzzer lives on that
		t.Fatalf("%s changed (-was +is):\n%s", what, cmp.Diff(was, is, cmp.AllowUnexported(thread.State{})))
	}
}

// sound checks what holds of any state.
func sound(t *testing.T, s *thread.State, v thread.Verdict) {
	t.Helper()
	active, admins := 0, 0
	for u, m := range s.Members {
		if m.Active() {
			active++
			if m.Role == thread.RoleAdmin {
				admins++
			}
		}
		end := topic.Position(-1)
		for k, span := range m.Spans {
			if span.From <= end || span.To != 0 && span.To < span.From || span.To == 0 && k != len(m.Spans)-1 {
				t.Fatalf("%x has spans %v", u, m.Spans)
			}
			end = span.To
		}
	}
	switch {
	case active != s.ActiveMembers() || active > thread.MaxMembers:
		t.Fatalf("%d members, counted as %d", active, s.ActiveMembers())
	case s.Kind == thread.Group && active > 0 && admins == 0:
		t.Fatal("a group without an admin")
	case s.Kind == thread.Group && (len(s.Title) > thread.MaxTitle || !event.OneLine(s.Title, false)):
		t.Fatalf("a group called %q", s.Title)
	case len(s.Preview) > thread.MaxPreview || !utf8.ValidString(s.Preview):
		t.Fatalf("a preview of %q", s.Preview)
	case s.Kind == thread.None && (len(s.Members) > 0 || s.LastOrdinal > 0):
		t.Fatalf("not begun, with %d members and %d messages", len(s.Members), s.LastOrdinal)
	case slices.ContainsFunc(v.Members, func(u id.UserID) bool { return s.Member(u) == nil }):
		t.Fatalf("a verdict on others than members: %v", v.Members)
	}
}
