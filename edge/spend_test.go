package edge

import (
	"testing"

	"heliograph/edge/auth"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// Whatever a user has appended to the log, that is kept for ever and pushed to others, is taken from what he may do in
// a day over all edges; when that is used up nothing is appended.
func TestWhatIsKeptForEverHasABudget(t *testing.T) {
	type frame = wirev1.ClientFrame_builder
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g, further := id.NewGroup(), id.NewGroup()
	create := func(g id.ThreadID, members ...id.UserID) frame {
		raw := make([][]byte, len(members))
		for k := range members {
			raw[k] = members[k][:]
		}
		return frame{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g", MemberIds: raw}.Build()}
	}
	if got := a.ask(create(g, b.user)); !got.HasAck() {
		t.Fatalf("got %v", got)
	}
	d, invited := f.dial(t).register("+494").sync(), id.NewGroup()
	a.acked(create(invited))
	a.acked(invite(invited, d.user))
	linked := id.NewDevice()
	for name, x := range map[string]struct {
		what auth.Spending
		n    int
		by   *device
		ask  frame
	}{
		"a group":     {auth.Groups, 1, a, create(further)},
		"its members": {auth.Additions, 2, a, create(further, b.user, c.user)},
		"further ones": {auth.Additions, 1, a, frame{
			AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{c.user[:]}}.Build(),
		}},
		"a removal": {auth.Changes, 1, a, frame{
			RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: b.user[:]}.Build(),
		}},
		"leaving": {auth.Changes, 1, b, frame{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}},
		"a title": {auth.Changes, 1, a, frame{
			RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: "h"}.Build(),
		}},
		"a role": {auth.Changes, 1, a, frame{
			SetRole: wirev1.SetRole_builder{ThreadId: g[:], MemberId: b.user[:], Role: 2}.Build(),
		}},
		"invitations":   {auth.Additions, 2, a, invite(g, c.user, d.user)},
		"an acceptance": {auth.Changes, 1, d, answer(invited, true)},
		"a declining":   {auth.Changes, 1, d, answer(invited, false)},
		"a withdrawal":  {auth.Changes, 1, a, withdraw(invited, d.user)},
		"who may add":   {auth.Settings, 1, a, mayAdd(eventv1.MayAdd_MAY_ADD_NOBODY)},
		"a block":       {auth.Settings, 1, a, block(b.user, true)},
		"a name":        {auth.Profile, 1, a, frame{SetProfile: wirev1.SetProfile_builder{Name: "Ann"}.Build()}},
		"a device": {auth.Profile, 1, a, frame{
			LinkDevice: wirev1.LinkDevice_builder{DeviceId: linked[:], PublicKey: make([]byte, 32)}.Build(),
		}},
	} {
		f.world.mu.Lock()
		f.world.broke, f.world.spent = x.what, nil
		f.world.mu.Unlock()
		before := len(f.world.log())
		x.by.refused(x.by.ask(x.ask), wirev1.Code_CODE_RATE_LIMITED)
		if n := len(f.world.log()); n != before {
			t.Errorf("%s: %d events were appended over the budget", name, n-before)
		}
		f.world.mu.Lock()
		if got := f.world.spent[x.what]; got != x.n {
			t.Errorf("%s costs %d, want %d", name, got, x.n)
		}
		f.world.mu.Unlock()
	}
}

// Nobody is put into a group by somebody whom he has blocked.
func TestTheBlockedAddNobody(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	f.world.mu.Lock()
	f.world.person(b.user).Blocked[a.user] = true
	f.world.mu.Unlock()
	create := func(g id.ThreadID, members ...[]byte) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{
			CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g", MemberIds: members}.Build(),
		}
	}
	add := func(g id.ThreadID, member []byte) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{
			AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{member}}.Build(),
		}
	}
	before := len(f.world.log())
	g := id.NewGroup()
	a.refused(a.ask(create(g, b.user[:], c.user[:])), wirev1.Code_CODE_NOT_ALLOWED)
	if n := len(f.world.log()); n != before {
		t.Errorf("%d events were appended", n-before)
	}
	if got := a.ask(create(g, c.user[:])); !got.HasAck() {
		t.Fatalf("without the one who blocked her: %v", got)
	}
	a.refused(a.ask(add(g, b.user[:])), wirev1.Code_CODE_NOT_ALLOWED)
	if got := b.ask(create(id.NewGroup(), a.user[:])); !got.HasAck() {
		t.Errorf("by the one who blocked: %v", got)
	}
}

// Revoking what is no device of the user's, or is revoked already, is no event, however often it is asked for.
func TestARevocationOfNothingIsNotAppended(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	before := len(f.world.log())
	for range 10 {
		d := id.NewDevice()
		got := a.ask(wirev1.ClientFrame_builder{RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: d[:]}.Build()})
		if !got.HasDone() {
			t.Fatalf("got %v", got)
		}
	}
	if n := len(f.world.log()); n != before {
		t.Errorf("%d events were appended", n-before)
	}
}

// A message costs its sender one delivery for each member of the thread.
func TestDeliveriesCount(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.PushesPerDay = 4 })
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g := id.NewGroup()
	if got := a.ask(wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{
			ThreadId: g[:], Title: "g", MemberIds: [][]byte{b.user[:], c.user[:]},
		}.Build(),
	}); !got.HasAck() {
		t.Fatalf("got %v", got)
	}
	send := func() *wirev1.ServerFrame {
		m := id.NewMessage()
		return a.ask(wirev1.ClientFrame_builder{
			SendMessage: wirev1.SendMessage_builder{ThreadId: g[:], MessageId: m[:], Content: text("x")}.Build(),
		})
	}
	if got := send(); !got.HasAck() {
		t.Fatalf("3 deliveries of 4: %v", got)
	}
	got := send().GetError()
	if got.GetCode() != wirev1.Code_CODE_RATE_LIMITED || got.GetRetryAfterMs() == 0 {
		t.Errorf("3 more: %v", got)
	}
	if got := a.ask(direct(a, b, "hi")); !got.HasAck() {
		t.Errorf("one that there is: %v", got)
	}
}
