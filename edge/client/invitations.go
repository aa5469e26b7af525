package client

import (
	"context"
	"fmt"
	"time"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// Invitation tells that the own user was invited into a group, or that an invitation is none any more (wire 16.4). It
// comes while the device is live: what came and went before that, Invitations tells after each Synced.
type Invitation struct {
	Thread id.ThreadID
	// Ended: answered, on this device or another, or taken back. What follows is not set then.
	Ended bool
	// Title of the group as it was then.
	Title   string
	Inviter id.UserID
	Time    time.Time
}

func (Invitation) isEvent() {}

func invitationOf(i *wirev1.Invitation) (Invitation, error) {
	t, err := id.From[id.ThreadID](i.GetThreadId())
	if err != nil || i.GetEnded() {
		return Invitation{Thread: t, Ended: true}, err
	}
	by, err := id.From[id.UserID](i.GetInviterId())
	return Invitation{Thread: t, Title: i.GetTitle(), Inviter: by, Time: time.UnixMilli(i.GetTimeMs())}, err
}

// Invitations returns the open invitations of the own user, the latest first.
func (c *Client) Invitations(ctx context.Context) ([]Invitation, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{ListInvitations: &wirev1.ListInvitations{}}.Build())
	if err != nil {
		return nil, err
	}
	out := make([]Invitation, 0, len(a.GetInvitations().GetInvitations()))
	for _, raw := range a.GetInvitations().GetInvitations() {
		i, err := invitationOf(raw)
		if err != nil {
			return nil, fmt.Errorf("invitations: %w", err)
		}
		out = append(out, i)
	}
	return out, nil
}

// Invite invites users into a group, also those of a *wire.Error with CODE_NOT_ADDABLE, whom AddMembers and CreateGroup
// cannot put into one.
func (c *Client) Invite(ctx context.Context, t id.ThreadID, users ...id.UserID) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		InviteMembers: wirev1.InviteMembers_builder{ThreadId: t[:], MemberIds: raw(users)}.Build(),
	}.Build())
	return err
}

// WithdrawInvitation takes an invitation into a group back.
func (c *Client) WithdrawInvitation(ctx context.Context, t id.ThreadID, u id.UserID) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		WithdrawInvitation: wirev1.WithdrawInvitation_builder{ThreadId: t[:], MemberId: u[:]}.Build(),
	}.Build())
	return err
}

// AnswerInvitation accepts an invitation, or declines it.
func (c *Client) AnswerInvitation(ctx context.Context, t id.ThreadID, accept bool) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		AnswerInvitation: wirev1.AnswerInvitation_builder{ThreadId: t[:], Accept: accept}.Build(),
	}.Build())
	return err
}

// MayAdd is who may put a user into groups; all others can invite him.
type MayAdd eventv1.MayAdd

// Who may put a user into groups.
const (
	// Everybody whom the user has not blocked.
	Everybody = MayAdd(eventv1.MayAdd_MAY_ADD_EVERYBODY)
	// Nobody but himself.
	Nobody = MayAdd(eventv1.MayAdd_MAY_ADD_NOBODY)
)

// Settings of the own user.
type Settings struct {
	MayAdd  MayAdd
	Blocked []id.UserID
}

// Settings returns what the own user has set.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{GetSettings: &wirev1.GetSettings{}}.Build())
	if err != nil {
		return Settings{}, err
	}
	out := Settings{MayAdd: MayAdd(a.GetSettings().GetMayAdd())}
	for _, b := range a.GetSettings().GetBlockedIds() {
		u, err := id.From[id.UserID](b)
		if err != nil {
			return Settings{}, fmt.Errorf("settings: %w", err)
		}
		out.Blocked = append(out.Blocked, u)
	}
	return out, nil
}

// SetMayAdd sets who may put the own user into groups.
func (c *Client) SetMayAdd(ctx context.Context, who MayAdd) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		SetMayAdd: wirev1.SetMayAdd_builder{MayAdd: eventv1.MayAdd(who)}.Build(),
	}.Build())
	return err
}

// SetBlocked blocks a user, who is not told and can put the own user into no group, or lifts that.
func (c *Client) SetBlocked(ctx context.Context, u id.UserID, blocked bool) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		SetBlocked: wirev1.SetBlocked_builder{UserId: u[:], Blocked: blocked}.Build(),
	}.Build())
	return err
}
