package views_test

import (
	"fmt"
	"testing"

	"heliograph/infra/views"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// TestUnread: own messages are never unread, nor is what the device is not shown; what was trimmed from the tail counts
// as far as it may be for the device.
func TestUnread(t *testing.T) {
	s := newStore(t)
	ann, bob := userN(1), userN(2)
	// A thread as a word: a letter is a message, 'a' is Ann's, 'b' Bob's, '-' another event; position n is at time n,
	// and a '|' is where the tail begins.
	write := func(events string) id.ThreadID {
		g := id.NewGroup()
		position, ordinal := int64(0), int64(0)
		for _, c := range events {
			kind, sender := eventv1.Event_MessageSent_case, bob
			switch c {
			case '|':
				s.put("trimmed", g, position, at(position))
				s.exec("DELETE FROM messages WHERE thread_id = $1", uuid(g))
				continue
			case 'a':
				sender = ann
			case '-':
				kind = eventv1.Event_ThreadCreated_case
			}
			if position++; kind == eventv1.Event_MessageSent_case {
				ordinal++
			}
			s.put("messages", g, position, ordinal, int16(kind), sender, nil, at(position), int32(0), []byte{})
		}
		return g
	}
	member := func(from topic.Position, base int64) thread.Member {
		return thread.Member{Spans: []thread.Span{{From: from}}, BaseOrdinal: base}
	}
	read := func(at topic.Position, n int64) thread.Watermark {
		return thread.Watermark{ReadPosition: at, ReadOrdinal: n}
	}
	nowhere := member(1, 0)
	former := thread.Member{Spans: []thread.Span{{From: 1, To: 4}}, EndOrdinal: 3}
	for _, x := range []struct {
		events string
		last   int64
		m      thread.Member
		w      thread.Watermark
		since  int64
		want   int64
		past   bool
	}{
		{"-", 0, member(1, 0), read(0, 0), 0, 0, false},
		{"-aaa", 3, member(1, 0), read(0, 0), 0, 0, false},
		{"-abab", 4, member(1, 0), read(0, 0), 0, 2, false},
		{"-abab", 3, member(1, 0), read(0, 0), 0, 1, false}, // as of a moment before the last
		{"-bbba", 4, member(1, 0), read(2, 1), 0, 2, false},
		{"-bbba", 4, member(1, 0), read(4, 3), 0, 0, false},
		{"-bbba", 4, member(1, 0), read(5, 4), 0, 0, false},
		{"bb-ab", 4, member(3, 2), read(0, 0), 0, 1, false},         // came in with the third
		{"-bab-b", 4, former, read(0, 0), 0, 2, false},              // went with the fourth
		{"-bbbbb", 5, member(1, 0), read(0, 0), 4, 3, true},         // registered at the fourth
		{"-bbbbb", 5, member(1, 0), read(0, 0), 9, 0, true},         // and after all
		{"-bbabb", 5, member(1, 0), read(6, 5), 4, 0, true},         // who has read it on the former phone
		{"-bbb|bab", 6, member(1, 0), read(0, 0), 0, 5, false},      // may be the device's, whoever wrote them
		{"-bbb|bab", 6, member(1, 0), read(0, 0), 5, 2, true},       // not the device's
		{"-bbb|bab", 6, member(1, 0), read(0, 0), 6, 1, true},       // nor is one that is there
		{"-bbb|", 3, member(1, 0), read(0, 0), 5, 0, true},          // all was trimmed, and none of it the device's
		{"-bbb|bb-a", 6, member(7, 5), read(0, 0), 5, 0, false},     // its user came in later
		{"-bbb|bbab", 7, member(1, 0), read(3, 2), 3, 1 + 3, false}, // nobody knows of the first
	} {
		t.Run(fmt.Sprintf("%s read %d since %d", x.events, x.w.ReadOrdinal, x.since), func(t *testing.T) {
			g := write(x.events)
			got := must[[]views.Counted](t)(s.Unread(t.Context(), []views.Unread{
				views.UnreadOf(id.NewGroup(), ann, &nowhere, 0, x.w, at(0), 0),
				views.UnreadOf(g, ann, &x.m, x.last, x.w, at(x.since), 0),
			}))
			same(t, "unread", got[1], views.Counted{Messages: x.want, Past: x.past})
			got[1] = must[[]views.Counted](t)(s.Unread(t.Context(), []views.Unread{
				views.UnreadOf(g, ann, &x.m, x.last, x.w, at(0), topic.Position(x.since)),
			}))[0]
			// a position says of the first event, too, which may have been trimmed, that it is hidden
			past := x.m.Spans[0].From < topic.Position(x.since)
			same(t, "unread by positions", got[1], views.Counted{Messages: x.want, Past: past})
			same(t, "of nothing", got[0], views.Counted{})
		})
	}
}

// TestUnreadOfMany: however many there are, no more than the newest are looked at.
func TestUnreadOfMany(t *testing.T) {
	s := newStore(t)
	ann, bob, g := userN(1), userN(2), id.NewGroup()
	s.exec(`
		INSERT INTO messages (thread_id, position, ordinal, kind, sender_id, log_time, slot, event)
		SELECT $1, n, n, $5, CASE WHEN n % 10 = 0 THEN $2::uuid ELSE $3::uuid END, $4, 0, ''
		  FROM generate_series(1, 1500) n`, uuid(g), uuid(ann), uuid(bob), at(5), int16(eventv1.Event_MessageSent_case))
	m := thread.Member{Spans: []thread.Span{{From: 1}}}
	got := must[[]views.Counted](t)(s.Unread(t.Context(), []views.Unread{
		views.UnreadOf(g, ann, &m, 1500, thread.Watermark{}, at(0), 0),
		views.UnreadOf(g, ann, &m, 1500, thread.Watermark{ReadPosition: 500, ReadOrdinal: 500}, at(0), 0),
		views.UnreadOf(g, ann, &m, 1500, thread.Watermark{}, at(6), 0),
	}))
	same(t, "unread", got, []views.Counted{{Messages: 500 + 900}, {Messages: 900}, {Past: true}})
}

func (s store) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.pool.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}
