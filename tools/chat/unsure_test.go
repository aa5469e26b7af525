package chat

import (
	"errors"
	"strings"
	"testing"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
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
