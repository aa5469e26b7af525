package edge

import (
	"maps"
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestReadsAreNotOlderThanWhatWasTold: what a connection was told by a push or an ack is in what it reads thereafter.
// The read waits for the views, and when they do not come, it says so.
func TestReadsAreNotOlderThanWhatWasTold(t *testing.T) {
	type told struct {
		a, b *device
		g    id.ThreadID
	}
	history := func(p told) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: p.g[:]}.Build()}
	}
	list := func(told) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}}
	}
	devices := func(told) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}
	}
	unknown := func(told) wirev1.ClientFrame_builder {
		u := id.User([]byte("test"), "+499", 1)
		return wirev1.ClientFrame_builder{GetUsers: wirev1.GetUsers_builder{UserIds: [][]byte{u[:]}}.Build()}
	}
	send := func(p told, from *device) wirev1.ClientFrame_builder {
		m := id.NewMessage()
		return wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
			ThreadId: p.g[:], MessageId: m[:], Content: text("x"),
		}.Build()}
	}
	push := func(p told) {
		p.b.ask(send(p, p.b))
		p.a.push("b's message", (*wirev1.ServerFrame).HasEvent)
	}
	own := func(p told) {
		p.a.ask(wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: "Ann"}.Build()})
	}
	thread := func(p told) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{GetThread: wirev1.GetThread_builder{ThreadId: p.g[:]}.Build()}
	}
	change := func(b func(p told) wirev1.ClientFrame_builder) func(told) {
		return func(p told) {
			if got := p.a.ask(b(p)); got.HasError() {
				p.a.t.Errorf("got %v", got)
			}
		}
	}
	further := id.NewDevice()
	linked := change(func(told) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{LinkDevice: wirev1.LinkDevice_builder{
			DeviceId: further[:], PublicKey: make([]byte, 32), DeviceName: "laptop",
		}.Build()}
	})
	for _, x := range []struct {
		name  string
		tell  func(p told)
		topic topic.Topic
		ask   func(p told) wirev1.ClientFrame_builder
		acked bool // by an ack alone
	}{
		{"a page after a push", push, topic.Threads, history, false},
		{"a page after an ack", func(p told) { p.a.ask(send(p, p.a)) }, topic.Threads, history, true},
		{"the list after a push", push, topic.Threads, list, false},
		{"the list after an ack", func(p told) { p.a.ask(send(p, p.a)) }, topic.Threads, list, true},
		{"a thread after a push", push, topic.Threads, thread, false},
		{"the list after a group was created", change(func(told) wirev1.ClientFrame_builder {
			g := id.NewGroup()
			create := wirev1.CreateGroup_builder{ThreadId: g[:], Title: "another"}.Build()
			return wirev1.ClientFrame_builder{CreateGroup: create}
		}), topic.Threads, list, false},
		{"the list after a rename", change(func(p told) wirev1.ClientFrame_builder {
			rename := wirev1.RenameThread_builder{ThreadId: p.g[:], Title: "run"}.Build()
			return wirev1.ClientFrame_builder{RenameThread: rename}
		}), topic.Threads, list, false},
		{"the list after leaving", change(func(p told) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: p.g[:]}.Build()}
		}), topic.Users, list, false},
		{"a thread after a member was added", func(p told) {
			change(func(p told) wirev1.ClientFrame_builder {
				remove := wirev1.RemoveMember_builder{ThreadId: p.g[:], MemberId: p.b.user[:]}.Build()
				return wirev1.ClientFrame_builder{RemoveMember: remove}
			})(p)
			change(func(p told) wirev1.ClientFrame_builder {
				add := wirev1.AddMembers_builder{ThreadId: p.g[:], MemberIds: [][]byte{p.b.user[:]}}.Build()
				return wirev1.ClientFrame_builder{AddMembers: add}
			})(p)
		}, topic.Threads, thread, false},
		{"devices after one was linked", linked, topic.Users, devices, false},
		{"devices after one was revoked", func(p told) {
			linked(p)
			change(func(told) wirev1.ClientFrame_builder {
				revoke := wirev1.RevokeDevice_builder{DeviceId: further[:]}.Build()
				return wirev1.ClientFrame_builder{RevokeDevice: revoke}
			})(p)
		}, topic.Users, devices, false},
		{"devices", own, topic.Users, devices, true},
		{"a lookup", own, topic.Users, func(told) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{LookupUsers: wirev1.LookupUsers_builder{Phones: []string{"+491"}}.Build()}
		}, true},
		{"profiles", own, topic.Users, func(p told) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{GetUsers: wirev1.GetUsers_builder{UserIds: [][]byte{p.a.user[:]}}.Build()}
		}, true},
		{"somebody who may have registered a moment ago", own, topic.Users, unknown, false},
	} {
		for _, held := range []bool{false, true} { // this edge does not see yet what was acknowledged
			if held && !x.acked {
				continue
			}
			name := x.name
			if held {
				name += ", of which this edge does not know"
			}
			t.Run(name, func(t *testing.T) {
				f := start(t, nil)
				p := told{a: f.dial(t).register("+491").sync(), b: f.dial(t).register("+492").sync(), g: id.NewGroup()}
				p.a.ask(wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{
					ThreadId: p.g[:], Title: "walk", MemberIds: [][]byte{p.b.user[:]},
				}.Build()})
				f.world.mu.Lock()
				f.world.hold = held
				f.world.mu.Unlock()
				p.a.pushes = nil
				x.tell(p)
				f.world.mu.Lock()
				f.world.viewsAt = maps.Clone(f.world.next)
				f.world.viewsAt[x.topic]-- // all but the last
				f.world.mu.Unlock()
				req := p.a.send(x.ask(p))
				until(t, "the read waits", func() bool { return f.world.waiting.Load() > 0 })
				if x.ask(p).GetThread != nil {
					return // the stub's answer is a broken invariant
				}
				f.world.mu.Lock()
				f.world.viewsAt[x.topic]++
				f.world.news()
				f.world.mu.Unlock()
				if x.ask(p).GetHistory != nil {
					s, err := p.a.conn.AcceptUniStream(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if got := p.a.page(s); got.GetRequestId() != req || !got.HasHistoryPage() {
						t.Errorf("got %v, want a page", got)
					}
				} else if got := p.a.answer(req); got.HasError() {
					t.Errorf("got %v, want an answer", got)
				}
				if held {
					f.world.release()
				}
			})
		}
	}
	t.Run("views that do not come", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Session.RequestTimeout = 50 * time.Millisecond })
		p := told{a: f.dial(t).register("+491").sync()}
		p.g = id.DirectThread(p.a.user, p.a.user)
		p.a.ask(direct(p.a, p.a, "a note"))
		f.world.mu.Lock()
		f.world.viewsAt = map[topic.Topic]topic.Position{}
		f.world.mu.Unlock()
		for _, ask := range []func(told) wirev1.ClientFrame_builder{history, list, devices, unknown} {
			p.a.refused(p.a.ask(ask(p)), wirev1.Code_CODE_UNAVAILABLE)
		}
	})
}

// TestOlderPagesDoNotWait: a page from before what was told does not wait for that.
func TestOlderPagesDoNotWait(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	g := id.DirectThread(a.user, a.user)
	for range 3 {
		a.ask(direct(a, a, "a note"))
	}
	f.world.mu.Lock()
	f.world.viewsAt = maps.Clone(f.world.next)
	f.world.viewsAt[topic.Threads]--
	f.world.mu.Unlock()
	a.send(wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{
		ThreadId: g[:], BeforePosition: int64(f.world.viewsAt[topic.Threads]),
	}.Build()})
	s, err := a.conn.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.page(s); !got.HasHistoryPage() {
		t.Errorf("got %v, want a page", got)
	}
}
