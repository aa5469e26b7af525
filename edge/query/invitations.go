package query

import (
	"context"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// BlockedBy returns those of some users who have blocked a user.
func (q *Queries) BlockedBy(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error) {
	found, err := q.views.BlockedBy(ctx, by, users)
	if err != nil {
		return nil, q.unavailable("blocks", err)
	}
	return found, nil
}

// InvitedTo returns those of some users whose list of invitations has a thread.
func (q *Queries) InvitedTo(ctx context.Context, t id.ThreadID, users []id.UserID) ([]id.UserID, error) {
	found, err := q.views.InvitedTo(ctx, t, users)
	if err != nil {
		return nil, q.unavailable("invitations", err)
	}
	return found, nil
}

// MayBlock tells whether a user has room for a block of another, whom he may have blocked already.
func (q *Queries) MayBlock(ctx context.Context, by, u id.UserID) (bool, error) {
	n, err := q.views.BlockedButOne(ctx, by, u, maxBlocked)
	if err != nil {
		return false, q.unavailable("blocks", err)
	}
	return n < maxBlocked, nil
}

// Invitations returns a user's open invitations by those whom he has not blocked, the latest first.
func (q *Queries) Invitations(ctx context.Context, u id.UserID) (*wirev1.Invitations, error) {
	found, err := q.views.Invitations(ctx, u)
	if err != nil {
		return nil, q.unavailable("invitations", err)
	}
	out := wirev1.Invitations_builder{}
	for i := range found {
		f := &found[i]
		out.Invitations = append(out.Invitations, wirev1.Invitation_builder{
			ThreadId: f.Thread[:], Title: f.Title, InviterId: f.By[:], TimeMs: f.Time.UnixMilli(),
		}.Build())
	}
	return out.Build(), nil
}

// Settings returns what a user has set.
func (q *Queries) Settings(ctx context.Context, u id.UserID) (*wirev1.Settings, error) {
	found, err := q.views.Settings(ctx, u)
	if err != nil {
		return nil, q.unavailable("settings", err)
	}
	out := wirev1.Settings_builder{MayAdd: found.MayAdd}
	for i := range found.Blocked {
		out.BlockedIds = append(out.BlockedIds, found.Blocked[i][:])
	}
	return out.Build(), nil
}
