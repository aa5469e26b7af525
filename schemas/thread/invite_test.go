package thread_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func (g *group) invite(by id.UserID, users ...id.UserID) thread.Verdict {
	g.t.Helper()
	return g.by3(by, eventv1.Event_builder{MemberInvited: eventv1.MemberInvited_builder{MemberIds: raw(users)}.Build()})
}

func (g *group) accept(u id.UserID) thread.Verdict {
	g.t.Helper()
	return g.by3(u, eventv1.Event_builder{InvitationAccepted: &eventv1.InvitationAccepted{}})
}

func (g *group) decline(u id.UserID) thread.Verdict {
	g.t.Helper()
	return g.by3(u, eventv1.Event_builder{InvitationDeclined: &eventv1.InvitationDeclined{}})
}

func (g *group) withdraw(by, u id.UserID) thread.Verdict {
	g.t.Helper()
	return g.by3(by, eventv1.Event_builder{
		InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: u[:]}.Build(),
	})
}

// by3 does what is judged by rules 3.
func (g *group) by3(by id.UserID, b eventv1.Event_builder) thread.Verdict {
	g.t.Helper()
	b.Rules = 3
	return g.do(by, b)
}

func TestInvitations(t *testing.T) {
	g := newGroup(t)
	a, b, c, d := user(1), user(2), user(3), user(4)
	g.must(thread.Missing, g.invite(a, c))
	g.must("", g.create(a, b))
	g.must(thread.NotAdmin, g.invite(b, c))
	g.must(thread.NotMember, g.invite(c, c))
	g.must(thread.NotInvited, g.accept(c))
	g.must(thread.NotInvited, g.decline(c))
	g.must(thread.Missing, g.withdraw(a, c))
	g.must(thread.Exists, g.accept(b))

	v := g.invite(a, c, b, c, d)
	g.must("", v)
	if !slices.Equal(v.Invited, []id.UserID{c, d}) || len(v.Members) != 0 {
		t.Errorf("an invitation changed %v and the members %v", v.Invited, v.Members)
	}
	want := thread.Invitation{By: a, At: g.at, TimeMS: g.ms}
	g.must(thread.Exists, g.invite(a, c))
	if got := g.s.Invited[c]; got != want {
		t.Errorf("the invitation is %+v, want %+v", got, want)
	}
	g.must(thread.NotMember, g.send(c, id.NewMessage())) // an invited user is no member, and sees nothing
	if g.s.Member(c).Sees(g.at) || g.s.ActiveMembers() != 2 {
		t.Error("an invited user is taken for a member")
	}

	g.must("", g.accept(c))
	if m := g.s.Member(c); !m.Active() || m.Role != thread.RoleMember || m.Sees(g.at-1) || !m.Sees(g.at) {
		t.Errorf("who accepted is %+v", m)
	}
	g.must(thread.Exists, g.accept(c))
	g.must("", g.remove(a, c))
	g.must(thread.NotInvited, g.accept(c)) // an invitation is good for once

	g.must(thread.NotAdmin, g.withdraw(b, d))
	g.must("", g.withdraw(a, d))
	g.must(thread.NotInvited, g.accept(d))
	g.must("", g.invite(a, d))
	g.must("", g.decline(d))
	g.must(thread.NotInvited, g.accept(d))
	g.must("", g.invite(a, d))
	if v := g.add(a, d); !slices.Equal(v.Invited, []id.UserID{d}) || len(g.s.Invited) != 0 {
		t.Errorf("who was added is invited still: %v", g.s.Invited)
	}
}

// The invitation is the group's: it outlives its inviter's membership, and ends with the group's last member.
func TestInvitationsOfAGroupThatIsLeft(t *testing.T) {
	g := newGroup(t)
	a, b, c, d := user(1), user(2), user(3), user(4)
	g.must("", g.create(a, b))
	g.must("", g.invite(a, c, d))
	g.must("", g.leave(a))
	g.must("", g.accept(c))
	g.must("", g.leave(b))
	v := g.leave(c)
	g.must("", v)
	if !slices.Equal(v.Invited, []id.UserID{d}) {
		t.Errorf("the last who left ended the invitations of %v, want of %v", v.Invited, d)
	}
	g.must(thread.NotInvited, g.accept(d))
}

func TestMaxInvited(t *testing.T) {
	g := newGroup(t)
	a := user(0)
	var us []id.UserID
	for i := range thread.MaxMembers {
		us = append(us, user(1+i))
	}
	g.must("", g.create(a, us[:thread.MaxMembers-2]...))
	last := us[thread.MaxMembers-2:]
	g.must("", g.invite(a, last...))
	g.must("", g.accept(last[0]))
	g.must(thread.Full, g.accept(last[1]))
	g.must("", g.remove(a, us[0]))
	g.must("", g.accept(last[1]))

	g = newGroup(t)
	g.must("", g.create(a))
	g.must(thread.Full, g.invite(a, us[:thread.MaxInvited+1]...))
	g.must("", g.invite(a, us[:thread.MaxInvited]...))
	g.must(thread.Full, g.invite(a, us[thread.MaxInvited]))
	g.must("", g.withdraw(a, us[7]))
	g.must("", g.invite(a, us[thread.MaxInvited]))
}

// Nobody is invited by rules from before there were invitations.
func TestInvitationsNeedTheirRules(t *testing.T) {
	g := newGroup(t)
	a, b := user(1), user(2)
	g.must("", g.create(a))
	for _, rules := range []uint32{0, 1, 2} {
		g.must(thread.Full, g.do(a, eventv1.Event_builder{
			Rules: rules, MemberInvited: eventv1.MemberInvited_builder{MemberIds: raw([]id.UserID{b})}.Build(),
		}))
	}
	g.must(thread.Malformed, g.invite(a))
	g.must(thread.Malformed, g.invite(a, id.UserID{}))
	if thread.RulesOf(event.CurrentRules).MaxInvited != thread.MaxInvited {
		t.Error("what is written is judged by another bound than the current one")
	}
}

// What is random tries what became of invitations too: each of them counts now and then.
func TestWorldsInvite(t *testing.T) {
	counted := map[event.Type]int{}
	for seed := range uint64(20) {
		w := eventtest.NewWorld(6, rand.New(rand.NewPCG(seed, 1)).IntN)
		states := map[topic.Subject]*thread.State{}
		for _, s := range w.Steps(300) {
			if s.Topic != topic.Threads {
				continue
			}
			st := states[s.Subject]
			if st == nil {
				st = thread.New(id.ThreadID(s.Subject))
				states[s.Subject] = st
			}
			if v := st.Apply(s.Event, s.Position, s.TimeMS); v.Outcome == thread.Accepted && len(v.Invited) > 0 {
				counted[s.Event.Type]++
			}
		}
	}
	for _, kind := range []event.Type{
		event.Type(eventv1.Event_MemberInvited_case), event.Type(eventv1.Event_InvitationAccepted_case),
		event.Type(eventv1.Event_InvitationDeclined_case), event.Type(eventv1.Event_InvitationWithdrawn_case),
		event.Type(eventv1.Event_MemberAdded_case),
	} {
		t.Logf("%v: %d", kind, counted[kind])
		if counted[kind] == 0 {
			t.Errorf("%v never counted", kind)
		}
	}
}
