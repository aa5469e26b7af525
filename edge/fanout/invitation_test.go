package fanout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// invited writes that a user was invited, and returns how a device is told so.
func (b *bench) invited(u, by id.UserID, t id.ThreadID, title string) string {
	at := b.world.TellInvited(u, by, t, title)
	b.world.Mu.Lock()
	defer b.world.Mu.Unlock()
	rec := b.world.Log[b.world.Slot(topic.Subject(u))][topic.Users.Number()-1][at]
	return fmt.Sprintf("%v %q of %x at %d, ended false", t, title, by[:], rec.GetLogTimeMs())
}

// uninvited writes that an invitation is none any more, and returns how a device is told so.
func (b *bench) uninvited(u id.UserID, t id.ThreadID) string {
	b.world.EndInvitation(u, t)
	return fmt.Sprintf("%v \"\" of  at 0, ended true", t)
}

// mustPush compares the invitations that were pushed to a device since it was asked last.
func mustPush(t *testing.T, what string, d *phone, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.invitations, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(d.invitations, "\n"), strings.Join(want, "\n"))
	}
	d.invitations = nil
}

// takeAll has the device take what waits for it, and returns how many frames that was.
func (s *testSession) takeAll() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.queue)
	for _, f := range s.queue {
		s.take(f, make(chan struct{}, 1))
	}
	s.queue = nil
	s.news()
	return n
}

// resize changes how many frames have room.
func (s *testSession) resize(capacity int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = capacity
	s.news()
}

// Every session of the user is pushed his invitations, in the background too, and nobody else's.
func TestInvitationsArePushed(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		tablet := newPhone(bob.user, id.NewDevice(), bob.floor)
		b.world.LinkDevice(bob.user, bob.id, tablet.id)
		behind := newPhone(bob.user, bob.id, bob.floor)
		behind.background = true
		b.settle()
		g, h := id.NewGroup(), id.NewGroup()
		b.invited(bob.user, ann.user, h, "from before")
		b.settle()
		his := []*phone{bob, tablet, behind}
		for _, d := range append(his, ann) {
			defer b.online(d, 0).leave()
		}
		b.settle()
		all := func(what string, want ...string) {
			t.Helper()
			b.settle()
			for k, d := range his {
				mustPush(t, fmt.Sprintf("%s, session %d", what, k), d, want...)
			}
			mustPush(t, what+", who invited", ann)
		}
		all("what the device asks for itself")
		all("invited", b.invited(bob.user, ann.user, g, "the group"))
		all("again, by another", b.invited(bob.user, replicatest.User(3), g, "renamed"))
		all("declined", b.uninvited(bob.user, g))
		b.world.Join(h, -1, bob.user)
		all("joined", fmt.Sprintf("%v \"\" of  at 0, ended true", h))
		all("into what is in his list", b.invited(bob.user, ann.user, h, "a join that was begun"))
	})
}

// A device that has not synced is pushed no invitation, and one that is about to is after what it lacks; one that lags
// is none until it has synced again.
func TestInvitationsWaitForSync(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		s := &testSession{
			phone: bob, edge: b.edges[0], capacity: 10, done: make(chan struct{}), more: make(chan struct{}),
		}
		if _, err := s.edge.Attach(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		defer s.leave()
		b.settle()
		g := id.NewGroup()
		b.invited(bob.user, ann.user, g, "before Sync")
		b.settle()
		mustBe(t, "frames before Sync", s.takeAll(), 0)

		s.resize(0)
		done := make(chan error, 1)
		go func() { done <- s.edge.Sync(context.Background(), s, nil, 0) }()
		synctest.Wait()
		meanwhile := b.invited(bob.user, ann.user, g, "meanwhile")
		b.settle()
		mustBe(t, "frames while nothing has room", s.takeAll(), 0)
		s.resize(10)
		mustBe(t, "sync", <-done, nil)
		mustBe(t, "frames of the Sync", s.takeAll(), 2)
		mustBe(t, "SyncComplete", bob.syncs, 1)
		mustPush(t, "what came meanwhile", bob, meanwhile)

		s.resize(0)
		b.invited(bob.user, ann.user, g, "no room")
		b.settle()
		s.resize(10)
		b.invited(bob.user, ann.user, g, "after the lag")
		b.settle()
		mustBe(t, "frames of one that lags", s.takeAll(), 1)
		mustBe(t, "Resync", bob.resyncs, 1)
		mustPush(t, "what the device asks for after its Sync", bob)
		s.mu.Lock()
		s.lagging = false
		s.mu.Unlock()
		mustBe(t, "sync again", s.edge.Sync(t.Context(), s, nil, 0), nil)
		last := b.uninvited(bob.user, g)
		b.settle()
		s.takeAll()
		mustPush(t, "after it", bob, last)
		mustBe(t, "closed", bob.closed, wirev1.Code_CODE_UNSPECIFIED)
	})
}
