package views_test

import (
	"testing"
	"time"

	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func TestList(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	ann, bob := userN(1), userN(2)
	group, direct, left := id.NewGroup(), id.DirectThread(ann, bob), id.NewGroup()
	for i, th := range []id.ThreadID{group, direct, left} {
		kind := thread.Group
		if th == direct {
			kind = thread.Direct
		}
		n := int64(i + 1)
		s.put("threads", th, int16(kind), "title", n*10, n, at(n), bob, "hello")
		s.put("user_threads", ann, th, n, th == left)
		s.put("members", th, bob, int16(2), true, []int64{1, 0}, int64(0), int64(0))
	}
	s.put("members", group, ann, int16(1), true, []int64{2, 0}, int64(3), int64(0))
	s.put("members", direct, ann, int16(1), true, []int64{2, 0}, int64(0), int64(0))
	s.put("members", left, ann, int16(1), false, []int64{2, 25}, int64(0), int64(2))
	s.put("watermarks", group, ann, int64(1), int64(2), int64(3), int64(4))
	s.put("users", bob, uuid([16]byte{8}), int32(1), "Bob", at(2))
	s.put("positions", topic.Threads, int32(3), int64(31), at(3))

	first := views.ListKey{Time: at(999)}
	list := must[[]views.Listed](t)(s.List(ctx, ann, first, 9))
	same(t, "order", len(list), 3)
	same(t, "the newest", list[0], views.Listed{
		Thread: views.Thread{
			ID: direct, Kind: thread.Direct, Title: "title", LastPosition: 20, LastOrdinal: 2, LastTime: at(2),
			LastSender: bob, Preview: "hello",
		},
		Member: thread.Member{Role: thread.RoleMember, Spans: []thread.Span{{From: 2}}}, Active: true, Members: 2,
		Peer: bob,
	})
	mark := thread.Watermark{DeliveredPosition: 1, DeliveredOrdinal: 2, ReadPosition: 3, ReadOrdinal: 4}
	if l := list[1]; l.Thread.ID != group || l.Mark != mark || l.Peer != (id.UserID{}) || l.Member.BaseOrdinal != 3 {
		t.Errorf("the group: %+v", l)
	}
	// What went on without him comes last, and does not tell when.
	if l := list[2]; l.Thread.ID != left || !l.Thread.LastTime.Equal(time.Unix(0, 0)) || l.Active || l.Members != 1 {
		t.Errorf("the one that ann left: %+v", l)
	}
	behind := must[[]views.Listed](t)(s.List(ctx, ann, views.ListKey{Time: at(2), Thread: direct}, 1))
	if len(behind) != 1 || behind[0].Thread.ID != group {
		t.Errorf("behind the first: %+v", behind)
	}
	l, ok, err := s.Listed(ctx, ann, direct)
	if err != nil || !ok {
		t.Fatalf("one: %v, %v", ok, err)
	}
	same(t, "one", l, list[0])
	if _, ok, err := s.Listed(ctx, userN(9), direct); ok || err != nil {
		t.Errorf("a stranger: %v, %v", ok, err)
	}

	m, ok, err := s.Membership(ctx, ann, left, 3)
	if err != nil || !ok {
		t.Fatalf("membership: %v, %v", ok, err)
	}
	same(t, "membership", m, views.Membership{Spans: []thread.Span{{From: 2, To: 25}}, Last: 30, Next: 31})
	if m, _, _ := s.Membership(ctx, ann, left, 4); m.Next != 0 {
		t.Errorf("a slot of which nothing is there is at %d", m.Next)
	}
	if _, ok, err := s.Membership(ctx, userN(9), left, 3); ok || err != nil {
		t.Errorf("a stranger: %v, %v", ok, err)
	}
	same(t, "participants", must[[]views.Participant](t)(s.Participants(ctx, group)), []views.Participant{
		{User: ann, Role: thread.RoleMember, Mark: mark},
		{User: bob, Role: thread.RoleAdmin, Name: "Bob"},
	})
	s.put("invitations", group, userN(9), bob, int64(7), at(7))
	s.put("invitations", group, userN(7), ann, int64(8), at(8))
	s.put("users", userN(9), uuid([16]byte{9}), int32(1), "Ida", at(2))
	same(t, "invited", must[[]views.Invitee](t)(s.Invitees(ctx, group)), []views.Invitee{
		{User: userN(7), By: ann}, {User: userN(9), By: bob, Name: "Ida"},
	})
	same(t, "those of now", len(must[[]views.Participant](t)(s.Participants(ctx, left))), 1)
}
