package thread_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
)

// idAt returns a message id that was made at a time, Unix milliseconds.
func idAt(ms int64) id.MessageID {
	m := id.NewMessage()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms)<<16)
	copy(m[:6], b[:6])
	return m
}

// A stamp that is ahead makes a thread forget nothing that it has seen. What rules before 3 made of it stays.
func TestAStampThatIsAhead(t *testing.T) {
	for _, x := range []struct {
		rules uint32
		ahead time.Duration
		later thread.Outcome // of what is sent again
	}{
		{3, 2 * time.Second, thread.Duplicate},
		{3, 25 * time.Hour, thread.Duplicate},
		{3, 40 * 24 * time.Hour, thread.Duplicate},
		{2, 2 * time.Second, thread.Duplicate},
		{2, 25 * time.Hour, thread.Accepted},
		{2, 40 * 24 * time.Hour, thread.Accepted},
	} {
		t.Run(fmt.Sprintf("rules %d, %v", x.rules, x.ahead), func(t *testing.T) {
			g := newGroup(t)
			a, b := user(1), user(2)
			g.must("", g.create(a, b))
			send := func(by id.UserID, m id.MessageID, ahead time.Duration) thread.Outcome {
				g.at++
				e := event.Of(eventv1.Event_builder{
					Rules: x.rules, UserId: by[:],
					MessageSent: eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text("hi")}.Build(),
				}.Build())
				return g.s.Apply(e, g.at, g.ms+ahead.Milliseconds()).Outcome
			}
			want := func(what string, got, want thread.Outcome) {
				t.Helper()
				if got != want {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}
			first, wrong := idAt(g.ms), idAt(g.ms)
			want("a message", send(a, first, 0), thread.Accepted)
			want("one with the stamp", send(b, wrong, x.ahead), thread.Accepted)
			want("the message again", send(a, first, 0), x.later)
			want("the one with the stamp again", send(b, wrong, 0), thread.Duplicate)
			if got, most := g.s.LastTimeMS, g.ms+thread.MaxAhead.Milliseconds(); x.rules == 3 && got > most {
				t.Errorf("the thread's clock: got %d, want at most %d", got, most)
			}
			if x.rules < 3 {
				return
			}
			g.ms += 25 * time.Hour.Milliseconds() // an idle day, and a message whose id says so too
			want("after a day", send(a, idAt(g.ms), 0), thread.Accepted)
			if g.s.LastTimeMS != g.ms {
				t.Errorf("the clock of an idle thread: got %d, want %d", g.s.LastTimeMS, g.ms)
			}
			want("the message after the window", send(a, first, 0), thread.Accepted)
		})
	}
}
