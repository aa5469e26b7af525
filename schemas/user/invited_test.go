package user_test

import (
	"testing"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/user"
)

// by3 does what another does by rules 3 on the user's subject.
func (a *account) by3(by id.UserID, b eventv1.Event_builder) user.Outcome {
	a.t.Helper()
	b.UserId, b.Rules = by[:], 3
	return a.do(b).Outcome
}

func invitedTo(t id.ThreadID) eventv1.Event_builder {
	return eventv1.Event_builder{ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: t[:], Title: "walk"}.Build()}
}

func ended(t id.ThreadID) eventv1.Event_builder {
	return eventv1.Event_builder{
		ThreadInvitationEnded: eventv1.ThreadInvitationEnded_builder{ThreadId: t[:]}.Build(),
	}
}

func joined(t id.ThreadID) eventv1.Event_builder {
	return eventv1.Event_builder{ThreadJoined: eventv1.ThreadJoined_builder{ThreadId: t[:]}.Build()}
}

func TestInvitations(t *testing.T) {
	ann := id.UserID{1}
	a := &account{t: t, s: user.New(id.UserID{2})}
	one, two := id.NewGroup(), id.NewGroup()
	want := func(what string, got, want user.Outcome) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	want("an invitation of nobody", a.by3(ann, invitedTo(one)), user.Rejected)
	a.register(id.NewDevice(), 1)
	want("one without an inviter", a.by3(id.UserID{}, invitedTo(one)), user.Rejected)
	want("one by himself", a.by3(a.s.ID, invitedTo(one)), user.Rejected)
	want("an end before the beginning", a.by3(a.s.ID, ended(one)), user.Rejected)
	want("an invitation", a.by3(ann, invitedTo(one)), user.Accepted)
	if got := a.s.Invitations[one]; got != (user.Invitation{
		By: ann, Title: "walk", At: a.at, TimeMS: int64(a.at) * 1000,
	}) {
		t.Errorf("it is %+v", got)
	}
	want("another", a.by3(ann, invitedTo(two)), user.Accepted)
	want("one in the place of another", a.by3(id.UserID{3}, invitedTo(one)), user.Accepted)
	if a.s.Invitations[one].By != (id.UserID{3}) || len(a.s.Invitations) != 2 {
		t.Errorf("they are %+v", a.s.Invitations)
	}
	want("its end", a.by3(a.s.ID, ended(one)), user.Accepted)
	want("joining the other's thread", a.by3(a.s.ID, joined(two)), user.Accepted)
	if len(a.s.Invitations) != 0 {
		t.Errorf("left are %+v", a.s.Invitations)
	}
	// The list alone does not say that he is a member: a join that was begun, and not ended, must not keep him out.
	want("an invitation into what is in his list", a.by3(ann, invitedTo(two)), user.Accepted)
}

func TestMaxInvitations(t *testing.T) {
	a := &account{t: t, s: user.New(id.UserID{2})}
	a.register(id.NewDevice(), 1)
	first := id.NewGroup()
	for n := range user.MaxInvitations {
		th := id.NewGroup()
		if n == 0 {
			th = first
		}
		if got := a.by3(id.UserID{1}, invitedTo(th)); got != user.Accepted {
			t.Fatalf("invitation %d is %v", n, got)
		}
	}
	if got := a.by3(id.UserID{1}, invitedTo(id.NewGroup())); got != user.Rejected {
		t.Errorf("one too many is %v", got)
	}
	if got := a.by3(id.UserID{3}, invitedTo(first)); got != user.Accepted {
		t.Errorf("one in the place of another is %v", got)
	}
	if user.RulesOf(event.CurrentRules).MaxInvitations != user.MaxInvitations {
		t.Error("what is written is judged by another bound than the current one")
	}
}

func TestMayAdd(t *testing.T) {
	a := &account{t: t, s: user.New(id.UserID{2})}
	set := func(m eventv1.MayAdd) user.Outcome {
		return a.by3(a.s.ID, eventv1.Event_builder{MayAddChanged: eventv1.MayAddChanged_builder{MayAdd: m}.Build()})
	}
	if got := set(eventv1.MayAdd_MAY_ADD_NOBODY); got != user.Rejected {
		t.Errorf("of somebody who is not registered it is %v", got)
	}
	a.register(id.NewDevice(), 1)
	for m, want := range map[eventv1.MayAdd]user.Outcome{
		0: user.Rejected, 1: user.Accepted, 2: user.Accepted, 3: user.Accepted, 4: user.Rejected, -1: user.Rejected,
	} {
		before := a.s.MayAdd
		if got := set(m); got != want {
			t.Errorf("%v is %v, want %v", m, got, want)
		}
		if want == user.Accepted {
			before = m
		}
		if a.s.MayAdd != before {
			t.Errorf("after %v it is %v, want %v", m, a.s.MayAdd, before)
		}
	}
}
