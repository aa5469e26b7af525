package demo

import (
	"fmt"
	"strings"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Entry is an event of a thread as one of the places has it.
type Entry struct {
	Position topic.Position
	Ordinal  int64
	Kind     string // the event's field in event.v1.Event
	Sender   id.UserID
	Message  id.MessageID     // zero for what is no message
	Reply    event.MessageRef // that it answers
	Text     string           // of a message, or a title
}

// entryOf describes an event.
func entryOf(ev *event.Event, at topic.Position, ordinal int64) (Entry, error) {
	e := Entry{Position: at, Ordinal: ordinal, Kind: ev.Type.String(), Sender: ev.User}
	if ev.User.IsZero() {
		return e, fmt.Errorf("the event at %d has no sender", at)
	}
	switch ev.WhichBody() {
	case eventv1.Event_MessageSent_case:
		if ev.About.IsZero() {
			return e, fmt.Errorf("the message at %d has no id", at)
		}
		e.Message, e.Reply, e.Text = ev.About.ID, ev.Reply, ev.Content.Text
	case eventv1.Event_ThreadCreated_case:
		e.Text = ev.GetThreadCreated().GetTitle()
	case eventv1.Event_ThreadRenamed_case:
		e.Text = ev.GetThreadRenamed().GetTitle()
	default:
	}
	return e, nil
}

// unlike names what differs between two entries of one position.
func (e Entry) unlike(o Entry) string {
	var out []string
	add := func(same bool, what string, want, got any) {
		if !same {
			out = append(out, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	add(e.Ordinal == o.Ordinal, "ordinal", e.Ordinal, o.Ordinal)
	add(e.Kind == o.Kind, "kind", e.Kind, o.Kind)
	add(e.Sender == o.Sender, "sender", e.Sender, o.Sender)
	add(e.Message == o.Message, "message id", e.Message, o.Message)
	add(e.Reply == o.Reply, "reply to", e.Reply, o.Reply)
	add(e.Text == o.Text, "text", fmt.Sprintf("%q", e.Text), fmt.Sprintf("%q", o.Text))
	return strings.Join(out, "; ")
}

// Fault is what is wrong with an entry.
type Fault string

// The faults.
const (
	Missing    Fault = "missing"    // the place does not have it
	Doubled    Fault = "doubled"    // the place has it more than once
	Unexpected Fault = "unexpected" // it does not belong there
	Reordered  Fault = "reordered"  // it came after one with a higher position
	Different  Fault = "different"  // it is there with other content
)

// Difference is an entry that is not as the log gives it.
type Difference struct {
	Thread   string         `json:"thread"`
	Position topic.Position `json:"position"`
	Fault    Fault          `json:"fault"`
	Detail   string         `json:"detail,omitempty"`
}

// String says it in one line.
func (d Difference) String() string {
	s := fmt.Sprintf("%s at %d of thread %s", d.Fault, d.Position, d.Thread)
	if d.Detail != "" {
		s += ": " + d.Detail
	}
	return s
}

// compare finds every difference between the entries of a thread that a place should have, in order, and those that it
// has, in the order in which it has them.
func compare(name string, want, got []Entry) []Difference {
	var out []Difference
	report := func(e Entry, f Fault, detail string) {
		out = append(out, Difference{Thread: name, Position: e.Position, Fault: f, Detail: detail})
	}
	expected := map[topic.Position]Entry{}
	for _, e := range want {
		expected[e.Position] = e
	}
	had := map[topic.Position]bool{}
	var highest topic.Position
	for i, g := range got {
		if had[g.Position] {
			report(g, Doubled, fmt.Sprintf("%s %q", g.Kind, g.Text))
			continue
		}
		had[g.Position] = true
		if i > 0 && g.Position < highest {
			report(g, Reordered, fmt.Sprintf("it came after %d", highest))
		}
		highest = max(highest, g.Position)
		w, ok := expected[g.Position]
		if !ok {
			report(g, Unexpected, fmt.Sprintf("%s %q", g.Kind, g.Text))
			continue
		}
		if detail := w.unlike(g); detail != "" {
			report(g, Different, detail)
		}
	}
	for _, w := range want {
		if !had[w.Position] {
			report(w, Missing, fmt.Sprintf("%s %q", w.Kind, w.Text))
		}
	}
	return out
}

// Comparison of one place with the log.
type Comparison struct {
	Place       string       `json:"place"`
	Threads     int          `json:"threads"`
	Messages    int          `json:"messages"`
	Events      int          `json:"events"` // messages included
	Differences []Difference `json:"differences,omitempty"`
}

// entries are those of many threads.
type entries map[id.ThreadID][]Entry

// compareAll compares every thread of a place. name names threads for people.
func compareAll(place string, want, got entries, name func(id.ThreadID) string) Comparison {
	c := Comparison{Place: place}
	threads := map[id.ThreadID]bool{}
	for _, in := range []entries{want, got} {
		for t := range in {
			threads[t] = true
		}
	}
	for _, t := range sorted(threads) {
		c.Differences = append(c.Differences, compare(name(t), want[t], got[t])...)
		if len(got[t]) > 0 {
			c.Threads++
		}
		c.Events += len(got[t])
		for _, e := range got[t] {
			if e.Kind == messageSent {
				c.Messages++
			}
		}
	}
	return c
}

const messageSent = "message_sent"

// mark names a member's watermark.
type mark struct {
	thread id.ThreadID
	user   id.UserID
}
