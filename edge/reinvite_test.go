package edge

import (
	"slices"
	"testing"

	"heliograph/edge/auth"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Who is invited once more by an admin is not told again, however often, and each time costs what an invitation does;
// the views are waited for, which may not have the first one yet.
func TestInvitedAgainIsNotToldAgain(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.inviting(t, "+491"), f.inviting(t, "+492"), f.inviting(t, "+493")
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.acked(invite(g, b.user))
	f.world.mu.Lock()
	f.world.spent = nil
	f.world.viewsAt = map[topic.Topic]topic.Position{topic.Users: f.world.next[topic.Users] - 1}
	f.world.mu.Unlock()
	req := a.send(invite(g, b.user))
	until(t, "the views are waited for", func() bool { return f.world.waiting.Load() > 0 })
	f.world.mu.Lock()
	f.world.viewsAt = nil
	f.world.news()
	f.world.mu.Unlock()
	if got := a.answer(req); !got.HasAck() {
		t.Fatalf("got %v, want an Ack", got)
	}
	for range 3 {
		a.acked(invite(g, b.user, c.user))
	}
	for name, d := range map[string]*device{"the first": b, "the second": c} {
		if told, listed := d.told(), d.invitations(); len(told) != 1 || len(listed) != 1 {
			t.Errorf("%s: pushed %v, listed %v, want one each", name, told, listed)
		}
	}
	if n := f.world.events((*eventv1.Event).HasThreadInvited); n != 2 {
		t.Errorf("%d events for the invited, want 2", n)
	}
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if got := f.world.spent[auth.Additions]; got != 1+3*2 {
		t.Errorf("it costs %d, want 7", got)
	}
}

// Another admin is faster, through another edge, and has told the invited: he is not told twice.
func TestInvitedByAnotherMeanwhileIsNotToldAgain(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	g := id.NewGroup()
	a.acked(createGroup(g))
	w := f.world
	w.mu.Lock()
	w.refuse = func(ev *eventv1.Event) (bool, bool) {
		if ev.HasMemberInvited() {
			for top, x := range map[topic.Topic]struct {
				of topic.Subject
				ev eventv1.Event_builder
			}{
				topic.Threads: {topic.Subject(g), eventv1.Event_builder{MemberInvited: ev.GetMemberInvited()}},
				topic.Users: {topic.Subject(b.user), eventv1.Event_builder{
					ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: g[:]}.Build(),
				}},
			} {
				x.ev.UserId, x.ev.Rules = a.user[:], event.CurrentRules
				at := w.next[top]
				w.next[top]++
				w.fold(top, x.of, x.ev.Build(), at)
			}
		}
		return false, false
	}
	w.mu.Unlock()
	a.acked(invite(g, b.user))
	if told := b.told(); len(told) != 1 {
		t.Errorf("pushed %v, want one", told)
	}
}

// A block ends what one was invited to by the blocked, as far as one sees: another may invite into the same group, and
// what is hidden can be declined.
func TestABlockEndsInvitations(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.inviting(t, "+491"), f.inviting(t, "+492"), f.inviting(t, "+493")
	g, h := id.NewGroup(), id.NewGroup()
	for _, th := range []id.ThreadID{g, h} {
		a.acked(createGroup(th, c.user))
		a.acked(frameOf{SetRole: wirev1.SetRole_builder{
			ThreadId: th[:], MemberId: c.user[:], Role: eventv1.Role_ROLE_ADMIN,
		}.Build()})
		a.acked(invite(th, b.user))
	}
	b.done(block(a.user, true))
	if got := b.invitations(); len(got) != 0 {
		t.Errorf("by the blocked: listed %v", got)
	}
	a.acked(invite(g, b.user))
	if got := b.invitations(); len(got) != 0 {
		t.Errorf("by the blocked once more: listed %v", got)
	}
	for range 2 {
		c.acked(invite(g, b.user))
	}
	if got, told := b.invitations(), b.told(); !slices.Equal(got, []id.ThreadID{g}) || len(told) != 3 {
		t.Errorf("by another: listed %v, pushed %v", got, told)
	}
	b.acked(answer(h, false))
	if f.world.isInvited(h, b.user) {
		t.Error("invited still into what he has declined")
	}
}

// To answer reads one invitation, not all that there are.
func TestAnAnswerReadsNoList(t *testing.T) {
	f := start(t, nil)
	b := f.inviting(t, "+492")
	for _, accept := range []bool{true, false} {
		b.ask(answer(id.NewGroup(), accept))
	}
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if f.world.listed != 0 {
		t.Errorf("all invitations were read %d times", f.world.listed)
	}
}

// A user blocks so many and no more; one whom he has blocked already he may block again, and lift it.
func TestBlocksAreBounded(t *testing.T) {
	f := start(t, nil)
	a := f.inviting(t, "+491")
	var others []id.UserID
	for n := range byte(mostBlocked + 1) {
		others = append(others, f.dial(t).register("+50"+string('1'+n)).user)
	}
	for _, u := range others[:mostBlocked] {
		a.done(block(u, true))
	}
	before := len(f.world.log())
	a.refused(a.ask(block(others[mostBlocked], true)), wirev1.Code_CODE_NOT_ALLOWED)
	if n := len(f.world.log()) - before; n != 0 {
		t.Errorf("%d events were appended", n)
	}
	a.done(block(others[0], true))
	a.done(block(others[0], false))
	a.done(block(others[mostBlocked], true))
}
