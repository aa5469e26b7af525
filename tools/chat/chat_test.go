package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func (s *screen) live() { s.events(client.Connected{Edge: "e"}, client.Synced{}) }

func TestScreens(t *testing.T) {
	for _, size := range []struct{ w, h int }{{80, 24}, {120, 34}, {50, 16}} {
		name := func(n string) string { return fmt.Sprintf("%s-%dx%d", n, size.w, size.h) }
		t.Run(name("chat"), func(t *testing.T) {
			s := newScreen(t, village(), size.w, size.h)
			s.golden(name("offline"))
			s.live()
			s.golden(name("list"))
			s.keys("enter")
			s.golden(name("direct"))
			s.keys("Ten o'clock.", "alt+enter", "Platform two 🚉")
			s.golden(name("writing"))
			s.keys("enter", "up")
			s.golden(name("choosing"))
			s.keys("enter", "alt+down")
			s.golden(name("group"))
			s.keys("ctrl+o")
			s.golden(name("info"))
			s.keys("esc", "ctrl+g")
			s.golden(name("form"))
			s.keys("esc", "f1")
			s.golden(name("help"))
		})
	}
}

// A former member is told no title that came after his time: the one he knows stays.
func TestFormerMembersTitle(t *testing.T) {
	c := &conversation{}
	c.summary(wirev1.ThreadSummary_builder{Title: "walk", MemberCount: 3, Member: true, LastPosition: 4}.Build())
	c.summary(wirev1.ThreadSummary_builder{LastPosition: 5}.Build())
	if c.title != "walk" || c.count != 0 || c.member {
		t.Errorf("got title %q, count %d and member %v, want the title alone", c.title, c.count, c.member)
	}
}

func TestRegistration(t *testing.T) {
	f := newFake()
	f.me = id.UserID{}
	s := newScreen(t, f, 80, 24)
	s.m.cfg.Pin = func(context.Context, string, time.Time) (string, error) { return "123456", nil }
	s.golden("register-phone")
	f.err = &wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED, RetryAfter: 47 * time.Second}
	s.keys("+49 15O 00000001", "enter") // the letter O
	s.golden("register-mistyped")
	s.send(tea.KeyPressMsg{Code: 'u', Mod: tea.ModCtrl})
	s.keys("0049 151 00000001", "enter")
	s.golden("register-confirm")
	s.keys("enter")
	s.golden("register-limited")
	f.err = nil
	s.keys("enter")
	s.golden("register-pin")
	f.err = wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "")
	s.keys("000000", "enter")
	s.golden("register-wrong")
	f.err = nil
	for range 6 {
		s.send(tea.KeyPressMsg{Code: tea.KeyBackspace})
	}
	s.keys("enter") // nothing typed: read from the SMS file
	s.golden("register-name")
	s.send(tea.KeyPressMsg{Code: 'u', Mod: tea.ModCtrl})
	s.keys("Anna", "enter")
	s.live()
	if s.m.form != nil || s.m.enrol {
		t.Error("the registration did not end")
	}
	want := []string{
		"pin +4915100000001",
		"pin +4915100000001",
		"register +4915100000001 000000",
		"register +4915100000001 123456",
		"name Anna",
	}
	calls := slices.DeleteFunc(f.calls, func(c string) bool { return c == "threads" })
	if diff := cmp.Diff(calls, want); diff != "" {
		t.Errorf("calls (-got +want):\n%s", diff)
	}
}

// TestMarks follows a message from the outbox to read.
func TestMarks(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("enter", "ping", "enter")
	with := id.DirectThread(ann, bob)
	x := s.f.sent[0].ID
	line := func() string {
		for l := range strings.Lines(s.text()) {
			if _, right, ok := strings.Cut(l, "│"); ok && strings.Contains(right, "ping") {
				return strings.Join(strings.Fields(strings.Trim(right, " ▐\n")), " ")
			}
		}
		return ""
	}
	var got []string
	got = append(got, line())
	s.events(client.Sent{ID: x, Ack: client.Ack{Thread: with, Position: 50, Time: noon}})
	got = append(got, line())
	back := message(with, 5, ann, noon, "ping")
	back.ID = x
	s.events(back)
	got = append(got, line())
	s.events(receipt(with, bob, 5, 4))
	got = append(got, line())
	it := s.m.open.find(event.MessageRef{Author: ann, ID: x})
	if st := s.m.open.status(it, ann); st != statusDelivered {
		t.Errorf("status %d, want delivered", st)
	}
	s.events(receipt(with, bob, 5, 5))
	if st := s.m.open.status(it, ann); st != statusRead {
		t.Errorf("status %d, want read", st)
	}
	if diff := cmp.Diff(got, []string{"ping 12:00 ◷", "ping 12:00 ✓", "ping 12:00 ✓", "ping 12:00 ✓✓"}); diff != "" {
		t.Errorf("marks (-got +want):\n%s", diff)
	}
	if n := strings.Count(s.text(), "ping  12:00"); n != 1 {
		t.Errorf("the message stands %d times in the conversation", n)
	}
	s.keys("no", "enter")
	s.events(client.Failed{Thread: with, ID: s.f.sent[1].ID, Err: wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "")})
	if !strings.Contains(s.text(), "✗") || !strings.Contains(s.text(), "not sent: too long") {
		t.Errorf("a refused message does not say so:\n%s", s.text())
	}
}

// TestParkedConversation: whoever writes into a conversation that stands still is told why once, and when it goes on.
func TestParkedConversation(t *testing.T) {
	s := newScreen(t, village(), 120, 24)
	s.live()
	s.keys("enter", "ping", "enter")
	with := s.m.open.id
	delayed := client.Delayed{
		Thread: with, ID: s.f.sent[0].ID,
		Err: wire.Errorf(wirev1.Code_CODE_THREAD_PARKED, "the thread is in quarantine"),
	}
	s.events(delayed)
	if !strings.Contains(s.text(), "waits: this conversation is stopped until the server's operators have mended it") {
		t.Errorf("it is not said:\n%s", s.text())
	}
	s.m.say(false, "something else")
	s.events(delayed)
	if !strings.Contains(s.text(), "something else") {
		t.Errorf("it is said again:\n%s", s.text())
	}
	s.events(client.ThreadLate{Thread: with})
	if !strings.Contains(s.text(), "goes out now") {
		t.Errorf("that it goes on is not said:\n%s", s.text())
	}
}

// TestSlowestMember: in a group the marks are those of the slowest member who was one when it was sent.
func TestSlowestMember(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("down", "enter")
	c := s.m.open
	it := c.find(event.MessageRef{ID: msgID(1)})
	for _, step := range []struct {
		e    client.Event
		want status
	}{
		{receipt(group, bob, 1, 0), statusDelivered},
		{receipt(group, bob, 1, 1), statusRead}, // Carl came later and does not count
	} {
		s.events(step.e)
		if got := c.status(it, ann); got != step.want {
			t.Errorf("status %d, want %d", got, step.want)
		}
	}
}

// TestReads: the watermark follows what is on the screen.
func TestReads(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	if len(s.f.read) != 0 {
		t.Fatalf("read %v before anything was opened", s.f.read)
	}
	s.keys("enter")
	if n := len(s.f.read); n == 0 || s.f.read[n-1].Ordinal != 4 {
		t.Errorf("read %v, want up to ordinal 4", s.f.read)
	}
	if n := s.m.open.unread; n != 0 {
		t.Errorf("%d unread in the open conversation", n)
	}
	with := s.m.open.id
	s.events(message(with, 5, bob, noon, "seen"))
	if last := s.f.read[len(s.f.read)-1]; last.Ordinal != 5 {
		t.Errorf("a message that came onto the screen is not read: %v", last)
	}
	for i := range 60 {
		s.events(message(with, 6+i, bob, noon, fmt.Sprint("line ", i)))
	}
	s.keys("pgup", "pgup")
	before := len(s.f.read)
	top := s.text()
	s.events(message(with, 66, bob, noon, "below"))
	if len(s.f.read) != before {
		t.Error("a message below the screen was marked as read")
	}
	body := func(x string) string { return right(strings.Join(strings.Split(x, "\n")[2:18], "\n")) }
	if !strings.Contains(s.text(), "1 unread below") || body(top) != body(s.text()) {
		t.Errorf("the screen moved under the reader:\n%s\n%s", top, s.text())
	}
	s.keys("ctrl+end")
	if last := s.f.read[len(s.f.read)-1]; last.Ordinal != 66 {
		t.Errorf("read up to %d after scrolling down", last.Ordinal)
	}
	s.fits()
}

// TestUnreadIsOfOthers: what one has sent is not unread, and reads nothing.
func TestUnreadIsOfOthers(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	c := s.m.convs[id.DirectThread(ann, bob)]
	for _, step := range []struct {
		what string
		e    client.Event
		want int64
	}{
		{"as listed", nil, 2},
		{"one of ours, from another device or out of the outbox", message(c.id, 5, ann, noon, "on my way"), 2},
		{"his", message(c.id, 6, bob, noon, "good"), 3},
		{"his again", message(c.id, 6, bob, noon, "good"), 3},
		{"another of ours", message(c.id, 7, ann, noon, "soon"), 3},
		{"read elsewhere up to his second", receipt(c.id, ann, 7, 3), 2},
		{"up to the last of those that were there", receipt(c.id, ann, 7, 4), 1},
		{"listed before that was known", client.ThreadChanged{Summary: direct(bob, 7, "soon", 5, noon)}, 1},
		{"all but ours", receipt(c.id, ann, 7, 6), 0},
	} {
		if step.e != nil {
			s.events(step.e)
		}
		if c.unread != step.want {
			t.Errorf("%s: %d unread, want %d", step.what, c.unread, step.want)
		}
	}
	if len(s.f.read) != 0 {
		t.Errorf("marked as read: %v", s.f.read)
	}
}

// right cuts the list off.
func right(x string) string {
	var out []string
	for l := range strings.Lines(x) {
		_, r, _ := strings.Cut(l, "│")
		out = append(out, r)
	}
	return strings.Join(out, "")
}

// TestHistoryPages scrolls to the first message through several pages, and every message is there once.
func TestHistoryPages(t *testing.T) {
	f := village()
	with := id.DirectThread(ann, bob)
	f.history[with] = nil
	for i := 1; i <= 200; i++ {
		f.history[with] = append(f.history[with],
			message(with, i, bob, noon.Add(time.Duration(i-300)*time.Minute), fmt.Sprintf("number %03d", i)))
	}
	f.threads[0] = direct(bob, 200, "number 200", 0, noon)
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("enter")
	for range 60 {
		s.keys("pgup")
		s.fits()
	}
	if !strings.Contains(s.text(), "number 001") || !strings.Contains(s.text(), "this is where it begins") {
		t.Errorf("the first message is not reached:\n%s", s.text())
	}
	if n := len(s.m.open.items); n != 200 {
		t.Errorf("%d messages loaded, want 200", n)
	}
	for i, it := range s.m.open.items {
		if it.place.Ordinal != int64(i+1) {
			t.Fatalf("message %d has ordinal %d", i, it.place.Ordinal)
		}
	}
}

// TestGap: what is missing between a page and what came live is asked for.
func TestGap(t *testing.T) {
	f := village()
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("enter")
	with := s.m.open.id
	f.history[with] = append(f.history[with], message(with, 5, bob, noon, "five"), message(with, 6, bob, noon, "six"))
	s.events(message(with, 7, bob, noon, "seven"))
	if !strings.Contains(s.text(), "five") || !strings.Contains(s.text(), "six") {
		t.Errorf("the gap was not filled:\n%s", s.text())
	}
}

func TestGroups(t *testing.T) {
	f := village()
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("ctrl+g", "Choir", "enter", "+4915100000003, bob", "enter")
	s.keys("ctrl+o", "a", "+4915199999999", "enter")
	if !strings.Contains(s.text(), "+4915199999999 is not registered here") {
		t.Errorf("an unknown number is not named:\n%s", s.text())
	}
	s.keys("esc", "down", "d", "enter", "r", " 2", "enter", "l", "enter")
	calls := slices.DeleteFunc(f.calls, func(c string) bool {
		return strings.HasPrefix(c, "history") || c == "threads"
	})
	want := []string{"group Choir 2", "remove Bob", "rename Sunday walk 散歩 2", "leave"}
	if diff := cmp.Diff(calls, want); diff != "" {
		t.Errorf("calls (-got +want):\n%s", diff)
	}
}

func TestFilter(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("ctrl+f", "walk")
	if strings.Contains(s.text(), "Bob") || !strings.Contains(s.text(), "Sunday walk") {
		t.Errorf("filter:\n%s", s.text())
	}
	s.keys("enter")
	if s.m.open == nil || s.m.open.id != group {
		t.Error("enter in the filter did not open what it found")
	}
}

// TestHostileText: nothing that others wrote reaches the terminal as a control sequence, and nothing breaks the layout.
func TestHostileText(t *testing.T) {
	evil := "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\u202etxet\u2066x\u200b\x00\x08\x7f\rback\u2028line zal" +
		strings.Repeat("\u0301", 50) + " \xff\xfe end"
	f := village()
	with := id.DirectThread(ann, bob)
	f.names[bob] = "Bob" + evil
	f.threads[0] = direct(bob, 5, evil, 1, noon)
	wide := strings.Repeat("👩‍👩‍👧‍👦漢字🏴‍☠️", 40)
	f.history[with] = append(f.history[with], message(with, 5, bob, noon, evil+"\n"+wide))
	for _, w := range []int{20, 50, 80, 121} {
		s := newScreen(t, f, w, 24)
		s.live()
		s.keys("enter", "up", "enter", "ctrl+o")
		s.fits()
		s.keys("esc", "pgup")
		s.fits()
		s.events(note(with, 60, 5, noon, eventv1.Event_builder{
			UserId:        bob[:],
			ThreadRenamed: eventv1.ThreadRenamed_builder{Title: evil}.Build(),
		}.Build()))
		s.send(tea.PasteMsg{Content: evil})
		s.fits()
		raw := s.m.View().Content
		for _, bad := range []string{
			"\x1b]", "\x1b[2J", "\x07", "\x00", "\x08", "\x7f", "\r", "\u202e", "\u2066", "\u009b",
		} {
			if strings.Contains(raw, bad) {
				t.Errorf("width %d: the screen holds %q", w, bad)
			}
		}
		// Only colours and other renditions remain.
		for rest := raw; ; {
			_, after, ok := strings.Cut(rest, "\x1b")
			if !ok {
				break
			}
			end := strings.IndexFunc(after, func(r rune) bool { return r >= '@' && r != '[' })
			if !strings.HasPrefix(after, "[") || end < 0 || after[end] != 'm' {
				t.Fatalf("width %d: the screen holds the sequence ESC %q", w, clip(after, 20))
			}
			rest = after
		}
		s.keys("enter")
		for _, o := range s.f.sent {
			if strings.ContainsAny(string(o.Data), "\x1b\x07\x00\u009b") {
				t.Errorf("control characters were sent: %q", o.Data)
			}
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31m\u009b\u202e\r\n\t\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		for _, r := range got {
			if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q leaves %U", s, r)
			}
		}
		if again := Clean(got); again != got {
			t.Errorf("cleaning twice: %q, once: %q", again, got)
		}
		for _, w := range []int{2, 7, 40} {
			r := ruler{method: ansi.WcWidth}
			if n := r.width(r.fit(CleanLine(s), w)); n != w {
				t.Errorf("%q fitted into %d is %d wide", s, w, n)
			}
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{
			&wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED, RetryAfter: 90 * time.Second},
			"too many attempts; try again in 1m30s, at 12:01:30",
		},
		{
			fmt.Errorf("register: %w", wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "x")),
			"that PIN is wrong, has expired or was used already; after five wrong ones ask for a new PIN",
		},
		{client.ErrLocked, "this profile is open in another terminal; choose another one with --as"},
		{
			&client.Fault{Addr: "edge:7443", What: client.ErrClock, Detail: "it is good until then"},
			"the server's certificate is not valid by this machine's clock: set the clock, or tell the operator that " +
				"the certificate has run out (edge:7443: it is good until then)",
		},
		{errors.New("plain\x1b"), "plain␛"},
		{nil, ""},
	} {
		if got := Words(c.err, noon); got != c.want {
			t.Errorf("Words(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

func TestScript(t *testing.T) {
	ctx := t.Context()
	f := village()
	with := id.DirectThread(ann, bob)
	for what, want := range map[string]id.ThreadID{
		"+4915100000002": with, "bob": with, "Sunday walk 散歩": group, group.String(): group,
	} {
		if to, err := Find(ctx, f, what); err != nil || to.Thread != want {
			t.Errorf("Find(%q) = %v, %v; want %v", what, to.Thread, err, want)
		}
	}
	if _, err := Find(ctx, f, "nobody"); err == nil {
		t.Error("Find found nobody")
	}
	back := message(with, 5, ann, noon, "hi")
	back.ID = msgID(1000)
	f.events = []client.Event{
		client.Connected{},
		client.Synced{},
		client.Sent{ID: msgID(1000), Ack: client.Ack{Position: 50}},
		back,
		message(with, 6, bob, noon, "next"),
	}
	_, ack, err := Deliver(ctx, f, client.To{Thread: with, Peer: bob}, "hi")
	if err != nil || ack.Position != 50 {
		t.Errorf("Deliver: position %d, %v", ack.Position, err)
	}
	var got []string
	if err := Tail(ctx, f, TailConfig{Limit: 1}, func(l Line) error {
		got = append(got, l.Kind+" "+l.Name+": "+l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, []string{"message Bob: next"}); diff != "" {
		t.Errorf("tail (-got +want):\n%s", diff)
	}
	if len(f.events) != 0 {
		t.Errorf("%d events are not applied", len(f.events))
	}
}

// A wrong PIN is asked for again; one that is given, or that cannot be another, is tried once; a profile that is
// registered has no SMS sent.
func TestSignUp(t *testing.T) {
	const number = "+4915123456789"
	wrong := &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}
	for name, c := range map[string]struct {
		given   string
		pins    []string
		refuse  func(pin string) error
		me      id.UserID
		calls   []string
		failure error
	}{
		"right at once": {pins: []string{"111111"}, calls: []string{"pin " + number, "register " + number + " 111111"}},
		"typed wrongly": {
			pins: []string{"1", "2", "333333"}, refuse: func(pin string) error { return only(len(pin) == 1, wrong) },
			calls: []string{
				"pin " + number, "register " + number + " 1", "register " + number + " 2",
				"register " + number + " 333333",
			},
		},
		"there is no other": {
			pins: []string{"1", "1"}, refuse: func(string) error { return wrong },
			calls: []string{"pin " + number, "register " + number + " 1"}, failure: wrong,
		},
		"five were wrong": {
			pins: []string{"1", "2", "3", "4", "5", "6"}, refuse: func(string) error { return wrong },
			calls: []string{
				"pin " + number, "register " + number + " 1", "register " + number + " 2", "register " + number + " 3",
				"register " + number + " 4", "register " + number + " 5",
			},
			failure: wrong,
		},
		"another failure": {
			pins:    []string{"1", "2"},
			refuse:  func(string) error { return &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE} },
			calls:   []string{"pin " + number, "register " + number + " 1"},
			failure: &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE},
		},
		"given": {
			given: "7", refuse: func(string) error { return wrong },
			calls: []string{"register " + number + " 7"}, failure: wrong,
		},
		"registered": {me: ann, failure: client.ErrRegistered},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.me, f.refuse = c.me, c.refuse
			pins := c.pins
			ask := func(context.Context, string, time.Time) (string, error) {
				pin := pins[0]
				pins = pins[1:]
				return pin, nil
			}
			_, err := SignUp(t.Context(), f, client.Registration{Phone: number, Pin: c.given}, ask)
			if !errors.Is(err, c.failure) {
				t.Errorf("error %v, want %v", err, c.failure)
			}
			if diff := cmp.Diff(c.calls, f.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func only(when bool, err error) error {
	if when {
		return err
	}
	return nil
}

// TestAnswers: what a message answers is found and shown by author and id, since two members' messages may have one id.
func TestAnswers(t *testing.T) {
	s := newScreen(t, village(), 120, 34)
	s.live()
	s.keys("enter")
	with := id.DirectThread(ann, bob)
	mine, theirs := message(with, 5, ann, noon, "hers"), message(with, 6, bob, noon, "his")
	theirs.ID = mine.ID
	answer := func(n int, to event.MessageRef) client.Message {
		m := message(with, n, bob, noon, fmt.Sprintf("answer %d", n))
		m.Reply = to
		return m
	}
	elsewhere := msgID(999)
	s.events(
		mine, theirs, answer(7, event.MessageRef{Author: ann, ID: mine.ID}),
		answer(8, event.MessageRef{Author: bob, ID: mine.ID}), answer(9, event.MessageRef{Author: carl, ID: elsewhere}),
		answer(10, event.MessageRef{ID: elsewhere}),
	)
	for _, want := range []string{
		"↪ You: hers", "↪ Bob: his", "↪ Carl 王: an earlier message", "↪ an earlier message",
	} {
		if !strings.Contains(s.text(), want) {
			t.Errorf("the screen does not show %q:\n%s", want, s.text())
		}
	}

	f := village()
	f.history[with] = []client.Event{mine, answer(7, event.MessageRef{}), answer(8, event.MessageRef{})}
	for _, c := range []struct {
		name, what, fault string
		also              client.Event
		want              event.MessageRef
	}{
		{"by id", msgID(7).String(), "", nil, event.MessageRef{Author: bob, ID: msgID(7)}},
		{
			"by author and id", carl.String() + "/" + elsewhere.String(), "", nil,
			event.MessageRef{Author: carl, ID: elsewhere},
		},
		{"two of that id", mine.ID.String(), "two members", theirs, event.MessageRef{}},
		{"none of that id", elsewhere.String(), "have no message", nil, event.MessageRef{}},
		{"no id", "7", "7", nil, event.MessageRef{}},
		{"no author", "x/" + elsewhere.String(), "x", nil, event.MessageRef{}},
	} {
		had := f.history[with]
		if c.also != nil {
			f.history[with] = append(slices.Clone(had), c.also)
		}
		got, err := Answered(t.Context(), f, with, c.what)
		f.history[with] = had
		switch {
		case c.fault == "" && (err != nil || got != c.want):
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, %v, want an error with %q", c.name, got, err, c.fault)
		}
	}
}
