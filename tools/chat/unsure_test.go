package chat

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// What this version cannot read is shown at its place; what it knows and does not show is not.
func TestUnknownIsShown(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("enter")
	with := id.DirectThread(ann, bob)
	const words = "something that this version does not know"
	s.events(note(with, 41, 4, noon, eventv1.Event_builder{
		UserId: bob[:], ReactionSet: &eventv1.ReactionSet{},
	}.Build()))
	if strings.Contains(s.text(), words) {
		t.Errorf("a reaction is shown as unknown:\n%s", s.text())
	}
	torn := note(with, 42, 4, noon, &eventv1.Event{})
	torn.Err = errors.New("torn")
	nameless := note(with, 43, 5, noon, eventv1.Event_builder{MessageSent: &eventv1.MessageSent{}}.Build())
	nameless.Err = errors.New("no id")
	s.events(torn, nameless)
	if n := strings.Count(s.text(), words); n != 2 {
		t.Errorf("%d of 2 events are shown as unknown:\n%s", n, s.text())
	}
	s.events(client.Unreadable{Frame: []byte{1}, Err: errors.New("torn")})
	if !strings.Contains(s.text(), "cannot read") {
		t.Errorf("an unreadable frame is not told of:\n%s", s.text())
	}
}

// A message that was refused or rejected keeps its text, over a restart too: it is shown as not sent, can be written
// again, and forgotten.
func TestUnsentIsShown(t *testing.T) {
	with := id.DirectThread(ann, bob)
	old := client.Unsent{
		Outgoing: client.Outgoing{
			Thread: with, ID: msgID(900), Data: content(t, "from yesterday"), ClientTimeMS: noon.UnixMilli(),
		},
		Code: wirev1.Code_CODE_NOT_A_MEMBER,
	}
	f := village()
	s := newScreenWith(t, f, Config{Unsent: []client.Unsent{old}}, 100, 34)
	s.live()
	if !strings.Contains(s.text(), "Not sent: from yesterday") {
		t.Errorf("the list does not say that a message was not sent:\n%s", s.text())
	}
	s.keys("enter", "rejected", "enter")
	m := f.sent[0]
	s.events(client.Sent{ID: m.ID, Ack: client.Ack{Thread: with, Position: 50, Time: noon}})
	s.events(client.Rejected{Thread: with, ID: m.ID, Position: 50, Code: wirev1.Code_CODE_NOT_A_MEMBER})
	elsewhere := client.Outgoing{Thread: group, ID: msgID(901), Data: content(t, "of an earlier run")}
	s.events(client.Rejected{
		Thread: group, ID: elsewhere.ID, Code: wirev1.Code_CODE_NOT_A_MEMBER, Message: elsewhere,
	})
	for _, want := range []string{"from yesterday", "not sent: you were not a member", "rejected", "✗"} {
		if !strings.Contains(right(s.text()), want) {
			t.Errorf("the screen does not show %q:\n%s", want, s.text())
		}
	}
	s.keys("up", "enter") // write the last one again: the one of yesterday, which stands below what the log has
	if got := s.m.input.Value(); got != "from yesterday" {
		t.Errorf("written again: %q", got)
	}
	s.send(tea.KeyPressMsg{Code: 'u', Mod: tea.ModCtrl})
	s.keys("up", "d")
	if text := right(s.text()); strings.Contains(text, "rejected") || strings.Contains(text, "from yesterday") {
		t.Errorf("what was forgotten is still there:\n%s", s.text())
	}
	s.keys("alt+down")
	if !strings.Contains(right(s.text()), "of an earlier run") {
		t.Errorf("a message of an earlier run is not shown:\n%s", s.text())
	}
	calls := slices.DeleteFunc(f.calls, func(c string) bool { return !strings.HasPrefix(c, "forget") })
	want := []string{"forget " + old.ID.String(), "forget " + m.ID.String()}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func content(t *testing.T, text string) []byte {
	t.Helper()
	data, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Most terminals paste lines that end in CR: they are lines, here and at whoever gets them.
func TestPastedLines(t *testing.T) {
	for _, c := range []struct{ pasted, want string }{
		{"one\rtwo\rthree", "one\ntwo\nthree"},
		{"one\r\ntwo\r\n", "one\ntwo"},
		{"one\ntwo", "one\ntwo"},
		{"one\r\r\ntwo", "one\n\ntwo"},
	} {
		s := newScreen(t, village(), 80, 24)
		s.live()
		s.keys("enter")
		s.send(tea.PasteMsg{Content: c.pasted})
		if strings.ContainsRune(s.text(), '␍') {
			t.Errorf("%q shows the line's end:\n%s", c.pasted, s.text())
		}
		s.keys("enter")
		if got := string(s.f.sent[0].Data); got != c.want {
			t.Errorf("%q was sent as %q, want %q", c.pasted, got, c.want)
		}
	}
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("enter")
	s.events(message(s.m.open.id, 5, bob, noon, "first\rsecond"))
	if text := s.text(); strings.ContainsAny(text, "␍\r") || strings.Contains(text, "firstsecond") {
		t.Errorf("what somebody else pasted:\n%s", text)
	}
}

// The head of the list counts what is unread in all chats, not in those of the first page; while pages are missing it
// says so. A page that does not come is asked for again, after a while.
func TestHeadCountsAll(t *testing.T) {
	f := village()
	for n := range 3 {
		f.further = append(f.further, []*wirev1.ThreadSummary{direct(userN(byte(100+n)), 9, "hi", 3, noon)})
	}
	f.broken[1] = 1
	now := noon
	s := newScreenWith(t, f, Config{now: func() time.Time { return now }}, 80, 24)
	s.live()
	head := func() string { return strings.Join(strings.Fields(strings.Split(s.text(), "│")[0]), " ") }
	if got := head(); got != "Chats 5+" {
		t.Errorf("with a page missing the head says %q", got)
	}
	calls := len(f.calls)
	s.again()
	if len(f.calls) != calls {
		t.Errorf("asked again at once: %v", f.calls[calls:])
	}
	now = now.Add(listWait)
	s.again()
	if got := head(); got != "Chats 11" {
		t.Errorf("the head says %q, want 11 unread", got)
	}
}

// Where this device may not be shown the past, the screen says that, and neither that it is sealed nor that there is
// none.
func TestHiddenPast(t *testing.T) {
	f := village()
	with := id.DirectThread(ann, bob)
	f.threads[0].SetPreview("")
	f.threads[0].SetPastElsewhere(true)
	f.history[with] = nil
	f.history[group] = f.history[group][3:] // from its second message on
	s := newScreen(t, f, 100, 24)
	s.live()
	s.golden("hidden-list")
	s.keys("enter")
	s.golden("hidden-direct")
	s.keys("alt+down")
	if text := right(s.text()); !strings.Contains(text, "what came before is not shown to you") {
		t.Errorf("a member who came later:\n%s", text)
	}
	s.keys("alt+up")
	s.events(message(with, 5, bob, noon, "new"))
	if text := s.text(); !strings.Contains(text, "what came before is on your former device") ||
		strings.Count(text, "former device") > 1 {
		t.Errorf("after the first message:\n%s", text)
	}

	fresh := village()
	fresh.threads[0] = direct(bob, 0, "", 0, time.UnixMilli(0))
	fresh.history[with] = nil
	s = newScreen(t, fresh, 100, 24)
	s.live()
	s.keys("ctrl+f", "bob", "enter")
	if text := s.text(); !strings.Contains(text, "Say hello.") || !strings.Contains(text, "no messages yet") {
		t.Errorf("a chat without a past:\n%s", text)
	}
}

// A stranger who says his name after he has written is called by it soon.
func TestStrangersName(t *testing.T) {
	f := village()
	dave := userN(44)
	with := id.DirectThread(ann, dave)
	now := noon
	s := newScreenWith(t, f, Config{now: func() time.Time { return now }}, 80, 24)
	s.live()
	s.events(message(with, 1, dave, noon, "guess who"))
	if strings.Contains(s.text(), "Dave") {
		t.Fatal("he has not said his name yet")
	}
	f.names[dave] = "Dave"
	later := func(d time.Duration) { now = now.Add(d); s.again() }
	later(nameWait)
	if !strings.Contains(s.text(), "Dave") {
		t.Errorf("the name is known and not shown:\n%s", s.text())
	}
	erin := userN(45)
	s.events(message(id.DirectThread(ann, erin), 1, erin, noon, "me too"))
	for range 100 {
		later(nameWait)
	}
	f.names[erin] = "Erin"
	s.events(message(id.DirectThread(ann, erin), 2, erin, noon, "I am Erin"))
	later(nameWait)
	if !strings.Contains(s.text(), "Erin") {
		t.Errorf("who writes is not asked for his name:\n%s", s.text())
	}
}

// again has the screen see to what is due, as its clock does each second.
func (s *screen) again() { s.send(tea.WindowSizeMsg{Width: s.m.width, Height: s.m.height}) }
