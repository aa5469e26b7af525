package session

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// maxAsking is how many of a connection's requests are with a store at one time; the others wait for their turn, so
// that no connection takes a pool from the others.
const maxAsking = 2

// asking is Queries for one connection.
type asking struct {
	queries Queries
	places  chan struct{}
}

func newAsking(q Queries) asking { return asking{q, make(chan struct{}, maxAsking)} }

// inTurn asks once there is a place.
func inTurn[T any](ctx context.Context, a asking, ask func() (T, error)) (none T, err error) {
	select {
	case a.places <- struct{}{}:
	case <-ctx.Done():
		return none, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "requests before it were not answered in time")
	}
	defer func() { <-a.places }()
	return ask()
}

func (a asking) ListThreads(
	ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, r *wirev1.ListThreads,
) (*wirev1.Threads, error) {
	return inTurn(ctx, a, func() (*wirev1.Threads, error) { return a.queries.ListThreads(ctx, u, floor, own, r) })
}

func (a asking) GetThread(
	ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, t id.ThreadID,
) (*wirev1.Thread, error) {
	return inTurn(ctx, a, func() (*wirev1.Thread, error) { return a.queries.GetThread(ctx, u, floor, own, t) })
}

func (a asking) History(
	ctx context.Context, u id.UserID, floor user.Floor, r *wirev1.GetHistory,
) (*wirev1.HistoryPage, error) {
	return inTurn(ctx, a, func() (*wirev1.HistoryPage, error) { return a.queries.History(ctx, u, floor, r) })
}

func (a asking) LookupUsers(ctx context.Context, u id.UserID, r *wirev1.LookupUsers) (*wirev1.Users, error) {
	return inTurn(ctx, a, func() (*wirev1.Users, error) { return a.queries.LookupUsers(ctx, u, r) })
}

func (a asking) GetUsers(ctx context.Context, ids [][]byte) (*wirev1.Users, error) {
	return inTurn(ctx, a, func() (*wirev1.Users, error) { return a.queries.GetUsers(ctx, ids) })
}

func (a asking) UserExists(ctx context.Context, u id.UserID) (bool, error) {
	return inTurn(ctx, a, func() (bool, error) { return a.queries.UserExists(ctx, u) })
}

func (a asking) WasMember(ctx context.Context, u id.UserID, t id.ThreadID) (bool, error) {
	return inTurn(ctx, a, func() (bool, error) { return a.queries.WasMember(ctx, u, t) })
}

func (a asking) Unaddable(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error) {
	return inTurn(ctx, a, func() ([]id.UserID, error) { return a.queries.Unaddable(ctx, by, users) })
}

func (a asking) BlockedBy(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error) {
	return inTurn(ctx, a, func() ([]id.UserID, error) { return a.queries.BlockedBy(ctx, by, users) })
}

func (a asking) InvitedTo(ctx context.Context, t id.ThreadID, users []id.UserID) ([]id.UserID, error) {
	return inTurn(ctx, a, func() ([]id.UserID, error) { return a.queries.InvitedTo(ctx, t, users) })
}

func (a asking) MayBlock(ctx context.Context, by, u id.UserID) (bool, error) {
	return inTurn(ctx, a, func() (bool, error) { return a.queries.MayBlock(ctx, by, u) })
}

func (a asking) Invitations(ctx context.Context, u id.UserID) (*wirev1.Invitations, error) {
	return inTurn(ctx, a, func() (*wirev1.Invitations, error) { return a.queries.Invitations(ctx, u) })
}

func (a asking) Settings(ctx context.Context, u id.UserID) (*wirev1.Settings, error) {
	return inTurn(ctx, a, func() (*wirev1.Settings, error) { return a.queries.Settings(ctx, u) })
}

func (a asking) ListDevices(ctx context.Context, u id.UserID) (*wirev1.Devices, error) {
	return inTurn(ctx, a, func() (*wirev1.Devices, error) { return a.queries.ListDevices(ctx, u) })
}

func (a asking) Views(ctx context.Context, t id.ThreadID) (*wirev1.Views, error) {
	return inTurn(ctx, a, func() (*wirev1.Views, error) { return a.queries.Views(ctx, t) })
}
