package user_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// A user is in so many threads and no more, since each costs every edge that he comes to; what was written by the rules
// of before stays as it was.
func TestThreadsOfAUserAreBounded(t *testing.T) {
	u := id.UserID{1}
	s := user.New(u)
	at := topic.Position(0)
	apply := func(rules uint32, b eventv1.Event_builder) user.Outcome {
		t.Helper()
		b.UserId, b.Rules = u[:], rules
		raw, err := proto.Marshal(b.Build())
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		at++
		return s.Apply(e, at, 0).Outcome
	}
	join := func(rules uint32, n int) user.Outcome {
		th := id.ThreadID{6: 0x70, 8: 0x80, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
		return apply(rules, eventv1.Event_builder{ThreadJoined: eventv1.ThreadJoined_builder{ThreadId: th[:]}.Build()})
	}
	for n := range user.MaxThreads {
		if got := join(3, n); got != user.Accepted {
			t.Fatalf("thread %d: %v", n, got)
		}
	}
	for _, step := range []struct {
		name  string
		rules uint32
		leave bool
		n     int
		want  user.Outcome
	}{
		{"one too many", 3, false, user.MaxThreads, user.Rejected},
		{"by the rules of before", 2, false, user.MaxThreads, user.Accepted},
		{"leaving", 3, true, 1, user.Accepted},
		{"as many as before", 3, false, user.MaxThreads + 1, user.Rejected},
		{"leaving another", 3, true, 2, user.Accepted},
		{"into the place that was left", 3, false, 1, user.Accepted},
		{"and no further", 3, false, 2, user.Rejected},
	} {
		var got user.Outcome
		if step.leave {
			th := id.ThreadID{6: 0x70, 8: 0x80, 14: byte(step.n >> 8), 15: byte(step.n)}
			got = apply(step.rules,
				eventv1.Event_builder{ThreadLeft: eventv1.ThreadLeft_builder{ThreadId: th[:]}.Build()})
		} else {
			got = join(step.rules, step.n)
		}
		if got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
