package sinktest

import (
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Invitations are the steps of a log of groups in which invitations end in each way that there is, and are answered
// once more after that: what a sink forgets, or does not forget, gives another verdict. Some are open at its end.
func Invitations(partitions int) []eventtest.Step {
	var steps []eventtest.Step
	ends := map[topic.Slot]topic.Position{}
	write := func(t id.ThreadID, by id.UserID, b eventv1.Event_builder) {
		b.UserId, b.Rules = by[:], 3
		e := b.Build()
		v, err := proto.Marshal(e)
		if err != nil {
			panic(err) // a broken test
		}
		slot := topic.SlotOf(topic.Subject(t), partitions)
		steps = append(steps, eventtest.Step{
			Topic: topic.Threads, Slot: slot, Position: ends[slot], TimeMS: 1_790_000_000_000 + int64(len(steps)),
			Subject: topic.Subject(t), Key: t[:], Value: v, Event: event.Of(e),
		})
		ends[slot]++
	}
	w := eventtest.NewWorld(6, nil)
	a, b, c, d, e, f := w.Users()[0], w.Users()[1], w.Users()[2], w.Users()[3], w.Users()[4], w.Users()[5]
	create := eventv1.Event_builder{ThreadCreated: eventv1.ThreadCreated_builder{Title: "group"}.Build()}
	invite := func(t id.ThreadID, users ...id.UserID) {
		m := eventv1.MemberInvited_builder{}
		for _, u := range users {
			m.MemberIds = append(m.MemberIds, u[:])
		}
		write(t, a, eventv1.Event_builder{MemberInvited: m.Build()})
	}
	accept := eventv1.Event_builder{InvitationAccepted: &eventv1.InvitationAccepted{}}
	decline := eventv1.Event_builder{InvitationDeclined: &eventv1.InvitationDeclined{}}
	leave := eventv1.Event_builder{MemberLeft: &eventv1.MemberLeft{}}

	first, second := id.NewGroup(), id.NewGroup()
	write(first, a, create)
	invite(first, b, c, d, e, f)
	write(first, b, accept)
	write(first, c, decline)
	write(first, a, eventv1.Event_builder{
		InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: d[:]}.Build(),
	})
	write(first, a, eventv1.Event_builder{MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{e[:]}}.Build()})
	write(first, b, leave)
	write(first, e, leave)
	for _, u := range []id.UserID{b, c, d, e} { // is not invited any more
		write(first, u, accept)
	}
	invite(first, f) // is so still
	invite(first, c) // anew
	write(first, a, leave)
	write(first, f, accept) // into a group that nobody is left in

	write(second, a, create)
	invite(second, b, c)
	write(second, b, decline)
	invite(second, b, d)
	return steps
}

// OneByOne are options by which a slot is opened anew before each event.
func OneByOne() Options {
	again := false
	return Options{
		Cut:    func() int { return 1 },
		Reopen: func() bool { again = !again; return !again },
	}
}
