package e2e

import (
	"errors"
	"slices"
	"testing"

	"heliograph/edge/client"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
	"heliograph/tools/cluster"
)

// testInvitations: who lets nobody add him is refused by name and invited, and comes in after a restart of all that his
// invitation rests in. A stranger learns nothing, and of one whom somebody has blocked he does not hear.
func testInvitations(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, cid, dee := e.user(t, "ann", 0), e.user(t, "bob", 1), e.user(t, "cid", 0), e.user(t, "dee", 1)
	group, err := ann.u.CreateGroup(ctx, "lively", cid.me.User)
	must(t, err)
	must(t, bob.u.SetMayAdd(ctx, client.Nobody))
	must(t, dee.u.SetBlocked(ctx, ann.me.User, true))
	e.caughtUp(t) // what others have set is asked of the views
	both := []id.UserID{bob.me.User, dee.me.User}
	var refused *wire.Error
	if err := ann.u.AddMembers(ctx, group, both...); !errors.As(err, &refused) ||
		refused.Code != wirev1.Code_CODE_NOT_ADDABLE || !slices.Equal(refused.Users, both) {
		t.Fatalf("adding them got %v", err)
	}
	must(t, ann.u.Invite(ctx, group, both...))
	until(t, "bob is told", func() bool { return bob.invitation(group).Title == "lively" })

	must(t, e.Edge(1).Restart(ctx))
	for _, p := range e.All(cluster.Threads) {
		must(t, p.Restart(ctx))
	}
	until(t, "bob is back", func() bool {
		open, err := bob.u.Invitations(ctx)
		return err == nil && len(open) == 1 && open[0].Thread == group && open[0].Inviter == ann.me.User
	})
	eve := e.user(t, "eve", 1)
	for _, d := range []*device{eve, dee} {
		if got := codeOf(d.u.AnswerInvitation(ctx, group, true)); got != wirev1.Code_CODE_NOT_A_MEMBER {
			t.Errorf("%s accepts: %v", d.name, got)
		}
		if open, err := d.u.Invitations(ctx); err != nil || len(open) > 0 || d.invitation(group).Thread == group {
			t.Errorf("%s is invited: %v, %v", d.name, open, err)
		}
	}
	must(t, bob.u.AnswerInvitation(ctx, group, true))
	until(t, "bob is told that it is answered", func() bool { return bob.invitation(group).Ended })
	welcome := ann.say(client.To{Thread: group}, "welcome")
	bob.has(welcome)
	cid.has(welcome, bob.say(client.To{Thread: group}, "here I am"))

	th, err := cid.u.Thread(ctx, group)
	must(t, err)
	if got := th.GetInvited(); len(th.GetMembers()) != 3 || len(got) != 1 ||
		id.UserID(got[0].GetUserId()) != dee.me.User ||
		got[0].GetName() != "dee" || id.UserID(got[0].GetInviterId()) != ann.me.User {
		t.Errorf("%d members, invited %v", len(th.GetMembers()), got)
	}
	must(t, ann.u.WithdrawInvitation(ctx, group, dee.me.User))
	e.agree(t, ann, bob, cid, dee, eve)
	e.viewsAgree(t)
}
