package chat

import (
	"errors"
	"slices"
	"strings"
	"testing"

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
