package edge

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"heliograph/edge/auth"
	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

type frameOf = wirev1.ClientFrame_builder

func createGroup(g id.ThreadID, members ...id.UserID) frameOf {
	return frameOf{CreateGroup: wirev1.CreateGroup_builder{
		ThreadId: g[:], Title: "walk", MemberIds: bytesOf(members),
	}.Build()}
}

func addMembers(g id.ThreadID, members ...id.UserID) frameOf {
	return frameOf{AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: bytesOf(members)}.Build()}
}

func invite(g id.ThreadID, users ...id.UserID) frameOf {
	return frameOf{InviteMembers: wirev1.InviteMembers_builder{ThreadId: g[:], MemberIds: bytesOf(users)}.Build()}
}

func withdraw(g id.ThreadID, u id.UserID) frameOf {
	return frameOf{WithdrawInvitation: wirev1.WithdrawInvitation_builder{ThreadId: g[:], MemberId: u[:]}.Build()}
}

func answer(g id.ThreadID, accept bool) frameOf {
	return frameOf{AnswerInvitation: wirev1.AnswerInvitation_builder{ThreadId: g[:], Accept: accept}.Build()}
}

func remove(g id.ThreadID, u id.UserID) frameOf {
	return frameOf{RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: u[:]}.Build()}
}

func mayAdd(who eventv1.MayAdd) frameOf {
	return frameOf{SetMayAdd: wirev1.SetMayAdd_builder{MayAdd: who}.Build()}
}

func block(u id.UserID, blocked bool) frameOf {
	return frameOf{SetBlocked: wirev1.SetBlocked_builder{UserId: u[:], Blocked: blocked}.Build()}
}

func bytesOf(users []id.UserID) [][]byte {
	out := make([][]byte, len(users))
	for k := range users {
		out[k] = users[k][:]
	}
	return out
}

// inviting registers a device that knows the feature.
func (f *fixture) inviting(t *testing.T, phone string) *device {
	t.Helper()
	d := f.dial(t)
	d.features = wire.Features
	return d.register(phone).sync()
}

// acked asks for something that is to be done.
func (d *device) acked(b frameOf) {
	d.t.Helper()
	if got := d.ask(b); !got.HasAck() {
		d.t.Fatalf("got %v, want an Ack", got)
	}
}

// done asks for something that is to be answered by Done.
func (d *device) done(b frameOf) {
	d.t.Helper()
	if got := d.ask(b); !got.HasDone() {
		d.t.Fatalf("got %v, want Done", got)
	}
}

// invitations are the threads that the user is invited into.
func (d *device) invitations() (out []id.ThreadID) {
	d.t.Helper()
	got := d.ask(frameOf{ListInvitations: &wirev1.ListInvitations{}})
	if !got.HasInvitations() {
		d.t.Fatalf("got %v", got)
	}
	for _, i := range got.GetInvitations().GetInvitations() {
		out = append(out, id.ThreadID(i.GetThreadId()))
	}
	return out
}

// told are the pushes about invitations, as far as the device has read.
func (d *device) told() (out []*wirev1.Invitation) {
	d.t.Helper()
	if got := d.ask(frameOf{Ping: &wirev1.Ping{}}); !got.HasPong() {
		d.t.Fatalf("got %v", got)
	}
	for _, p := range d.pushes {
		if p.HasInvitation() {
			out = append(out, p.GetInvitation())
		}
	}
	return out
}

// events are how many the log has of a type.
func (w *world) events(has func(*eventv1.Event) bool) (n int) {
	for _, r := range w.log() {
		if has(r.ev) {
			n++
		}
	}
	return n
}

// isMember tells who the thread itself has as a member.
func (w *world) isMember(g id.ThreadID, u id.UserID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.threads[g].IsMember(u)
}

func (w *world) isInvited(g id.ThreadID, u id.UserID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, invited := w.threads[g].Invited[u]
	return invited
}

// inList tells whether a thread is in a user's list, and not as one that he has left.
func (w *world) inList(u id.UserID, g id.ThreadID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	j, known := w.person(u).Threads[g]
	return known && !j.Left
}

// Who lets nobody add him, or has blocked the one who asks, is named to a client that can invite him instead, and to
// no other; and nobody's settings stand in his own way.
func TestWhoCannotBeAddedIsNamed(t *testing.T) {
	f := start(t, nil)
	a, plain := f.inviting(t, "+491"), f.dial(t).register("+492").sync()
	nobody, blocker, other := f.inviting(t, "+493"), f.inviting(t, "+494"), f.inviting(t, "+495")
	nobody.refused(nobody.ask(mayAdd(eventv1.MayAdd_MAY_ADD_CONTACTS)), wirev1.Code_CODE_INVALID)
	nobody.refused(nobody.ask(mayAdd(eventv1.MayAdd_MAY_ADD_UNSPECIFIED)), wirev1.Code_CODE_INVALID)
	nobody.done(mayAdd(eventv1.MayAdd_MAY_ADD_NOBODY))
	for _, d := range []*device{a, plain} {
		blocker.done(block(d.user, true))
	}
	own := id.NewGroup()
	nobody.acked(createGroup(own, other.user))
	want := [][]byte{nobody.user[:], blocker.user[:]}
	for _, d := range []*device{a, plain} {
		g := id.NewGroup()
		d.acked(createGroup(g))
		before := len(f.world.log())
		for _, b := range []frameOf{
			createGroup(id.NewGroup(), nobody.user, other.user, blocker.user),
			addMembers(g, nobody.user, other.user, blocker.user),
		} {
			f.world.mu.Lock()
			f.world.spent = nil
			f.world.mu.Unlock()
			got := d.ask(b).GetError()
			named := map[auth.Spending]int{auth.Additions: max(1, len(got.GetUserIds()))} // and no group
			f.world.mu.Lock()
			if diff := cmp.Diff(f.world.spent, named); diff != "" {
				t.Errorf("to be told costs (-got +want):\n%s", diff)
			}
			f.world.mu.Unlock()
			switch {
			case d == plain && (got.GetCode() != wirev1.Code_CODE_NOT_ALLOWED || len(got.GetUserIds()) != 0):
				t.Errorf("without the feature: %v", got)
			case d == a && got.GetCode() != wirev1.Code_CODE_NOT_ADDABLE:
				t.Errorf("with the feature: %v", got)
			case d == a && cmp.Diff(got.GetUserIds(), want) != "":
				t.Errorf("named (-got +want):\n%s", cmp.Diff(got.GetUserIds(), want))
			}
		}
		if n := len(f.world.log()); n != before {
			t.Errorf("%d events were appended", n-before)
		}
	}
	f.world.mu.Lock()
	f.world.broke = auth.Additions
	f.world.mu.Unlock()
	got := a.ask(createGroup(id.NewGroup(), nobody.user))
	a.refused(got, wirev1.Code_CODE_RATE_LIMITED)
	if len(got.GetError().GetUserIds()) > 0 {
		t.Error("who has nothing left is told for nothing")
	}
	f.world.mu.Lock()
	f.world.broke = ""
	f.world.mu.Unlock()
	nobody.done(mayAdd(eventv1.MayAdd_MAY_ADD_EVERYBODY))
	a.acked(createGroup(id.NewGroup(), nobody.user))
}

// Settings are what was set last.
func TestSettings(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	settings := func() *wirev1.Settings {
		return a.ask(frameOf{GetSettings: &wirev1.GetSettings{}}).GetSettings()
	}
	check := func(want wirev1.Settings_builder) {
		t.Helper()
		if d := cmp.Diff(settings(), want.Build(), protocmp.Transform()); d != "" {
			t.Errorf("settings (-got +want):\n%s", d)
		}
	}
	check(wirev1.Settings_builder{MayAdd: eventv1.MayAdd_MAY_ADD_EVERYBODY})
	stranger := id.UserID{1}
	a.refused(a.ask(block(stranger, true)), wirev1.Code_CODE_UNKNOWN_USER)
	a.refused(a.ask(block(a.user, true)), wirev1.Code_CODE_INVALID)
	a.refused(a.ask(frameOf{SetBlocked: &wirev1.SetBlocked{}}), wirev1.Code_CODE_INVALID)
	for range 2 {
		a.done(block(b.user, true))
		a.done(mayAdd(eventv1.MayAdd_MAY_ADD_NOBODY))
	}
	check(wirev1.Settings_builder{MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY, BlockedIds: [][]byte{b.user[:]}})
	for range 2 {
		a.done(block(b.user, false))
	}
	check(wirev1.Settings_builder{MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY})
	b.pushes = nil
	if b.told(); len(b.pushes) != 0 {
		t.Errorf("the blocked was told: %v", b.pushes)
	}
}

// An invitation comes to the invited alone, and makes him a member once he accepts.
func TestInvitationIsAccepted(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.inviting(t, "+491"), f.inviting(t, "+492"), f.inviting(t, "+493")
	b.done(mayAdd(eventv1.MayAdd_MAY_ADD_NOBODY))
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.refused(a.ask(invite(g)), wirev1.Code_CODE_INVALID)
	a.refused(a.ask(invite(g, id.UserID{1})), wirev1.Code_CODE_UNKNOWN_USER)
	a.acked(invite(g, a.user)) // a member is passed over
	a.acked(invite(g, b.user, a.user, b.user))
	told := b.told()
	if len(told) != 1 || id.ThreadID(told[0].GetThreadId()) != g || told[0].GetTitle() != "walk" ||
		id.UserID(told[0].GetInviterId()) != a.user || told[0].GetTimeMs() == 0 || told[0].GetEnded() {
		t.Fatalf("pushed %v", told)
	}
	if got := b.invitations(); !slices.Equal(got, []id.ThreadID{g}) {
		t.Errorf("listed %v", got)
	}
	if f.world.isMember(g, b.user) {
		t.Error("the invited is a member")
	}
	b.refused(b.ask(frameOf{SendMessage: wirev1.SendMessage_builder{
		ThreadId: g[:], MessageId: func() []byte { m := id.NewMessage(); return m[:] }(), Content: text("x"),
	}.Build()}), wirev1.Code_CODE_NOT_A_MEMBER)
	for range 2 { // to ask again is safe
		b.acked(answer(g, true))
	}
	if told = b.told(); len(told) != 2 || !told[1].GetEnded() || id.ThreadID(told[1].GetThreadId()) != g {
		t.Errorf("pushed %v", told)
	}
	if got := b.invitations(); len(got) != 0 {
		t.Errorf("listed %v after it was accepted", got)
	}
	if !f.world.isMember(g, b.user) || !f.world.inList(b.user, g) {
		t.Error("who has accepted is no member")
	}
	b.done(answer(g, false)) // nothing to decline
	if !f.world.isMember(g, b.user) {
		t.Error("who declined what he had accepted is out")
	}
	if told := append(c.told(), a.told()...); len(told) != 0 {
		t.Errorf("others were told: %v", told)
	}
	if n := f.world.events((*eventv1.Event).HasInvitationAccepted); n != 1 {
		t.Errorf("%d acceptances in the log", n)
	}
}

// What was left half done by an edge that failed in between is done by asking again.
func TestInvitationsAreMendedByAskingAgain(t *testing.T) {
	type is = func(*eventv1.Event) bool
	for _, x := range []struct {
		name  string
		fails is
		kept  bool
		open  bool // invited before
		by    func(a, b *device) *device
		ask   func(g id.ThreadID, b *device) frameOf
		want  func(w *world, g id.ThreadID, b *device) bool
	}{
		{
			"invited, and not told", (*eventv1.Event).HasThreadInvited, false, false,
			func(a, _ *device) *device { return a },
			func(g id.ThreadID, b *device) frameOf { return invite(g, b.user) },
			func(w *world, g id.ThreadID, b *device) bool {
				return w.isInvited(g, b.user) && len(b.invitations()) == 1
			},
		},
		{
			"invited by an event whose answer was lost", (*eventv1.Event).HasMemberInvited, true, false,
			func(a, _ *device) *device { return a },
			func(g id.ThreadID, b *device) frameOf { return invite(g, b.user) },
			func(w *world, g id.ThreadID, b *device) bool {
				return w.isInvited(g, b.user) && len(b.invitations()) == 1
			},
		},
		{
			"withdrawn, and not told", (*eventv1.Event).HasThreadInvitationEnded, false, true,
			func(a, _ *device) *device { return a },
			func(g id.ThreadID, b *device) frameOf { return withdraw(g, b.user) },
			func(w *world, g id.ThreadID, b *device) bool {
				return !w.isInvited(g, b.user) && len(b.invitations()) == 0
			},
		},
		{
			"declined, and not told", (*eventv1.Event).HasThreadInvitationEnded, false, true,
			func(_, b *device) *device { return b }, func(g id.ThreadID, _ *device) frameOf { return answer(g, false) },
			func(w *world, g id.ThreadID, b *device) bool {
				return !w.isInvited(g, b.user) && len(b.invitations()) == 0
			},
		},
		{
			"joined, and not accepted", (*eventv1.Event).HasInvitationAccepted, false, true,
			func(_, b *device) *device { return b }, func(g id.ThreadID, _ *device) frameOf { return answer(g, true) },
			func(w *world, g id.ThreadID, b *device) bool {
				return w.isMember(g, b.user) && len(b.invitations()) == 0
			},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := start(t, nil)
			a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
			g := id.NewGroup()
			a.acked(createGroup(g))
			if x.open {
				a.acked(invite(g, b.user))
			}
			by := x.by(a, b)
			f.world.mu.Lock()
			f.world.refuse = func(ev *eventv1.Event) (bool, bool) { return x.fails(ev), x.kept }
			f.world.mu.Unlock()
			by.refused(by.ask(x.ask(g, b)), wirev1.Code_CODE_UNAVAILABLE)
			f.world.mu.Lock()
			f.world.refuse = nil
			f.world.mu.Unlock()
			if got := by.ask(x.ask(g, b)); got.HasError() {
				t.Fatalf("again: %v", got)
			}
			if !x.want(f.world, g, b) {
				t.Error("asking again did not do the rest")
			}
		})
	}
}

// Whoever comes in while an admin invites him once more is not invited into what he is in.
func TestAMemberIsNotToldThatHeIsInvited(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.acked(invite(g, b.user))
	w := f.world
	w.mu.Lock()
	w.refuse = func(ev *eventv1.Event) (bool, bool) {
		if ev.HasMemberInvited() { // another edge was faster with this
			at := w.next[topic.Threads]
			w.next[topic.Threads]++
			w.fold(topic.Threads, topic.Subject(g), eventv1.Event_builder{
				UserId: b.user[:], Rules: event.CurrentRules, InvitationAccepted: &eventv1.InvitationAccepted{},
			}.Build(), at)
		}
		return false, false
	}
	w.mu.Unlock()
	before := w.events((*eventv1.Event).HasThreadInvited)
	a.acked(invite(g, b.user))
	if n := w.events((*eventv1.Event).HasThreadInvited) - before; n != 0 || !w.isMember(g, b.user) {
		t.Errorf("told %d times, a member: %v", n, w.isMember(g, b.user))
	}
}

// A join that an edge began and did not carry out keeps nobody out, whatever he or an admin does next.
func TestAJoinThatIsNotCarriedOut(t *testing.T) {
	begun := func(t *testing.T) (*world, *device, *device, id.ThreadID) {
		f := start(t, nil)
		a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
		g := id.NewGroup()
		a.acked(createGroup(g))
		a.acked(invite(g, b.user))
		refuse := func(fn func(*eventv1.Event) (bool, bool)) {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			f.world.refuse = fn
		}
		refuse(func(ev *eventv1.Event) (bool, bool) { return ev.HasInvitationAccepted(), false })
		b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_UNAVAILABLE)
		refuse(nil)
		return f.world, a, b, g
	}
	told := func(t *testing.T, a, b *device, g id.ThreadID) {
		t.Helper()
		a.acked(invite(g, b.user))
		if got := b.invitations(); len(got) != 1 {
			t.Errorf("who is invited again has %v", got)
		}
	}
	t.Run("invited again", func(t *testing.T) {
		w, a, b, g := begun(t)
		told(t, a, b, g)
		b.acked(answer(g, true))
		if !w.isMember(g, b.user) {
			t.Error("who accepted is no member")
		}
	})
	t.Run("declined", func(t *testing.T) {
		w, a, b, g := begun(t)
		if got := b.ask(answer(g, false)); got.HasError() || w.isInvited(g, b.user) {
			t.Errorf("got %v, invited still: %v", got, w.isInvited(g, b.user))
		}
		told(t, a, b, g)
	})
	t.Run("withdrawn", func(t *testing.T) {
		_, a, b, g := begun(t)
		a.acked(withdraw(g, b.user))
		told(t, a, b, g)
	})
}

// Who has blocked an inviter hears of none of his invitations, and the inviter of no block.
func TestBlockedInviterIsNotHeardOf(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.inviting(t, "+491"), f.inviting(t, "+492"), f.inviting(t, "+493")
	b.done(block(a.user, true))
	g := id.NewGroup()
	a.acked(createGroup(g))
	for range 2 {
		a.acked(invite(g, b.user, c.user))
	}
	if got, told := b.invitations(), b.told(); len(got)+len(told) != 0 {
		t.Errorf("listed %v, pushed %v", got, told)
	}
	if got, told := c.invitations(), c.told(); len(got) != 1 || len(told) != 1 {
		t.Errorf("the other: listed %v, pushed %v", got, told)
	}
	b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_NOT_A_MEMBER) // he has none
	a.acked(addMembers(g, c.user))
	a.acked(frameOf{SetRole: wirev1.SetRole_builder{
		ThreadId: g[:], MemberId: c.user[:], Role: eventv1.Role_ROLE_ADMIN,
	}.Build()})
	c.acked(invite(g, b.user)) // by somebody whom he has not blocked
	if got := b.invitations(); len(got) != 1 {
		t.Errorf("of another inviter: listed %v", got)
	}
}

// To a stranger a group is as one that does not exist, and nothing is loaded for him.
func TestAnswersOfStrangers(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	there, none := id.NewGroup(), id.NewGroup()
	a.acked(createGroup(there))
	f.world.mu.Lock()
	clear(f.world.ensured)
	f.world.mu.Unlock()
	before := len(f.world.log())
	for _, accept := range []bool{true, false} {
		got, want := b.ask(answer(there, accept)), b.ask(answer(none, accept))
		got.SetRequestId(0)
		want.SetRequestId(0)
		if d := cmp.Diff(got, want, protocmp.Transform()); d != "" {
			t.Errorf("accept %v (-there +not there):\n%s", accept, d)
		}
		if got.GetError().GetCode() == wirev1.Code_CODE_NOT_A_MEMBER != accept || got.HasDone() == accept {
			t.Errorf("accept %v: %v", accept, got)
		}
	}
	direct := id.DirectThread(a.user, b.user)
	b.refused(b.ask(answer(direct, true)), wirev1.Code_CODE_INVALID)
	f.world.mu.Lock()
	loaded := len(f.world.ensured)
	f.world.mu.Unlock()
	if n := len(f.world.log()) - before; n+loaded != 0 {
		t.Errorf("%d events were appended and %d threads loaded for a stranger", n, loaded)
	}
}

// A group that filled up before the acceptance came into the log has no new member, and is not in his list.
func TestAcceptIntoAFullGroup(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	var crowd []id.UserID
	f.world.mu.Lock()
	for k := range thread.MaxMembers - 1 {
		crowd = append(crowd, id.UserID{1, byte(k >> 8), byte(k)})
		f.world.users[crowd[k]] = true
	}
	f.world.mu.Unlock()
	last := crowd[len(crowd)-1]
	g := id.NewGroup()
	a.acked(createGroup(g, crowd[:len(crowd)-1]...))
	a.acked(invite(g, b.user))
	f.world.mu.Lock()
	f.world.hold = true
	f.world.mu.Unlock()
	f.world.append(topic.Threads, topic.Subject(g), eventv1.Event_builder{
		UserId: a.user[:], MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{last[:]}}.Build(),
	}.Build())
	req := b.send(answer(g, true))
	until(t, "the acceptance waits", func() bool { return f.world.waiting.Load() > 0 })
	f.world.release()
	b.refused(b.answer(req), wirev1.Code_CODE_GROUP_FULL)
	if f.world.isMember(g, b.user) || f.world.inList(b.user, g) {
		t.Error("it is in his list")
	}
	// Now this edge knows that it is full: nothing is touched.
	before := len(f.world.log())
	b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_GROUP_FULL)
	if n := len(f.world.log()) - before; n != 0 {
		t.Errorf("%d events were appended", n)
	}
	if !f.world.isInvited(g, b.user) {
		t.Error("he is not invited any more")
	}
	a.acked(remove(g, last))
	b.acked(answer(g, true)) // once there is room
}

// What was withdrawn, or ended in a way that nobody told the user, cannot be accepted; and his list is as it was.
func TestEndedInvitationIsNotAccepted(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.acked(invite(g, b.user))
	a.acked(withdraw(g, b.user))
	a.acked(withdraw(g, b.user))
	if told := b.told(); len(told) != 2 || !told[1].GetEnded() {
		t.Errorf("pushed %v", told)
	}
	b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_NOT_A_MEMBER)
	a.acked(invite(g, b.user))
	f.world.append(topic.Threads, topic.Subject(g), eventv1.Event_builder{ // the one who did fails then
		UserId: a.user[:], InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: b.user[:]}.Build(),
	}.Build())
	b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_NOT_ALLOWED)
	if f.world.isMember(g, b.user) || f.world.inList(b.user, g) || len(b.invitations()) != 0 {
		t.Error("it is in his list, or among his invitations")
	}
	a.acked(withdraw(g, a.user)) // of a member there is none
	a.refused(a.ask(withdraw(g, id.UserID{1})), wirev1.Code_CODE_UNKNOWN_USER)
	b.refused(b.ask(answer(g, true)), wirev1.Code_CODE_NOT_ALLOWED) // his list has had it
}

// A group has so many invited at one time.
func TestInvitationsIntoAGroupAreBounded(t *testing.T) {
	f := start(t, nil)
	a := f.inviting(t, "+491")
	var crowd []id.UserID
	f.world.mu.Lock()
	for k := range thread.MaxInvited + 1 {
		crowd = append(crowd, id.UserID{1, byte(k >> 8), byte(k)})
		f.world.users[crowd[k]] = true
	}
	f.world.mu.Unlock()
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.refused(a.ask(invite(g, crowd...)), wirev1.Code_CODE_GROUP_FULL)
	a.acked(invite(g, crowd[1:]...))
	a.refused(a.ask(invite(g, crowd[0])), wirev1.Code_CODE_GROUP_FULL)
	if n := f.world.events((*eventv1.Event).HasThreadInvited); n != thread.MaxInvited {
		t.Errorf("%d were told", n)
	}
}

// Who may do what with the invitations of a group.
func TestWhoMayInvite(t *testing.T) {
	f := start(t, nil)
	admin, member, stranger := f.inviting(t, "+491"), f.inviting(t, "+492"), f.inviting(t, "+493")
	invited, former, blocked := f.inviting(t, "+494"), f.inviting(t, "+495"), f.inviting(t, "+496")
	declined, withdrawn, guest := f.inviting(t, "+497"), f.inviting(t, "+498"), f.inviting(t, "+499")
	g := id.NewGroup()
	admin.acked(createGroup(g, member.user, former.user))
	admin.acked(remove(g, former.user))
	admin.acked(invite(g, invited.user, declined.user, withdrawn.user))
	declined.acked(answer(g, false))
	admin.acked(withdraw(g, withdrawn.user))
	admin.done(block(blocked.user, true))
	const ack, done = wirev1.Code_CODE_UNSPECIFIED, wirev1.Code(-1)
	const notAllowed, notMember = wirev1.Code_CODE_NOT_ALLOWED, wirev1.Code_CODE_NOT_A_MEMBER
	for _, x := range []struct {
		name                              string
		by                                *device
		invite, withdraw, decline, accept wirev1.Code
	}{
		{"member", member, notAllowed, notAllowed, done, ack},
		{"stranger", stranger, notMember, notMember, done, notMember},
		{"blocked", blocked, notMember, notMember, done, notMember},
		{"former member", former, notMember, notMember, done, notAllowed},
		{"who declined", declined, notMember, notMember, done, notMember},
		{"withdrawn", withdrawn, notMember, notMember, done, notMember},
		{"admin", admin, ack, ack, done, ack},
		{"invited", invited, notMember, notMember, ack, notMember},
	} {
		check := func(what string, b frameOf, want wirev1.Code) {
			t.Helper()
			before := len(f.world.log())
			got := x.by.ask(b)
			if n := len(f.world.log()) - before; n > 0 && want != ack {
				t.Errorf("%s by %s: %d events were appended", what, x.name, n)
			}
			if got.GetError().GetCode() != max(want, 0) || got.HasAck() != (want == ack) ||
				got.HasDone() != (want == done) {
				t.Errorf("%s by %s: %v, want %v", what, x.name, got, want)
			}
		}
		check("invite", invite(g, guest.user), x.invite)
		if f.world.isInvited(g, guest.user) != (x.invite == ack) {
			t.Errorf("invited by %s: %v", x.name, f.world.isInvited(g, guest.user))
		}
		check("withdraw", withdraw(g, guest.user), x.withdraw)
		check("withdraw", withdraw(g, invited.user), x.withdraw)
		if x.withdraw == ack {
			admin.acked(invite(g, invited.user))
		}
		check("decline", answer(g, false), x.decline)
		check("accept", answer(g, true), x.accept)
		if !f.world.isInvited(g, invited.user) && x.by != invited {
			t.Fatalf("%s ended the invitation of another", x.name)
		}
		if n := x.by.invitations(); len(n) != 0 {
			t.Errorf("%s is invited into %v", x.name, n)
		}
	}
	admin.acked(invite(g, blocked.user)) // whom he has blocked himself
	blocked.acked(answer(g, true))
}

// Who was away when he was invited asks for it once he is back.
func TestInvitationsAreListedAfterSync(t *testing.T) {
	f := start(t, nil)
	a, b := f.inviting(t, "+491"), f.inviting(t, "+492")
	if err := b.conn.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	until(t, "he is away", func() bool { return f.Sessions() == 1 })
	g := id.NewGroup()
	a.acked(createGroup(g))
	a.acked(invite(g, b.user))
	back := f.again(t, b).sync()
	if got, told := back.invitations(), back.told(); !slices.Equal(got, []id.ThreadID{g}) || len(told) != 0 {
		t.Errorf("listed %v, pushed %v", got, told)
	}
	// one that this edge does not know of, since it is behind the view
	f.world.mu.Lock()
	f.world.blind = true
	f.world.mu.Unlock()
	back.acked(answer(g, true))
}

// The client's part: what cannot be added is named, an invitation comes as an event, and each call does what it says.
func TestClientInvites(t *testing.T) {
	f := start(t, nil)
	a, b := f.join(t, "+491"), f.join(t, "+492")
	ann, _ := a.Identity()
	bob, _ := b.Identity()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.SetMayAdd(ctx, client.Nobody))
	g, err := a.CreateGroup(ctx, "walk")
	must(err)
	var refused *wire.Error
	if err := a.AddMembers(ctx, g, bob.User); !errors.As(err, &refused) ||
		refused.Code != wirev1.Code_CODE_NOT_ADDABLE || !slices.Equal(refused.Users, []id.UserID{bob.User}) {
		t.Fatalf("adding got %v", err)
	}
	var last client.Invitation
	invited := func() client.Invitation { // the next
		last = awaited(t, b, func(i client.Invitation) bool { return i != last })
		return last
	}
	must(a.Invite(ctx, g, bob.User))
	i := invited()
	if i.Thread != g || i.Title != "walk" || i.Inviter != ann.User || i.Ended || i.Time.IsZero() {
		t.Errorf("event %+v", i)
	}
	must(a.WithdrawInvitation(ctx, g, bob.User))
	if i := invited(); i.Thread != g || !i.Ended {
		t.Errorf("event %+v", i)
	}
	must(a.Invite(ctx, g, bob.User))
	invited()
	must(b.AnswerInvitation(ctx, g, false))
	invited()
	must(a.Invite(ctx, g, bob.User))
	again := invited()
	if all, err := b.Invitations(ctx); err != nil || !slices.Equal(all, []client.Invitation{again}) {
		t.Errorf("invitations %v, %v; want %v", all, err, again)
	}
	must(b.AnswerInvitation(ctx, g, true))
	if !f.world.isMember(g, bob.User) {
		t.Error("who accepted is no member")
	}
	must(b.SetBlocked(ctx, ann.User, true))
	got, err := b.Settings(ctx)
	must(err)
	want := client.Settings{MayAdd: client.Nobody, Blocked: []id.UserID{ann.User}}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("settings (-got +want):\n%s", d)
	}
	must(b.SetBlocked(ctx, ann.User, false))
}
