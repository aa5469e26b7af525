package views_test

import (
	"testing"

	"heliograph/infra/views"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/user"
)

// What a user has said of who may add him counts for everybody but himself.
func TestUnaddableByTheirWord(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	all := map[id.UserID]any{
		userN(1): int16(eventv1.MayAdd_MAY_ADD_NOBODY), userN(2): nil, // an older projector's
		userN(3): int16(eventv1.MayAdd_MAY_ADD_UNSPECIFIED), userN(4): int16(eventv1.MayAdd_MAY_ADD_EVERYBODY),
		userN(5): int16(eventv1.MayAdd_MAY_ADD_CONTACTS), userN(6): int16(eventv1.MayAdd_MAY_ADD_NOBODY),
	}
	for u, mayAdd := range all {
		s.put("users", u, uuid([16]byte{u[15]}), int32(1), "", at(1), mayAdd)
	}
	asked := []id.UserID{userN(6), userN(5), userN(4), userN(3), userN(2), userN(1)}
	get := must[[]id.UserID](t)
	same(t, "by one who lets nobody add him", get(s.Unaddable(ctx, userN(1), asked, 10)),
		[]id.UserID{userN(6), userN(5)})
	same(t, "by another", get(s.Unaddable(ctx, userN(4), asked, 10)), []id.UserID{userN(6), userN(5), userN(1)})
	s.put("blocks", userN(3), userN(4))
	s.put("user_threads", userN(2), id.NewGroup(), int64(1), false)
	same(t, "for all reasons", get(s.Unaddable(ctx, userN(4), asked, 1)),
		[]id.UserID{userN(6), userN(5), userN(3), userN(2), userN(1)})
	same(t, "none of nobody", get(s.Unaddable(ctx, userN(4), nil, 1)), []id.UserID{})
}

func TestBlockedBy(t *testing.T) {
	s := newStore(t)
	ann, bob, cat, dan := userN(1), userN(2), userN(3), userN(4)
	s.put("blocks", bob, ann)
	s.put("blocks", dan, ann)
	s.put("blocks", ann, cat)
	s.put("blocks", cat, bob)
	get := must[[]id.UserID](t)
	got := get(s.BlockedBy(t.Context(), ann, []id.UserID{dan, cat, ann, bob}))
	same(t, "who has blocked one", got, []id.UserID{dan, bob})
	same(t, "others are not asked", get(s.BlockedBy(t.Context(), ann, []id.UserID{bob})), []id.UserID{bob})
}

func TestInvitations(t *testing.T) {
	s := newStore(t)
	ann, bob := userN(1), userN(2)
	one, two, three := id.NewGroup(), id.NewGroup(), id.NewGroup()
	s.put("user_invitations", ann, one, bob, "first", int64(3), at(3))
	s.put("user_invitations", ann, two, bob, "", int64(9), at(2))
	s.put("user_invitations", ann, three, userN(3), "third", int64(5), at(5))
	s.put("user_invitations", bob, one, ann, "his", int64(7), at(7))
	get := must[[]views.UserInvitation](t)
	want := []views.UserInvitation{
		{User: ann, Thread: two, By: bob, At: 9, Time: at(2)},
		{User: ann, Thread: three, By: userN(3), Title: "third", At: 5, Time: at(5)},
		{User: ann, Thread: one, By: bob, Title: "first", At: 3, Time: at(3)},
	}
	same(t, "the latest first", get(s.Invitations(t.Context(), ann)), want)
	same(t, "of nobody", get(s.Invitations(t.Context(), userN(9))), nil)
	same(t, "as the fold has it", want[1].Invitation(),
		user.Invitation{By: userN(3), Title: "third", At: 5, TimeMS: at(5).UnixMilli()})
	var both, none []views.UserInvitation
	s.moment(func(q *views.Questions) {
		q.UserInvitations([]id.UserID{ann, bob}, into(&both))
		q.UserInvitations([]id.UserID{userN(9)}, into(&none))
	})
	if len(both) != 4 || len(none) != 0 {
		t.Errorf("got %d of two users and %d of another, want 4 and 0", len(both), len(none))
	}
}

// What one was invited to by whom he has blocked is not read, and is there again once he has lifted that; what the fold
// has is another thing.
func TestInvitationsByTheBlocked(t *testing.T) {
	s := newStore(t)
	ann, bob, cat := userN(1), userN(2), userN(3)
	one, two := id.NewGroup(), id.NewGroup()
	s.put("user_invitations", ann, one, bob, "", int64(3), at(3))
	s.put("user_invitations", ann, two, cat, "", int64(5), at(5))
	s.put("user_invitations", cat, one, bob, "", int64(7), at(7))
	s.put("blocks", ann, bob)
	s.put("blocks", bob, cat)
	get := must[[]id.UserID](t)
	listed := func() (out []id.ThreadID) {
		for _, i := range must[[]views.UserInvitation](t)(s.Invitations(t.Context(), ann)) {
			out = append(out, i.Thread)
		}
		return out
	}
	asked := []id.UserID{cat, bob, ann}
	same(t, "listed", listed(), []id.ThreadID{two})
	same(t, "invited to one", get(s.InvitedTo(t.Context(), one, asked)), []id.UserID{cat})
	same(t, "invited to another", get(s.InvitedTo(t.Context(), two, asked)), []id.UserID{ann})
	same(t, "invited to none", get(s.InvitedTo(t.Context(), id.NewGroup(), asked)), []id.UserID{})
	var folded []views.UserInvitation
	s.moment(func(q *views.Questions) { q.UserInvitations([]id.UserID{ann}, into(&folded)) })
	if len(folded) != 2 {
		t.Errorf("the fold has %d, want 2", len(folded))
	}
	if _, err := s.pool.Exec(t.Context(), "DELETE FROM blocks"); err != nil {
		t.Fatal(err)
	}
	same(t, "listed without a block", listed(), []id.ThreadID{two, one})
	same(t, "invited to one without a block", get(s.InvitedTo(t.Context(), one, asked)), []id.UserID{cat, ann})
}

func TestBlockedButOne(t *testing.T) {
	s := newStore(t)
	for n := range byte(5) {
		s.put("blocks", userN(1), userN(n+2))
	}
	s.put("blocks", userN(2), userN(9))
	for _, x := range []struct {
		but        byte
		most, want int
	}{{9, 10, 5}, {3, 10, 4}, {9, 5, 5}, {9, 2, 2}} {
		got := must[int](t)(s.BlockedButOne(t.Context(), userN(1), userN(x.but), x.most))
		same(t, "blocked", got, x.want)
	}
	same(t, "by nobody", must[int](t)(s.BlockedButOne(t.Context(), userN(7), userN(1), 9)), 0)
}

func TestSettings(t *testing.T) {
	s := newStore(t)
	ann, bob, cat := userN(1), userN(2), userN(3)
	s.put("users", ann, uuid([16]byte{1}), int32(1), "", at(1), int16(eventv1.MayAdd_MAY_ADD_NOBODY))
	s.put("users", bob, uuid([16]byte{2}), int32(1), "", at(1)) // has not said
	s.put("users", cat, uuid([16]byte{3}), int32(1), "", at(1), nil)
	s.put("blocks", ann, cat)
	s.put("blocks", ann, bob)
	s.put("blocks", cat, ann)
	get := must[views.Settings](t)
	everybody := views.Settings{MayAdd: eventv1.MayAdd_MAY_ADD_EVERYBODY}
	same(t, "what one has set", get(s.Settings(t.Context(), ann)),
		views.Settings{MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY, Blocked: []id.UserID{bob, cat}})
	same(t, "who has not set anything", get(s.Settings(t.Context(), bob)), everybody)
	same(t, "nobody", get(s.Settings(t.Context(), userN(9))), everybody)
	everybody.Blocked = []id.UserID{ann}
	same(t, "of a row of an older projector", get(s.Settings(t.Context(), cat)), everybody)
}
