package thread_test

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// repeating makes the log of one group in which few messages are sent again and again, with stamps that run ahead by
// days, go back, and pass over the window.
func repeating(t *rapid.T) []eventtest.Step {
	hours := func(from, to int) int64 {
		return int64(rapid.IntRange(from, to).Draw(t, "hours")) * time.Hour.Milliseconds()
	}
	g := id.NewGroup()
	users := []id.UserID{user(1), user(2)}
	now := int64(1_700_000_000_000)
	messages := []id.MessageID{idAt(now), idAt(now + hours(0, 60)), idAt(now + hours(0, 60))}
	rules := rapid.SampledFrom([][]uint32{{3}, {3}, {2}, {2, 3, 3, 3, 3, 3}}).Draw(t, "some rules")
	var out []eventtest.Step
	add := func(b eventv1.Event_builder, ms int64) {
		b.Rules = rapid.SampledFrom(rules).Draw(t, "rules")
		out = append(out, eventtest.Step{
			Event: event.Of(b.Build()), Subject: topic.Subject(g), Position: topic.Position(len(out)), TimeMS: ms,
		})
	}
	add(eventv1.Event_builder{
		UserId: users[0][:],
		ThreadCreated: eventv1.ThreadCreated_builder{
			Title: "g", MemberIds: [][]byte{users[1][:]},
		}.Build(),
	}, now)
	for range rapid.IntRange(0, 100).Draw(t, "steps") {
		now += rapid.Int64Range(0, 1000).Draw(t, "ms")
		stamp := now
		switch rapid.IntRange(0, 7).Draw(t, "stamp") {
		case 0:
			now += hours(1, 26)
			stamp = now
		case 1:
			stamp += hours(1, 100)
		case 2:
			stamp -= hours(1, 40)
		}
		u := rapid.SampledFrom(users).Draw(t, "user")
		if rapid.IntRange(0, 30).Draw(t, "members") == 30 {
			add(eventv1.Event_builder{
				UserId: users[0][:], MemberRemoved: eventv1.MemberRemoved_builder{MemberId: users[1][:]}.Build(),
			}, stamp)
			continue
		}
		m := rapid.SampledFrom(messages).Draw(t, "message")
		if rapid.IntRange(0, 3).Draw(t, "fresh") == 0 {
			m = idAt(now)
		}
		add(eventv1.Event_builder{
			UserId:      u[:],
			MessageSent: eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text("hi")}.Build(),
		}, stamp)
	}
	return out
}

// message is one as a store has it, and tail what it has of a thread.
type (
	message struct {
		key  thread.Key
		seen thread.Seen
	}
	tail []message
)

func (l *tail) add(s eventtest.Step, v thread.Verdict) {
	e := s.Event
	if v.Outcome == thread.Accepted && e.HasMessageSent() {
		*l = append(*l, message{thread.Key{Sender: e.User, Message: e.About.ID}, thread.Seen{
			Position: s.Position, TimeMS: s.TimeMS, Ordinal: v.Ordinal,
		}})
	}
}

// load is a state as a store gives it, with the most messages of its window at most, the latest.
func (l tail) load(whole *thread.State, next topic.Position, most int) *thread.State {
	window := slices.DeleteFunc(slices.Clone(l), func(m message) bool {
		return whole.LastTimeMS-m.seen.TimeMS > thread.Window.Milliseconds()
	})
	slices.SortStableFunc(window, func(a, b message) int { return cmp.Compare(b.seen.TimeMS, a.seen.TimeMS) })
	out := stored(whole, next)
	clear(out.Recent)
	upTo := int64(0)
	if most == 0 {
		for _, m := range l {
			upTo = max(upTo, m.seen.TimeMS)
		}
	} else {
		for i, m := range window[:min(most, len(window))] {
			if out.Recent[m.key].Position <= m.seen.Position {
				out.Recent[m.key] = m.seen
			}
			if i == most-1 {
				upTo = m.seen.TimeMS
			}
		}
	}
	if upTo > 0 {
		out.RestorePartly(upTo)
	}
	return out
}

// TestPartialStatesJudgeAlike: a state that was loaded with few of its recent messages, or none, judges as the whole
// fold does when what it is unsure of is looked up before each batch, whatever the stamps.
func TestPartialStatesJudgeAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := repeating(t)
		whole, stored := thread.New(id.ThreadID(log[0].Subject)), tail{}
		part := whole.Clone()
		for len(log) > 0 {
			n := rapid.IntRange(1, min(8, len(log))).Draw(t, "batch")
			batch := log[:n]
			log = log[n:]
			if rapid.IntRange(0, 5).Draw(t, "load") == 0 {
				part = stored.load(whole, batch[0].Position, rapid.IntRange(0, 4).Draw(t, "most"))
			}
			found := maps.Clone(part.Recent)
			for _, s := range batch {
				key, unsure := part.Unsure(s.Event)
				for _, m := range stored {
					if unsure && m.key == key {
						found[key] = m.seen
					}
				}
			}
			part.Recent = found
			for _, s := range batch {
				want := whole.Apply(s.Event, s.Position, s.TimeMS)
				if d := gocmp.Diff(want, part.Apply(s.Event, s.Position, s.TimeMS)); d != "" {
					t.Fatalf("verdict at %d: %s", s.Position, d)
				}
				stored.add(s, want)
			}
		}
	})
}
