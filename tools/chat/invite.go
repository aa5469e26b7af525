package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// ownMsg is what the server has of the own user beside his chats.
type ownMsg struct {
	invitations []client.Invitation
	settings    client.Settings
	err         error
}

// loadOwn asks for invitations and settings, as of a server that has them.
func (m *Model) loadOwn() tea.Cmd {
	return func() tea.Msg {
		var msg ownMsg
		if msg.invitations, msg.err = m.client.Invitations(m.ctx); msg.err == nil {
			msg.settings, msg.err = m.client.Settings(m.ctx)
		}
		return msg
	}
}

func (m *Model) gotOwn(msg ownMsg) {
	if msg.err != nil {
		if !errors.Is(msg.err, &wire.Error{Code: wirev1.Code_CODE_UNKNOWN_REQUEST}) {
			m.say(true, "invitations: "+Words(msg.err, m.cfg.now()))
		}
		return
	}
	m.invitations, m.settings = msg.invitations, msg.settings
}

// invited takes an invitation that was pushed, or the end of one.
func (m *Model) invited(i client.Invitation) {
	m.uninvited(i.Thread)
	if i.Ended {
		return
	}
	m.invitations = slices.Insert(m.invitations, 0, i)
	m.say(false, fmt.Sprintf("%s invites you to “%s”: ctrl+y answers", m.name(i.Inviter), CleanLine(i.Title)))
}

func (m *Model) uninvited(t id.ThreadID) {
	m.invitations = slices.DeleteFunc(m.invitations, func(i client.Invitation) bool { return i.Thread == t })
}

// askAnswer shows one of the invitations.
func (m *Model) askAnswer(at int) tea.Cmd {
	n := len(m.invitations)
	if n == 0 {
		m.say(false, "there are no invitations")
		return nil
	}
	i := m.invitations[at%n]
	f := &form{
		title: fmt.Sprintf("%s invites you to “%s”", m.name(i.Inviter), CleanLine(i.Title)), doing: "answering",
		hint: []string{m.day(i.Time) + " " + m.clock(i.Time)},
	}
	keys := "enter accepts · d declines · esc leaves it open"
	if n > 1 {
		keys = fmt.Sprintf("enter accepts · d declines · n shows the next of %d · esc leaves it open", n)
	}
	f.hint = append(f.hint, keys)
	answer := func(accept bool) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			err := m.client.AnswerInvitation(ctx, i.Thread, accept)
			if errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_ALLOWED}) ||
				errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) {
				err = errors.New("the invitation was taken back")
			}
			return func() tea.Cmd { return m.answered(i, accept) }, err
		})
	}
	f.submit = func([]string) tea.Cmd { return answer(true) }
	f.keys = map[string]func() tea.Cmd{
		"d": func() tea.Cmd { f.busy, f.err = f.doing, ""; return answer(false) },
		"n": func() tea.Cmd { return m.askAnswer(at + 1) },
	}
	return m.ask(f)
}

func (m *Model) answered(i client.Invitation, accepted bool) tea.Cmd {
	m.uninvited(i.Thread)
	m.closeForm()
	if !accepted {
		return nil
	}
	c := m.conversation(i.Thread)
	c.group, c.member = true, true
	if c.title == "" {
		c.title = CleanLine(i.Title)
	}
	return m.show(c)
}

// askInvite asks for whom to invite into a group.
func (m *Model) askInvite(c *conversation) tea.Cmd {
	f := &form{
		title: "Invite to " + m.title(c), doing: "inviting",
		hint:   []string{"Phone numbers with + or names, separated by commas.", "enter invites · esc closes"},
		fields: []field{m.newField("People", "+49 1512 3456789, Bob", "", 2000)},
	}
	f.submit = func(v []string) tea.Cmd {
		if v[0] == "" {
			return nil
		}
		find := m.finder()
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			people, err := find(ctx, v[0])
			if err == nil {
				err = m.client.Invite(ctx, c.id, ids(people)...)
			}
			return func() tea.Cmd { m.meet(people); m.closeForm(); return m.loadThread(c.id) }, err
		})
	}
	return m.ask(f)
}

// unaddable returns whom an error names who can only be invited.
func unaddable(err error) []id.UserID {
	var we *wire.Error
	if errors.As(err, &we) && we.Code == wirev1.Code_CODE_NOT_ADDABLE {
		return we.Users
	}
	return nil
}

// without returns people but for some.
func without(people []person, users []id.UserID) []id.UserID {
	return slices.DeleteFunc(ids(people), func(u id.UserID) bool { return slices.Contains(users, u) })
}

// askInviteThose offers to invite those who cannot be put into a group, where the others are put into it; do does both.
func (m *Model) askInviteThose(
	users []id.UserID, do func(ctx context.Context) (t id.ThreadID, err error), then func(t id.ThreadID) tea.Cmd,
) tea.Cmd {
	f := &form{
		title: m.namesOf(users, id.UserID{}) + " cannot be added", doing: "inviting",
		hint: []string{"They can be invited, and decide by themselves.", "enter invites them · esc closes"},
	}
	f.submit = func([]string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			t, err := do(ctx)
			return func() tea.Cmd { m.closeForm(); return then(t) }, err
		})
	}
	return m.ask(f)
}

// create makes a group of those who can be put into it, and invites the others.
func (m *Model) create(ctx context.Context, title string, add, invite []id.UserID) (id.ThreadID, error) {
	t, err := m.client.CreateGroup(ctx, title, add...)
	if err == nil && len(invite) > 0 {
		err = m.client.Invite(ctx, t, invite...)
	}
	return t, err
}

// created opens a group that was just made.
func (m *Model) created(t id.ThreadID, title string) tea.Cmd {
	c := m.conversation(t)
	c.group, c.title, c.role = true, title, eventv1.Role_ROLE_ADMIN
	c.loaded = true // it is new: all of it comes live
	return m.show(c)
}

func (m *Model) askWithdraw(c *conversation, u id.UserID) tea.Cmd {
	f := &form{
		title: fmt.Sprintf("Take back the invitation of %s?", m.name(u)), doing: "taking it back",
		hint: []string{"enter takes it back · esc closes"},
	}
	f.submit = func([]string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			err := m.client.WithdrawInvitation(ctx, c.id, u)
			return func() tea.Cmd { m.closeForm(); return m.loadThread(c.id) }, err
		})
	}
	return m.ask(f)
}

// askBlock asks whether to block a user, or to unblock one.
func (m *Model) askBlock(u id.UserID) tea.Cmd {
	blocked := slices.Contains(m.settings.Blocked, u)
	f := &form{
		title: fmt.Sprintf("Block %s?", m.name(u)), doing: "blocking",
		hint: []string{
			"They are not told, and can neither add you to groups nor invite you.", "enter blocks · esc closes",
		},
	}
	if blocked {
		f.title, f.doing = fmt.Sprintf("Unblock %s?", m.name(u)), "unblocking"
		f.hint = []string{"enter unblocks · esc closes"}
	}
	f.submit = func([]string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			err := m.client.SetBlocked(ctx, u, !blocked)
			return func() tea.Cmd { m.closeForm(); return m.loadOwn() }, err
		})
	}
	return m.ask(f)
}

// askSettings shows the settings, and changes who may add the user to groups.
func (m *Model) askSettings() tea.Cmd {
	now, next, hint := "everybody", client.Nobody, "enter lets others only invite you · esc closes"
	if m.settings.MayAdd == client.Nobody {
		now, next, hint = "nobody", client.Everybody, "enter lets everybody add you · esc closes"
	}
	f := &form{title: "Who may add you to groups: " + now, doing: "saving"}
	if len(m.settings.Blocked) > 0 {
		f.hint = append(f.hint, "Blocked: "+m.namesOf(m.settings.Blocked, id.UserID{}))
	}
	f.hint = append(f.hint, hint)
	f.submit = func([]string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			return func() tea.Cmd { m.settings.MayAdd = next; return m.askSettings() }, m.client.SetMayAdd(ctx, next)
		})
	}
	return m.ask(f)
}

// invitationsLine is what the head of the list says of invitations.
func (m *Model) invitationsLine() string {
	s := "s"
	if len(m.invitations) == 1 {
		s = ""
	}
	return fmt.Sprintf(" %d invitation%s · ctrl+y", len(m.invitations), s)
}

// invite notes that users are invited into the group.
func (c *conversation) invite(users ...id.UserID) {
	for _, u := range users {
		in := slices.ContainsFunc(c.members, func(m member) bool { return m.user == u })
		if !in && !slices.Contains(c.invited, u) {
			c.invited = append(c.invited, u)
		}
	}
}

func (c *conversation) uninvite(users ...id.UserID) {
	c.invited = slices.DeleteFunc(c.invited, func(u id.UserID) bool { return slices.Contains(users, u) })
}

// inviteNote says what happened to an invitation into a group; empty for another event.
func (m *Model) inviteNote(it *item) string {
	switch actor, e := m.who(it.sender), it.event; e.WhichBody() {
	case eventv1.Event_MemberInvited_case:
		invited := idsOf(e.GetMemberInvited().GetMemberIds())
		return strings.TrimSpace(actor + " invited " + m.namesOf(invited, id.UserID{}))
	case eventv1.Event_InvitationAccepted_case:
		return actor + " accepted the invitation"
	case eventv1.Event_InvitationDeclined_case:
		return actor + " declined the invitation"
	case eventv1.Event_InvitationWithdrawn_case:
		who := m.namesOf(idsOf([][]byte{e.GetInvitationWithdrawn().GetMemberId()}), id.UserID{})
		return actor + " took back the invitation of " + who
	default:
		return ""
	}
}
