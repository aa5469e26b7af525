package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"heliograph/edge/auth"
	"heliograph/edge/replica"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// inviteMembers (wire 16.2, 16.3) invites into the thread first, whose fold alone says who is invited, and then tells
// those whom it invited, but for those who have blocked the inviter. Who was invited already is told only if his list
// does not have it: between the two something may have failed. It is appended also when this edge has them all as
// invited, since an acknowledged invitation must be one.
func (s *Session) inviteMembers(ctx context.Context, r *wirev1.InviteMembers) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	t, v, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return none, err
	}
	if len(r.GetMemberIds()) == 0 {
		return none, invalid("member_ids is empty")
	}
	who, err := users(r.GetMemberIds(), v.Roster.IsMember)
	switch {
	case err != nil:
		return none, err
	case len(who) == 0:
		return s.was(t, v), nil
	case len(who) > thread.MaxInvited:
		return none, wire.Errorf(wirev1.Code_CODE_GROUP_FULL, "at most %d are invited at one time", thread.MaxInvited)
	}
	if err := s.mayJoin(len(who)); err != nil {
		return none, err
	}
	if err := s.allExist(ctx, who); err != nil {
		return none, err
	}
	if err := s.spend(ctx, auth.Additions, len(who)); err != nil {
		return none, err
	}
	deaf, err := s.asking.BlockedBy(ctx, s.user, who)
	if err != nil {
		return none, err
	}
	again := slices.DeleteFunc(slices.Clone(who), func(u id.UserID) bool { return !v.Roster.IsInvited(u) })
	aware, err := s.aware(ctx, t, again)
	if err != nil {
		return none, err
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{
		MemberInvited: eventv1.MemberInvited_builder{MemberIds: rawUsers(who)}.Build(),
	})
	var cause *eventv1.Cause
	switch {
	case errors.Is(err, rejection{thread.Exists}): // they all are invited already, or members by now
		if out = s.was(t, v); len(again) < len(who) { // somebody was faster
			if aware, err = s.aware(ctx, t, who); err != nil {
				return none, err
			}
		}
	case err != nil:
		return none, err
	default:
		cause = causeOf(out.Ack)
	}
	if now, ok := s.srv.replica.View(t); ok {
		v = now
	}
	told := slices.DeleteFunc(who, func(u id.UserID) bool {
		return slices.Contains(deaf, u) || slices.Contains(aware, u) || v.Roster.IsMember(u)
	})
	return out, s.inform(ctx, told, eventv1.Event_builder{
		Cause: cause, ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: t[:], Title: v.Title}.Build(),
	})
}

// aware returns those of some users whose lists have an invitation into a thread, once the views have what this
// connection has told them.
func (s *Session) aware(ctx context.Context, t id.ThreadID, users []id.UserID) ([]id.UserID, error) {
	if len(users) == 0 {
		return nil, nil
	}
	n := replica.Needs{}
	s.mu.Lock()
	for _, u := range users {
		part := replica.Part{Topic: topic.Users, Slot: topic.SlotOf(topic.Subject(u), s.srv.cfg.Partitions)}
		if at, known := s.told[part]; known {
			n.Add(part.Topic, part.Slot, at)
		}
	}
	s.mu.Unlock()
	if err := s.past(ctx, n); err != nil {
		return nil, err
	}
	return s.asking.InvitedTo(ctx, t, users)
}

// inform appends an event to the subjects of some users, on behalf of the session's own.
func (s *Session) inform(ctx context.Context, users []id.UserID, b eventv1.Event_builder) error {
	b.UserId, b.DeviceId = s.user[:], s.device[:]
	ev := b.Build()
	got, err := s.appendAll(ctx, topic.Users, users, ev)
	if err != nil {
		return fmt.Errorf("append to users: %w", err)
	}
	s.mu.Lock()
	if s.told == nil {
		s.told = replica.Needs{}
	}
	for _, r := range got {
		note(s.told, topic.Users, r.Slot, r.Position)
	}
	s.mu.Unlock()
	for k, u := range users {
		if u == s.user {
			s.acknowledged(topic.Users, got[k].Slot, got[k].Position)
		}
	}
	return nil
}

// uninvite tells a user that an invitation is none any more, after the event that ended it: cause, nil when this edge
// does not know its place any more.
func (s *Session) uninvite(ctx context.Context, t id.ThreadID, u id.UserID, cause *eventv1.Cause) error {
	return s.inform(ctx, []id.UserID{u}, eventv1.Event_builder{
		Cause:                 cause,
		ThreadInvitationEnded: eventv1.ThreadInvitationEnded_builder{ThreadId: t[:]}.Build(),
	})
}

// withdrawInvitation (wire 16.7) takes an invitation back, also one that this edge does not know of: another may just
// have made it, and an acknowledged withdrawal must be one.
func (s *Session) withdrawInvitation(
	ctx context.Context, r *wirev1.WithdrawInvitation,
) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	t, v, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return none, err
	}
	u, err := userID("member_id", r.GetMemberId())
	if err != nil {
		return none, err
	}
	if v.Roster.IsMember(u) {
		return s.was(t, v), nil
	}
	if !v.Roster.IsInvited(u) {
		if err := s.exists(ctx, u); err != nil {
			return none, err
		}
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return none, err
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{
		InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: u[:]}.Build(),
	})
	switch {
	case errors.Is(err, rejection{thread.Missing}): // he is not invited, and may not know of it yet
		return s.was(t, v), s.uninvite(ctx, t, u, nil)
	case err != nil:
		return none, err
	}
	return out, s.uninvite(ctx, t, u, causeOf(out.Ack))
}

// answerInvitation (wire 16.5, 16.6) looks for the invitation where the user has it: of a group into which he has none
// this edge loads nothing for him.
func (s *Session) answerInvitation(
	ctx context.Context, r *wirev1.AnswerInvitation,
) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	t, err := threadID(r.GetThreadId())
	if err != nil {
		return none, err
	}
	if !t.IsGroup() {
		return none, invalid("thread_id is not a group's")
	}
	open, err := s.hasInvitation(ctx, t)
	switch {
	case err != nil:
		return none, err
	case r.GetAccept():
		return s.accept(ctx, t, open)
	case !open && !s.srv.replica.Listed(s.user, t):
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil
	}
	return s.decline(ctx, t, open)
}

// hasInvitation tells whether the session's user has an open invitation, by what this edge has read of him, or by the
// view, which may be ahead of that.
func (s *Session) hasInvitation(ctx context.Context, t id.ThreadID) (bool, error) {
	if s.srv.replica.Invited(s.user, t) {
		return true, nil
	}
	found, err := s.asking.InvitedTo(ctx, t, []id.UserID{s.user})
	return len(found) > 0, err
}

// accept makes the session's user a member. open: he has the invitation still; else an earlier try may have begun what
// ends it for him (ThreadJoined), and the thread alone knows.
func (s *Session) accept(ctx context.Context, t id.ThreadID, open bool) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	if v, ok := s.srv.replica.View(t); ok && v.Roster.IsMember(s.user) {
		return s.was(t, v), s.endFor(ctx, t, open)
	}
	if !open && !s.srv.replica.Listed(s.user, t) {
		return none, notMember()
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return none, err
	}
	if err := s.srv.replica.EnsureThread(ctx, t); err != nil {
		return none, err
	}
	switch v, ok := s.srv.replica.View(t); {
	case !ok:
		return none, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the thread cannot be looked at now")
	case v.Quarantined:
		return none, parked()
	case v.Roster.IsMember(s.user):
		return s.was(t, v), s.endFor(ctx, t, open)
	case !open && !v.Roster.IsInvited(s.user):
		return none, notInvited()
	case v.ActiveMembers >= thread.MaxMembers: // before the list is touched: he stays invited
		return none, fullGroup()
	}
	switch not, err := s.asking.Unaddable(ctx, s.user, []id.UserID{s.user}); {
	case err != nil:
		return none, err
	case len(not) > 0:
		return none, tooMany()
	}
	if err := s.join(ctx, t, []id.UserID{s.user}, notNew); err != nil {
		return none, err
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{InvitationAccepted: &eventv1.InvitationAccepted{}})
	var no rejection
	switch {
	case errors.Is(err, rejection{thread.Exists}): // somebody has added him, or another device was faster
		if v, ok := s.srv.replica.View(t); ok {
			return s.was(t, v), nil
		}
	case errors.As(err, &no):
		if err := s.unlist(ctx, t, s.user, nil); err != nil {
			return none, err
		}
		if no.reason != thread.Full {
			return none, notInvited()
		}
	}
	return out, err
}

func notInvited() *wire.Error {
	return wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "not invited any more")
}

// endFor ends an invitation, if it is open, into a thread that its user is a member of.
func (s *Session) endFor(ctx context.Context, t id.ThreadID, open bool) error {
	if !open {
		return nil
	}
	return s.uninvite(ctx, t, s.user, nil)
}

// decline ends the invitation of the session's user. One that an earlier try to accept has taken off his list, and not
// carried out, is in the thread still: then the thread is taken off his list too.
func (s *Session) decline(ctx context.Context, t id.ThreadID, open bool) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return none, err
	}
	if err := s.srv.replica.EnsureThread(ctx, t); err != nil {
		return none, err
	}
	switch v, ok := s.srv.replica.View(t); {
	case ok && v.Roster.IsMember(s.user):
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, s.endFor(ctx, t, open)
	case ok && v.Roster.WasMember(s.user) && !open && !v.Roster.IsInvited(s.user):
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil
	case ok && !v.Roster.WasMember(s.user) && s.srv.replica.Listed(s.user, t):
		if err := s.unlist(ctx, t, s.user, nil); err != nil {
			return none, err
		}
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{InvitationDeclined: &eventv1.InvitationDeclined{}})
	var no rejection
	switch {
	case errors.As(err, &no): // he is not invited, and only his own list does not know of it yet
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, s.uninvite(ctx, t, s.user, nil)
	case err != nil:
		return none, err
	}
	return out, s.uninvite(ctx, t, s.user, causeOf(out.Ack))
}
