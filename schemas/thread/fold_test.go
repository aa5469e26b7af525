package thread_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

type states map[id.ThreadID]*thread.State

func (s states) apply(st eventtest.Step) thread.Verdict {
	t := id.ThreadID(st.Subject)
	if s[t] == nil {
		s[t] = thread.New(t)
	}
	return s[t].Apply(st.Event, st.Position, st.TimeMS)
}

func steps(t *rapid.T) []eventtest.Step {
	w := eventtest.NewWorld(4, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") })
	var out []eventtest.Step
	for _, s := range w.Steps(rapid.IntRange(0, 200).Draw(t, "steps")) {
		if s.Topic == topic.Threads {
			out = append(out, s)
		}
	}
	return out
}

// state compares what a state says, without what it keeps to be fast.
var state = cmp.Options{cmpopts.IgnoreUnexported(thread.State{}), cmpopts.EquateEmpty()}

func TestReplayingTwiceIsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := steps(t)
		once, twice := states{}, states{}
		for _, s := range log {
			once.apply(s)
			twice.apply(s)
		}
		for _, s := range log {
			if v := twice.apply(s); v.Outcome != thread.Stale {
				t.Fatalf("position %d came again and was %v", s.Position, v.Outcome)
			}
		}
		if d := cmp.Diff(once, twice, state); d != "" {
			t.Fatal(d)
		}
	})
}

// stored is a state as a view would store and load it: the members, the last message and the messages of the window
// before it.
func stored(s *thread.State, next topic.Position) *thread.State {
	c := s.Clone()
	out := thread.New(s.ID)
	out.Kind, out.Title, out.Members, out.Next = c.Kind, c.Title, c.Members, next
	out.Invited = c.Invited
	out.LastPosition, out.LastOrdinal, out.LastTimeMS = c.LastPosition, c.LastOrdinal, c.LastTimeMS
	out.LastSender, out.Preview = c.LastSender, c.Preview
	for k, seen := range c.Recent {
		if c.LastTimeMS-seen.TimeMS <= thread.Window.Milliseconds() {
			out.Recent[k] = seen
		}
	}
	out.Restore()
	return out
}

func TestCutAndResumeIsTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := steps(t)
		whole, cut := states{}, states{}
		for i, s := range log {
			want, got := whole.apply(s), cut.apply(s)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("verdict on step %d: %s", i, d)
			}
			if rapid.IntRange(0, 5).Draw(t, "cut") == 0 {
				for k, st := range cut {
					cut[k] = stored(st, s.Position+1)
				}
			}
		}
		for k := range whole {
			if d := cmp.Diff(stored(whole[k], 0), stored(cut[k], 0), state); d != "" {
				t.Fatal(d)
			}
			if whole[k].ActiveMembers() != cut[k].ActiveMembers() {
				t.Fatalf("%d members now, want %d", cut[k].ActiveMembers(), whole[k].ActiveMembers())
			}
		}
	})
}

func TestOtherThreadsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := steps(t)
		mixed, alone := states{}, states{}
		byThread := map[topic.Subject][]eventtest.Step{}
		for _, s := range log {
			mixed.apply(s)
			byThread[s.Subject] = append(byThread[s.Subject], s)
		}
		for _, own := range byThread {
			for _, s := range own {
				alone.apply(s)
			}
		}
		if d := cmp.Diff(mixed, alone, state); d != "" {
			t.Fatal(d)
		}
	})
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := states{}
		for _, s := range steps(t) {
			before := int64(0)
			if st := all[id.ThreadID(s.Subject)]; st != nil {
				before = st.LastOrdinal
			}
			v := all.apply(s)
			st := all[id.ThreadID(s.Subject)]
			want := before
			if v.Outcome == thread.Accepted && s.Event.WhichBody() == eventv1.Event_MessageSent_case {
				want++
			}
			if st.LastOrdinal != want {
				t.Fatalf("ordinal %d, want %d", st.LastOrdinal, want)
			}
			active, admins := 0, 0
			for u, m := range st.Members {
				last := topic.Position(-1)
				for i, sp := range m.Spans {
					if sp.From <= last || sp.To == 0 && i != len(m.Spans)-1 || sp.To != 0 && sp.To < sp.From {
						t.Fatalf("spans of %v: %v", u, m.Spans)
					}
					last = sp.To
				}
				if m.Active() {
					active++
					if m.Role == thread.RoleAdmin {
						admins++
					}
				}
			}
			if active != st.ActiveMembers() {
				t.Fatalf("%d members, counted %d", st.ActiveMembers(), active)
			}
			if st.Kind == thread.Group && active > 0 && admins == 0 {
				t.Fatal("a group without an admin")
			}
			for u := range st.Invited {
				if st.IsMember(u) || active == 0 || len(st.Invited) > thread.MaxInvited {
					t.Fatalf("%v is invited into a group of %d, a member: %v", u, active, st.IsMember(u))
				}
			}
			if c := st.Clone(); !cmp.Equal(c, st, state) {
				t.Fatal("a clone is another")
			}
		}
	})
}

// group is a small log written by hand.
type group struct {
	t  *testing.T
	s  *thread.State
	at topic.Position
	ms int64
}

func newGroup(t *testing.T) *group {
	return &group{t: t, s: thread.New(id.NewGroup()), at: 10, ms: 1_700_000_000_000}
}

func user(n int) id.UserID { return id.User([]byte("k"), fmt.Sprint(n), 1) }

func (g *group) do(by id.UserID, b eventv1.Event_builder) thread.Verdict {
	g.t.Helper()
	b.UserId = by[:]
	g.at++
	return g.s.Apply(event.Of(b.Build()), g.at, g.ms)
}

func (g *group) must(reason thread.Reason, v thread.Verdict) {
	g.t.Helper()
	switch {
	case reason == "" && v.Outcome != thread.Accepted:
		g.t.Fatalf("got %v %s, want it accepted", v.Outcome, v.Reason)
	case reason != "" && (v.Outcome != thread.Rejected || v.Reason != reason):
		g.t.Fatalf("got %v %s, want it rejected as %s", v.Outcome, v.Reason, reason)
	}
}

func (g *group) create(by id.UserID, members ...id.UserID) thread.Verdict {
	g.t.Helper()
	return g.do(by, eventv1.Event_builder{
		ThreadCreated: eventv1.ThreadCreated_builder{Title: "t", MemberIds: raw(members)}.Build(),
	})
}

func (g *group) add(by id.UserID, members ...id.UserID) thread.Verdict {
	g.t.Helper()
	return g.do(by, eventv1.Event_builder{MemberAdded: eventv1.MemberAdded_builder{MemberIds: raw(members)}.Build()})
}

func (g *group) remove(by, u id.UserID) thread.Verdict {
	g.t.Helper()
	return g.do(by, eventv1.Event_builder{MemberRemoved: eventv1.MemberRemoved_builder{MemberId: u[:]}.Build()})
}

func (g *group) leave(u id.UserID) thread.Verdict {
	g.t.Helper()
	return g.do(u, eventv1.Event_builder{MemberLeft: &eventv1.MemberLeft{}})
}

func (g *group) role(by, u id.UserID, r eventv1.Role) thread.Verdict {
	g.t.Helper()
	return g.do(by, eventv1.Event_builder{RoleChanged: eventv1.RoleChanged_builder{MemberId: u[:], Role: r}.Build()})
}

func (g *group) send(by id.UserID, m id.MessageID) thread.Verdict {
	g.t.Helper()
	return g.do(by, eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text("hi")}.Build(),
	})
}

func raw(us []id.UserID) [][]byte {
	var out [][]byte
	for _, u := range us {
		out = append(out, u[:])
	}
	return out
}

func TestRetriesWithinTheWindow(t *testing.T) {
	g := newGroup(t)
	a, b, m := user(1), user(2), id.NewMessage()
	g.must("", g.create(a, b))
	first := g.send(a, m)
	g.must("", first)
	at := g.at
	g.must("", g.send(b, m)) // another sender's message of the same id is another message
	g.ms += thread.Window.Milliseconds()
	if v := g.send(a, m); v.Outcome != thread.Duplicate || v.Original.Position != at ||
		v.Original.Ordinal != first.Ordinal {
		t.Fatalf("at the window's end: %+v", v)
	}
	g.ms++
	g.must("", g.send(a, m))
	g.ms -= 2 * time.Hour.Milliseconds() // a stamp that goes back finds the later one
	if v := g.send(a, m); v.Outcome != thread.Duplicate || v.Original.Position != g.at-1 {
		t.Fatalf("with an older stamp: %+v", v)
	}
	if g.s.LastOrdinal != 3 {
		t.Errorf("%d messages, want 3", g.s.LastOrdinal)
	}
}

func TestRolesAndSpans(t *testing.T) {
	g := newGroup(t)
	a, b, c := user(1), user(2), user(3)
	g.must(thread.Missing, g.add(a, b))
	g.must("", g.create(a, b))
	g.must(thread.Exists, g.create(a))
	g.must(thread.NotAdmin, g.add(b, c))
	g.must(thread.NotMember, g.send(c, id.NewMessage()))
	g.must(thread.NotAdmin, g.role(a, a, eventv1.Role_ROLE_MEMBER))
	g.must("", g.add(a, c, c, b))
	joined := g.at
	g.must(thread.Exists, g.add(a, c))
	g.must("", g.send(c, id.NewMessage()))
	g.must("", g.remove(a, c))
	removed := g.at
	g.must(thread.Missing, g.remove(a, c))
	g.must(thread.NotMember, g.send(c, id.NewMessage()))
	g.must("", g.send(a, id.NewMessage()))
	unseen := g.at
	g.must("", g.add(a, c))
	m := g.s.Member(c)
	for p, want := range map[topic.Position]bool{
		joined - 1: false, joined: true, removed: true, unseen: false, g.at: true, g.at + 5: true,
	} {
		if m.Sees(p) != want {
			t.Errorf("sees position %d: %v, want %v", p, !want, want)
		}
	}
	if m.BaseOrdinal != 2 || m.Unread(g.s.LastOrdinal, thread.Watermark{}).Most() != 0 {
		t.Errorf("base ordinal %d, unread %d", m.BaseOrdinal, m.Unread(g.s.LastOrdinal, thread.Watermark{}))
	}
	// The last admin leaves: the longest-standing member takes over.
	v := g.leave(a)
	g.must("", v)
	if g.s.Member(b).Role != thread.RoleAdmin || len(v.Members) != 2 {
		t.Errorf("roles after the admin left: %+v, changed %v", g.s.Member(b), v.Members)
	}
	g.must("", g.leave(b))
	g.must("", g.leave(c))
	if g.s.ActiveMembers() != 0 {
		t.Errorf("%d members left", g.s.ActiveMembers())
	}
}

func TestMaxMembers(t *testing.T) {
	g := newGroup(t)
	var us []id.UserID
	for i := range thread.MaxMembers + 1 {
		us = append(us, user(i))
	}
	g.must(thread.Full, g.create(us[0], us[1:]...))
	g.must("", g.create(us[0], us[1:thread.MaxMembers]...))
	if g.s.ActiveMembers() != thread.MaxMembers {
		t.Fatalf("%d members", g.s.ActiveMembers())
	}
	g.must(thread.Full, g.add(us[0], us[thread.MaxMembers]))
	g.must("", g.remove(us[0], us[1]))
	g.must("", g.add(us[0], us[thread.MaxMembers]))
}

func TestDirectThreadBeginsWithItsFirstMessage(t *testing.T) {
	a, b, c := user(1), user(2), user(3)
	send := func(s *thread.State, at topic.Position, by, peer id.UserID) thread.Verdict {
		m := id.NewMessage()
		return s.Apply(event.Of(eventv1.Event_builder{UserId: by[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventtest.Text("hi"), DirectPeer: peer[:],
		}.Build()}.Build()), at, 1)
	}
	s := thread.New(id.DirectThread(a, b))
	if v := send(s, 0, c, b); v.Reason != thread.NotMember {
		t.Fatalf("a stranger began it: %+v", v)
	}
	if v := send(s, 1, b, a); v.Outcome != thread.Accepted || len(v.Members) != 2 || s.Kind != thread.Direct ||
		s.Peer(a) != b {
		t.Fatalf("%+v %+v", v, s)
	}
	if v := send(s, 2, c, a); v.Reason != thread.NotMember {
		t.Fatalf("a stranger wrote: %+v", v)
	}
	self := thread.New(id.DirectThread(a, a))
	if v := send(self, 0, a, a); v.Outcome != thread.Accepted || self.ActiveMembers() != 1 || self.Peer(a) != a {
		t.Fatalf("notes to oneself: %+v", v)
	}
	g := thread.New(id.DirectThread(a, b))
	create := eventv1.Event_builder{
		UserId:        a[:],
		ThreadCreated: eventv1.ThreadCreated_builder{Title: "t"}.Build(),
	}.Build()
	if v := g.Apply(event.Of(create), 0, 1); v.Reason != thread.WrongKind {
		t.Fatalf("a group took a direct thread's id: %+v", v)
	}
}

func TestPreviewFitsAnyStore(t *testing.T) {
	g := newGroup(t)
	a := user(1)
	g.must("", g.create(a))
	m := id.NewMessage()
	text := "a\x00b\nc" + fmt.Sprintf("%0200d", 0) + "ж"
	g.must("", g.do(a, eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text(text)}.Build(),
	}))
	if p := g.s.Preview; len(p) > thread.MaxPreview || p[:4] != "ab c" {
		t.Errorf("preview %q", p)
	}
}

// What older rules took, refused and kept of a message stays, and longer and stricter titles are of rules 3.
func TestTitlesAndPreviewsOfEachRules(t *testing.T) {
	for name, c := range map[string]struct {
		title string
		ok    [event.CurrentRules]bool
	}{
		"empty":            {"", [...]bool{false, false, false}},
		"blank":            {"  ", [...]bool{false, false, false}},
		"plain":            {"ok", [...]bool{true, true, true}},
		"NUL":              {"nul\x00", [...]bool{false, false, false}},
		"new line":         {"line\n", [...]bool{false, false, false}},
		"not UTF-8":        {"\xff", [...]bool{false, false, false}},
		"next line of C1":  {"a\u0085b", [...]bool{true, true, false}},
		"line separator":   {"a\u2028b", [...]bool{true, true, false}},
		"256 bytes":        {strings.Repeat("x", 256), [...]bool{true, true, true}},
		"257 bytes":        {strings.Repeat("x", 257), [...]bool{false, false, true}},
		"Hindi, 300 bytes": {strings.Repeat("क्षि ", 23), [...]bool{false, false, true}},
		"1,025 bytes":      {strings.Repeat("x", 1025), [...]bool{false, false, false}},
	} {
		for i, want := range c.ok {
			a := user(1)
			e := event.Of(eventv1.Event_builder{
				UserId: a[:], Rules: uint32(i + 1),
				ThreadRenamed: eventv1.ThreadRenamed_builder{Title: c.title}.Build(),
			}.Build())
			if err := thread.Check(e); (err == nil) != want {
				t.Errorf("%s, by rules %d: %v", name, i+1, err)
			}
		}
	}
	for rules, want := range []int{160, 160, 224} {
		g := newGroup(t)
		a, m := user(1), id.NewMessage()
		g.must("", g.create(a))
		g.must("", g.do(a, eventv1.Event_builder{Rules: uint32(rules + 1), MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventtest.Text(strings.Repeat("x", 1000)),
		}.Build()}))
		if got := len(g.s.Preview); got != want {
			t.Errorf("a preview by rules %d has %d bytes, want %d", rules+1, got, want)
		}
	}
}

func TestWatermarksMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() thread.Watermark {
			n := func() int64 { return rapid.Int64Range(0, 5).Draw(t, "n") }
			return thread.Watermark{
				DeliveredPosition: topic.Position(n()),
				DeliveredOrdinal:  n(),
				ReadPosition:      topic.Position(n()),
				ReadOrdinal:       n(),
			}
		}
		a, b, c := draw(), draw(), draw()
		if a.Merge(b) != b.Merge(a) || a.Merge(b).Merge(c) != a.Merge(b.Merge(c)) ||
			a.Merge(b).Merge(b) != a.Merge(b) ||
			a.Merge(a) != a {
			t.Fatalf("%v %v %v", a, b, c)
		}
	})
}
