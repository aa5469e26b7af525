package session

import (
	"context"

	"heliograph/edge/auth"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// setMayAdd (wire 16.1) sets who may put the session's user into groups.
func (s *Session) setMayAdd(ctx context.Context, r *wirev1.SetMayAdd) (wirev1.ServerFrame_builder, error) {
	switch r.GetMayAdd() {
	case eventv1.MayAdd_MAY_ADD_EVERYBODY, eventv1.MayAdd_MAY_ADD_NOBODY:
	default:
		return wirev1.ServerFrame_builder{}, invalid("may_add is neither everybody nor nobody")
	}
	if err := s.spend(ctx, auth.Settings, 1); err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	return s.tell(ctx, eventv1.Event_builder{
		MayAddChanged: eventv1.MayAddChanged_builder{MayAdd: r.GetMayAdd()}.Build(),
	})
}

// setBlocked (wire 16.9) blocks a user, or lifts that. It is appended also when this edge has it so: another device may
// just have said otherwise. It counts for what is asked once the views have it, a moment after the answer; so of many
// blocks at one time a few may come in beyond the bound.
func (s *Session) setBlocked(ctx context.Context, r *wirev1.SetBlocked) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	u, err := userID("user_id", r.GetUserId())
	switch {
	case err != nil:
		return none, err
	case u == s.user:
		return none, invalid("user_id is one's own")
	}
	if err := s.exists(ctx, u); err != nil {
		return none, err
	}
	if err := s.spend(ctx, auth.Settings, 1); err != nil {
		return none, err
	}
	if r.GetBlocked() {
		switch room, err := s.asking.MayBlock(ctx, s.user, u); {
		case err != nil:
			return none, err
		case !room:
			return none, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "as many users are blocked as may be")
		}
		return s.tell(ctx, eventv1.Event_builder{UserBlocked: eventv1.UserBlocked_builder{BlockedId: u[:]}.Build()})
	}
	return s.tell(ctx, eventv1.Event_builder{UserUnblocked: eventv1.UserUnblocked_builder{BlockedId: u[:]}.Build()})
}
