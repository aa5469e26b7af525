package edge

import (
	"testing"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestChangesAreAnsweredByTheirVerdict: what this edge lets pass by what it knows, and the fold rejects by what came
// before it in the log, is answered by the fold's verdict.
func TestChangesAreAnsweredByTheirVerdict(t *testing.T) {
	role := func(m id.UserID, r eventv1.Role) *eventv1.Event {
		return eventv1.Event_builder{
			RoleChanged: eventv1.RoleChanged_builder{MemberId: m[:], Role: r}.Build(),
		}.Build()
	}
	removed := func(m id.UserID) *eventv1.Event {
		return eventv1.Event_builder{MemberRemoved: eventv1.MemberRemoved_builder{MemberId: m[:]}.Build()}.Build()
	}
	added := func(m id.UserID) *eventv1.Event {
		one := eventv1.MemberAdded_builder{MemberIds: [][]byte{m[:]}}.Build()
		return eventv1.Event_builder{MemberAdded: one}.Build()
	}
	const ack = wirev1.Code_CODE_UNSPECIFIED
	type group struct{ a, b, c, d id.UserID } // a and b are admins, a asks; d is not in the group
	for _, x := range []struct {
		name   string
		before func(p group) *eventv1.Event // by b, which this edge does not know of yet
		ask    func(g id.ThreadID, p group) wirev1.ClientFrame_builder
		want   wirev1.Code
		lists  int // told that the group is left
	}{
		{"renamed by an admin who is none any more", func(p group) *eventv1.Event {
			return role(p.a, eventv1.Role_ROLE_MEMBER)
		}, func(g id.ThreadID, _ group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: "x"}.Build(),
			}
		}, wirev1.Code_CODE_NOT_ALLOWED, 0},
		{"renamed by one who was removed", func(p group) *eventv1.Event {
			return removed(p.a)
		}, func(g id.ThreadID, _ group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: "x"}.Build(),
			}
		}, wirev1.Code_CODE_NOT_A_MEMBER, 0},
		{"added by an admin who is none any more", func(p group) *eventv1.Event {
			return role(p.a, eventv1.Role_ROLE_MEMBER)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{p.d[:]}}.Build(),
			}
		}, wirev1.Code_CODE_NOT_ALLOWED, 1},
		{"added who was added meanwhile", func(p group) *eventv1.Event {
			return added(p.d)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{p.d[:]}}.Build(),
			}
		}, ack, 0},
		{"removed by an admin who is none any more", func(p group) *eventv1.Event {
			return role(p.a, eventv1.Role_ROLE_MEMBER)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: p.c[:]}.Build(),
			}
		}, wirev1.Code_CODE_NOT_ALLOWED, 0},
		{"removed who was removed meanwhile", func(p group) *eventv1.Event {
			return removed(p.c)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: p.c[:]}.Build(),
			}
		}, ack, 1},
		{"made an admin who was removed meanwhile", func(p group) *eventv1.Event {
			return removed(p.c)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{SetRole: wirev1.SetRole_builder{
				ThreadId: g[:], MemberId: p.c[:], Role: eventv1.Role_ROLE_ADMIN,
			}.Build()}
		}, wirev1.Code_CODE_INVALID, 0},
		{"the last admin steps down", func(p group) *eventv1.Event {
			return role(p.b, eventv1.Role_ROLE_MEMBER)
		}, func(g id.ThreadID, p group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{SetRole: wirev1.SetRole_builder{
				ThreadId: g[:], MemberId: p.a[:], Role: eventv1.Role_ROLE_MEMBER,
			}.Build()}
		}, wirev1.Code_CODE_NOT_ALLOWED, 0},
		{"left who was removed meanwhile", func(p group) *eventv1.Event {
			return removed(p.a)
		}, func(g id.ThreadID, _ group) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}
		}, ack, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := start(t, nil)
			a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492")
			c, d := f.dial(t).register("+493"), f.dial(t).register("+494")
			p := group{a.user, b.user, c.user, d.user}
			g := id.NewGroup()
			a.ask(wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{
				ThreadId: g[:], Title: "walk", MemberIds: [][]byte{b.user[:], c.user[:]},
			}.Build()})
			a.ask(wirev1.ClientFrame_builder{SetRole: wirev1.SetRole_builder{
				ThreadId: g[:], MemberId: b.user[:], Role: eventv1.Role_ROLE_ADMIN,
			}.Build()})
			f.world.mu.Lock()
			f.world.hold = true
			f.world.mu.Unlock()
			before := x.before(p)
			before.SetUserId(b.user[:])
			f.world.append(topic.Threads, topic.Subject(g), before)
			req := a.send(x.ask(g, p))
			until(t, "the request waits for its verdict", func() bool { return f.world.waiting.Load() > 0 })
			f.world.release()
			got := a.answer(req)
			if code := got.GetError().GetCode(); code != x.want {
				t.Errorf("got %v, want %v", got, x.want)
			}
			lists := 0
			for _, r := range f.world.log() {
				if r.ev.HasThreadLeft() {
					lists++
				}
			}
			if lists != x.lists {
				t.Errorf("%d lists were told that the group is left, want %d", lists, x.lists)
			}
		})
	}
}

// Whom an event was to make members that the fold has rejected, since the group was full by then, are not in it, and it
// is not in their lists; but for those whom another has added.
func TestWhoWasNotAddedHasItNotInHisList(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	crowd := make([]id.UserID, thread.MaxMembers)
	f.world.mu.Lock()
	for k := range crowd {
		crowd[k] = id.UserID{1, byte(k >> 8), byte(k)}
		f.world.users[crowd[k]] = true
	}
	f.world.mu.Unlock()
	last, one, two := crowd[len(crowd)-3], crowd[len(crowd)-2], crowd[len(crowd)-1]
	g := id.NewGroup()
	a.acked(createGroup(g, crowd[:len(crowd)-3]...)) // two more have room
	f.world.mu.Lock()
	f.world.hold = true
	f.world.mu.Unlock()
	f.world.list(one, g)
	f.world.append(topic.Threads, topic.Subject(g), eventv1.Event_builder{
		UserId: a.user[:], MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{last[:], one[:]}}.Build(),
	}.Build())
	req := a.send(addMembers(g, one, two))
	until(t, "the request waits for its verdict", func() bool { return f.world.waiting.Load() > 0 })
	f.world.release()
	a.refused(a.answer(req), wirev1.Code_CODE_GROUP_FULL)
	if f.world.isMember(g, two) || f.world.inList(two, g) {
		t.Error("who was not added has it in his list")
	}
	if !f.world.isMember(g, one) || !f.world.inList(one, g) {
		t.Error("who was added by another has it not in his list")
	}
}

// TestGroupCreatedTwiceAtOnce: of two who create a group under one id at the same time one is told that the id is
// taken; two devices of one user are not told apart.
func TestGroupCreatedTwiceAtOnce(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	create := func(g id.ThreadID) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{
			CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "walk"}.Build(),
		}
	}
	for _, x := range []struct {
		name  string
		first *device
		want  wirev1.Code
	}{{"by another", b, wirev1.Code_CODE_CONFLICT}, {"by himself", a, wirev1.Code_CODE_UNSPECIFIED}} {
		t.Run(x.name, func(t *testing.T) {
			g := id.NewGroup()
			f.world.mu.Lock()
			f.world.refuse = func(ev *eventv1.Event) (bool, bool) {
				if ev.HasThreadCreated() && f.world.threads[g].Kind == thread.None { // a moment before it the other's
					f.world.fold(topic.Threads, topic.Subject(g), eventv1.Event_builder{
						UserId: x.first.user[:], Rules: ev.GetRules(),
						ThreadCreated: eventv1.ThreadCreated_builder{Title: "walk"}.Build(),
					}.Build(), f.world.next[topic.Threads])
					f.world.next[topic.Threads]++
				}
				return false, false
			}
			f.world.mu.Unlock()
			if got := a.ask(create(g)); got.GetError().GetCode() != x.want {
				t.Errorf("got %v, want %v", got, x.want)
			}
		})
	}
}
