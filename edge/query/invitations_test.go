package query

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// A user is told his invitations, the latest first, and his settings; and nobody else's.
func TestInvitationsAndSettings(t *testing.T) {
	w := newWorld(t)
	ann, bob, cid := userN(1), userN(2), userN(3)
	one, two := id.NewGroup(), id.NewGroup()
	for k, u := range []id.UserID{ann, bob, cid} {
		w.exec(t, `
			INSERT INTO users (user_id, phone_hash, generation, name, registered, may_add)
			VALUES ($1, $1, 1, 'x', $2, $3)`, [16]byte(u), epoch, []any{nil, 0, 3}[k])
	}
	w.exec(t, `INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2), ($3, $2)`,
		[16]byte(cid), [16]byte(ann), [16]byte(bob))
	for k, th := range []id.ThreadID{one, two} {
		w.exec(t, `
			INSERT INTO user_invitations (user_id, thread_id, inviter_id, title, position, log_time)
			VALUES ($1, $2, $3, 'walk', $4, $5)`, [16]byte(cid), [16]byte(th), [16]byte(bob), k+1, logTime(int64(k+1)))
	}
	for u, want := range map[id.UserID][]id.ThreadID{ann: nil, cid: {two, one}} {
		var all []*wirev1.Invitation
		for k, th := range want {
			all = append(all, wirev1.Invitation_builder{
				ThreadId: th[:], Title: "walk", InviterId: bob[:], TimeMs: logTime(int64(len(want) - k)).UnixMilli(),
			}.Build())
		}
		got, err := w.Invitations(t.Context(), u)
		if d := cmp.Diff(got.GetInvitations(), all, protocmp.Transform()); err != nil || d != "" {
			t.Errorf("invitations of %s: %v (-got +want):\n%s", u, err, d)
		}
	}
	to, err := w.InvitedTo(t.Context(), two, []id.UserID{ann, bob, cid})
	if err != nil || !slices.Equal(to, []id.UserID{cid}) {
		t.Errorf("invited: %v, %v", to, err)
	}
	for u, want := range map[id.UserID]wirev1.Settings_builder{
		ann: {MayAdd: eventv1.MayAdd_MAY_ADD_EVERYBODY},
		bob: {MayAdd: eventv1.MayAdd_MAY_ADD_EVERYBODY, BlockedIds: [][]byte{ann[:]}},
		cid: {MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY, BlockedIds: [][]byte{ann[:]}},
	} {
		got, err := w.Settings(t.Context(), u)
		if d := cmp.Diff(got, want.Build(), protocmp.Transform()); err != nil || d != "" {
			t.Errorf("settings of %s: %v (-got +want):\n%s", u, err, d)
		}
	}
	got, err := w.BlockedBy(t.Context(), ann, []id.UserID{ann, bob, cid})
	if d := cmp.Diff(got, []id.UserID{bob, cid}); err != nil || d != "" {
		t.Errorf("blocked by: %v (-got +want):\n%s", err, d)
	}
	got, err = w.Unaddable(t.Context(), bob, []id.UserID{bob, ann, cid})
	if d := cmp.Diff(got, []id.UserID{cid}); err != nil || d != "" {
		t.Errorf("cannot be added: %v (-got +want):\n%s", err, d)
	}
	got, err = w.Unaddable(t.Context(), cid, []id.UserID{cid, bob})
	if err != nil || len(got) != 0 {
		t.Errorf("who lets nobody add him cannot make a group: %v, %v", got, err)
	}
}

// Who has blocked as many as he may has room for no other, and may say again what he has said.
func TestBlocksHaveABound(t *testing.T) {
	w := newWorld(t)
	ann, bob, cid := userN(1), userN(2), userN(3)
	w.exec(t, `INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)`, [16]byte(ann), [16]byte(bob))
	w.exec(t, `INSERT INTO blocks SELECT $1, gen_random_uuid() FROM generate_series(2, $2)`, [16]byte(ann),
		maxBlocked-1)
	room := func(by, u id.UserID, want bool) {
		t.Helper()
		if got, err := w.MayBlock(t.Context(), by, u); err != nil || got != want {
			t.Errorf("room for a block: %v, %v, want %v", got, err, want)
		}
	}
	room(ann, cid, true)
	w.exec(t, `INSERT INTO blocks VALUES ($1, gen_random_uuid())`, [16]byte(ann))
	room(ann, cid, false)
	room(ann, bob, true)
	room(bob, cid, true)
}

// The members of a group are told who is invited, and nobody else is.
func TestGetThreadTellsWhoIsInvited(t *testing.T) {
	w := newWorld(t)
	ann, bob, cid, dee := userN(1), userN(2), userN(3), userN(4)
	th := id.NewGroup()
	w.group(t, th, 9)
	w.member(t, th, ann, true, 0, 0, 1, 0)
	w.member(t, th, bob, false, 0, 0, 1, 5)
	w.exec(t, `
		INSERT INTO users (user_id, phone_hash, generation, name, registered) VALUES ($1, $1, 1, 'Cid', $2)`,
		[16]byte(cid), epoch)
	for _, u := range []id.UserID{ann, bob} {
		w.exec(t, `
			INSERT INTO user_threads (user_id, thread_id, joined_position, has_left) VALUES ($1, $2, 1, false)`,
			[16]byte(u), [16]byte(th))
	}
	for k, u := range []id.UserID{cid, dee} {
		w.exec(t, `
			INSERT INTO invitations (thread_id, user_id, inviter_id, position, log_time) VALUES ($1, $2, $3, $4, $5)`,
			[16]byte(th), [16]byte(u), [16]byte(ann), k+7, logTime(7))
	}
	want := []*wirev1.Invitee{
		wirev1.Invitee_builder{UserId: cid[:], Name: "Cid", InviterId: ann[:]}.Build(),
		wirev1.Invitee_builder{UserId: dee[:], InviterId: ann[:]}.Build(),
	}
	for u, want := range map[id.UserID][]*wirev1.Invitee{ann: want, bob: nil} {
		got, err := w.GetThread(t.Context(), u, user.Floor{}, nil, th)
		if d := cmp.Diff(got.GetInvited(), want, protocmp.Transform()); err != nil || d != "" {
			t.Errorf("told to %s: %v (-got +want):\n%s", u, err, d)
		}
	}
	if _, err := w.GetThread(t.Context(), cid, user.Floor{}, nil, th); err == nil {
		t.Error("the invited reads the group")
	}
}
