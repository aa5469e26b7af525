package chat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

var dance = id.ThreadID{6: 0x70, 8: 0x80, 15: 10}

// did are the calls of a kind, in order.
func (s *screen) did(kinds ...string) (out []string) {
	for _, c := range s.f.calls {
		if kind, _, _ := strings.Cut(c, " "); slices.Contains(kinds, kind) {
			out = append(out, c)
		}
	}
	return out
}

func (s *screen) shows(words ...string) {
	s.t.Helper()
	flat := strings.Join(strings.Fields(s.text()), " ")
	for _, w := range words {
		if !strings.Contains(flat, w) {
			s.t.Errorf("the screen does not say %q:\n%s", w, s.text())
		}
	}
}

// TestInvitations: those that are open at the start and that come live are shown, and answered one by one.
func TestInvitations(t *testing.T) {
	f := village()
	f.invitations = []client.Invitation{
		{Thread: group, Title: "Sunday walk 散歩", Inviter: carl, Time: noon.Add(-time.Hour)},
	}
	s := newScreen(t, f, 80, 24)
	s.live()
	s.shows("1 invitation · ctrl+y")
	s.events(client.Invitation{Thread: dance, Title: "Dance\x1b[2J", Inviter: bob, Time: noon})
	s.golden("invited-80x24")
	s.keys("ctrl+y")
	s.golden("invitation-80x24")
	s.keys("n")
	s.shows("Carl 王 invites you to “Sunday walk 散歩”")
	s.keys("d")
	s.shows("1 invitation · ctrl+y")
	s.keys("ctrl+y", "enter")
	if c := s.m.open; c == nil || c.id != dance || !c.member || strings.Contains(c.title, "\x1b") {
		t.Errorf("the group is not open: %+v", c)
	}
	if d := cmp.Diff(s.did("accept"), []string{"accept false", "accept true"}); d != "" {
		t.Errorf("calls (-got +want):\n%s", d)
	}
	s.keys("ctrl+y")
	s.shows("there are no invitations")
	// one that ends by another device, and one that was taken back meanwhile
	s.events(client.Invitation{Thread: group, Title: "a", Inviter: carl, Time: noon})
	s.events(client.Invitation{Thread: group, Ended: true})
	if len(s.m.invitations) != 0 {
		t.Errorf("invitations %v", s.m.invitations)
	}
	s.events(client.Invitation{Thread: group, Title: "a", Inviter: carl, Time: noon})
	f.answering = &wire.Error{Code: wirev1.Code_CODE_NOT_ALLOWED}
	s.keys("ctrl+y", "enter")
	s.shows("the invitation was taken back")
}

// TestInviting: whom the server does not let be added is invited instead, when that is wanted.
func TestInviting(t *testing.T) {
	f := village()
	f.unaddable = []id.UserID{carl}
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("down", "enter", "ctrl+o", "a", "+4915100000002, +4915100000003", "enter")
	s.golden("unaddable-80x24")
	s.keys("enter", "ctrl+g", "Chess", "enter", "Bob, Carl 王", "enter")
	s.shows("Carl 王 cannot be added")
	s.keys("enter")
	want := []string{"add 2", "add 1", "invite Carl 王", "group Chess 2", "group Chess 1", "invite Carl 王"}
	if d := cmp.Diff(s.did("add", "group", "invite"), want); d != "" {
		t.Errorf("calls (-got +want):\n%s", d)
	}
}

// TestInvitedInPanel: the members' panel shows who is invited, and takes invitations back.
func TestInvitedInPanel(t *testing.T) {
	f := village()
	dora := userN(4)
	f.names[dora] = "Dora"
	f.users["+4915100000004"] = dora
	f.members[group].SetInvited([]*wirev1.Invitee{
		wirev1.Invitee_builder{UserId: dora[:], Name: "Dora", InviterId: ann[:]}.Build(),
	})
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("down", "enter", "ctrl+o", "v", "+4915100000004", "enter")
	s.golden("invitee-80x24")
	s.keys("down", "down", "down", "d")
	s.shows("Take back the invitation of Dora?")
	s.keys("enter")
	if d := cmp.Diff(s.did("invite", "withdraw", "remove"), []string{"invite Dora", "withdraw Dora"}); d != "" {
		t.Errorf("calls (-got +want):\n%s", d)
	}
}

// TestInvitationNotes: what happens to invitations is said in the group, and moves its members.
func TestInvitationNotes(t *testing.T) {
	f := village()
	dora, emil := userN(4), userN(5)
	f.names[dora], f.names[emil] = "Dora", "Emil"
	s := newScreen(t, f, 80, 24)
	s.live()
	s.keys("down", "enter")
	f.members = map[id.ThreadID]*wirev1.Thread{} // the view has nothing of it yet
	type b = eventv1.Event_builder
	for k, e := range []b{
		{UserId: ann[:], MemberInvited: eventv1.MemberInvited_builder{
			MemberIds: [][]byte{dora[:], emil[:], carl[:]},
		}.Build()},
		{UserId: dora[:], InvitationAccepted: &eventv1.InvitationAccepted{}},
		{UserId: emil[:], InvitationDeclined: &eventv1.InvitationDeclined{}},
		{UserId: ann[:], MemberInvited: eventv1.MemberInvited_builder{MemberIds: [][]byte{emil[:]}}.Build()},
		{UserId: ann[:], InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: emil[:]}.Build()},
	} {
		s.events(note(group, 40+k, 2, noon, e.Build()))
	}
	s.golden("invitation-notes-80x24")
	c := s.m.open
	if !slices.ContainsFunc(c.members, func(m member) bool { return m.user == dora }) || len(c.invited) != 0 ||
		c.count != 4 {
		t.Errorf("members %v of %d, invited %v", c.members, c.count, c.invited)
	}
}

// TestBlocking: a person is blocked and unblocked from the panel, and the settings say so.
func TestBlocking(t *testing.T) {
	s := newScreen(t, village(), 80, 24)
	s.live()
	s.keys("enter", "ctrl+o", "b")
	s.shows("choose whom to block")
	s.keys("down", "b")
	s.golden("block-80x24")
	s.keys("enter", "ctrl+p", "enter")
	s.golden("settings-80x24")
	s.keys("enter", "esc", "b")
	s.shows("Unblock Bob?")
	s.keys("enter")
	want := []string{"block Bob true", "nobody may add true", "nobody may add false", "block Bob false"}
	if d := cmp.Diff(s.did("block", "nobody"), want); d != "" {
		t.Errorf("calls (-got +want):\n%s", d)
	}
}
