package replica_test

import (
	"testing"
	"testing/synctest"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// told returns what a follower was told of invitations since he was asked last.
func (e *ear) told() []replica.Invitation {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.invitations
	e.invitations = nil
	return out
}

func mustTell(t *testing.T, what string, e *ear, want ...replica.Invitation) {
	t.Helper()
	got := e.told()
	mustBe(t, what+", so often", len(got), len(want))
	for k := range min(len(got), len(want)) {
		got[k].TimeMS = 0
		mustBe(t, what, got[k], want[k])
	}
}

// A follower is told of his invitations as they come, change and end, and nobody else is.
func TestInvitationsAreTold(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, _ := b.follower(1)
		bob, _ := b.follower(2)
		cat := replicatest.User(3)
		g, h := id.NewGroup(), id.NewGroup()
		at := b.world.TellInvited(bob.user, ann.user, g, "the group")
		b.settle()
		mustTell(t, "invited", bob, replica.Invitation{
			Thread: g, Invitation: user.Invitation{By: ann.user, Title: "the group", At: at},
		})
		mustBe(t, "is invited", b.replica.Invited(bob.user, g), true)
		mustBe(t, "into another", b.replica.Invited(bob.user, h), false)
		mustBe(t, "who invited", b.replica.Invited(ann.user, g), false)
		mustBe(t, "who is not followed", b.replica.Invited(cat, g), false)
		at = b.world.TellInvited(bob.user, cat, g, "renamed")
		b.settle()
		mustTell(t, "again", bob, replica.Invitation{
			Thread: g, Invitation: user.Invitation{By: cat, Title: "renamed", At: at},
		})
		mustBe(t, "bytes of titles that are kept", b.replica.Titles(bob.user), 0)
		b.world.EndInvitation(bob.user, g)
		b.settle()
		mustTell(t, "ended", bob, replica.Invitation{Thread: g, Ended: true})
		mustBe(t, "is invited", b.replica.Invited(bob.user, g), false)
		b.world.EndInvitation(bob.user, g)
		b.settle()
		mustTell(t, "ended once more", bob)
		b.world.TellInvited(bob.user, ann.user, h, "")
		b.settle()
		bob.told()
		b.world.Join(h, -1, bob.user)
		b.settle()
		mustTell(t, "joined", bob, replica.Invitation{Thread: h, Ended: true})
		at = b.world.TellInvited(bob.user, ann.user, h, "")
		b.settle()
		mustTell(t, "into what is in his list", bob, replica.Invitation{Thread: h, Invitation: user.Invitation{
			By: ann.user, At: at,
		}})
		mustTell(t, "another", ann)
	})
}

// Who missed what came of his invitations is told how they stand, once each, and nothing of those that are as they
// were.
func TestInvitationsAfterAGap(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, bob := replicatest.User(1), replicatest.User(2)
		d := id.NewDevice()
		b.world.Register(bob, d, 1)
		open, declined, anew, came := id.NewGroup(), id.NewGroup(), id.NewGroup(), id.NewGroup()
		for _, g := range []id.ThreadID{open, declined, anew} {
			b.world.TellInvited(bob, ann, g, "before")
		}
		b.settle()
		e := &ear{user: bob, replica: b.replica}
		b.replica.Follow(e)
		b.settle()
		mustTell(t, "what was open before he came", e)
		mustBe(t, "is invited", b.replica.Invited(bob, open), true)
		mustBe(t, "bytes of titles that are kept", b.replica.Titles(bob), 0)
		// The link breaks, and the ring has nothing of what comes meanwhile.
		slot := b.world.Slot(topic.Subject(bob))
		b.cluster.Give(slot, "", 0)
		synctest.Wait()
		b.world.EndInvitation(bob, declined)
		b.world.EndInvitation(bob, anew)
		again := b.world.TellInvited(bob, ann, anew, "after")
		first := b.world.TellInvited(bob, ann, came, "new")
		gone := id.NewGroup()
		b.world.TellInvited(bob, ann, gone, "")
		b.world.EndInvitation(bob, gone)
		b.settle()
		mustTell(t, "while there is no link", e)
		b.cluster.Give(slot, "a", 0)
		b.settle()
		got := map[id.ThreadID]replica.Invitation{}
		told := e.told()
		for _, i := range told {
			i.TimeMS = 0
			got[i.Thread] = i
		}
		mustBe(t, "told so often", len(told), 3)
		mustBe(t, "declined", got[declined], replica.Invitation{Thread: declined, Ended: true})
		mustBe(t, "ended, and come again", got[anew], replica.Invitation{
			Thread: anew, Invitation: user.Invitation{By: ann, Title: "after", At: again},
		})
		mustBe(t, "new", got[came], replica.Invitation{
			Thread: came, Invitation: user.Invitation{By: ann, Title: "new", At: first},
		})
		mustBe(t, "bytes of titles that are kept", b.replica.Titles(bob), 0)
		mustBe(t, "is invited", b.replica.Invited(bob, open) && b.replica.Invited(bob, came), true)
		mustBe(t, "is not", b.replica.Invited(bob, declined) || b.replica.Invited(bob, gone), false)
	})
}
