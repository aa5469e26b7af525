package fanout

import (
	"testing"
	"time"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// restored is a phone that has nothing any more, and had acknowledged all of a thread through another edge.
type restored struct {
	*bench
	ann, bob *phone
	group    id.ThreadID
	own      topic.Slot // the user's
	slot     topic.Slot // the group's
	messages int64
	mark     thread.Watermark
}

func (r *restored) begin() {
	r.group = r.groupIn(r.slot, r.ann.user)
	r.join()
}

func (r *restored) join() {
	r.world.Join(r.group, -1, r.bob.user)
	r.world.AddMember(r.group, r.ann.user, r.bob.user)
}

func (r *restored) send() {
	at := r.world.Send(r.group, r.ann.user, r.ann.id, id.NewMessage(), id.UserID{})
	r.messages++
	r.mark = thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: r.messages}
}

func (r *restored) sendAndAcknowledge() {
	for range 3 {
		r.send()
	}
	r.world.Watermark(r.group, r.bob.user, r.bob.id, r.mark)
}

func (r *restored) views(change func(v *replicatest.Store)) {
	r.world.Mu.Lock()
	defer r.world.Mu.Unlock()
	change(&r.world.Views)
}

// The Sync of a restored phone that says what it has does not get to what it had acknowledged. In: the edge is behind
// in the user's list of threads; or in the thread, of which it will not get all, while the views lack the watermark; or
// it has no room for the thread; or a window leaves the thread, while the views lack the watermark. Expected: once that
// is over, the phone gets the thread from where it is, and what comes then.
func TestWhatARestoredPhoneLacksAfterItsSync(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(r *restored)
		after  func(r *restored, s *testSession)
	}{{
		"the list is behind",
		func(r *restored) {
			r.cluster.Give(r.own, "", 0)
			r.begin()
			r.sendAndAcknowledge()
		},
		func(r *restored, _ *testSession) { r.cluster.Give(r.own, "a", 100) },
	}, {
		"the thread is behind",
		func(r *restored) {
			r.begin()
			r.send()
			r.settle()
			r.cluster.Give(r.slot, "", 0)
			r.views(func(v *replicatest.Store) { v.Stopped = true })
			r.sendAndAcknowledge()
		},
		func(r *restored, _ *testSession) {
			r.views(func(v *replicatest.Store) { v.Stopped = false })
			r.settle()
			r.cluster.Give(r.slot, "a", 0)
		},
	}, {
		"no room",
		func(r *restored) {
			r.group = r.groupIn(r.slot, r.ann.user)
			r.cluster.Deny(topic.Subject(r.group))
			r.join()
			r.sendAndAcknowledge()
		},
		func(r *restored, _ *testSession) { r.cluster.Deny() },
	}, {
		"the thread is behind, and then has no room",
		func(r *restored) {
			r.begin()
			r.send()
			r.settle()
			r.cluster.Give(r.slot, "", 0)
			r.views(func(v *replicatest.Store) { v.Stopped = true })
			r.sendAndAcknowledge()
		},
		func(r *restored, _ *testSession) {
			r.cluster.Deny(topic.Subject(r.group))
			r.cluster.Give(r.slot, "a", 100)
			r.views(func(v *replicatest.Store) { v.Stopped = false })
			r.settle()
			r.cluster.Deny()
		},
	}, {
		"left by a window",
		func(r *restored) {
			r.begin()
			r.sendAndAcknowledge()
			r.settle()
			later := r.groupIn(r.slot, r.bob.user)
			for range 4 { // each of a thread counts as a little later than the one before
				r.world.Send(later, r.bob.user, r.bob.id, id.NewMessage(), id.UserID{})
			}
			r.settle()
			r.views(func(v *replicatest.Store) { clear(v.Marks) })
			r.bob.page(1)
		},
		func(r *restored, s *testSession) {
			mustBe(r.t, "left", r.bob.rest, 1)
			r.views(func(v *replicatest.Store) {
				v.Marks[replica.DeviceThread{User: r.bob.user, Device: r.bob.id, Thread: r.group}] = r.mark
			})
			_, err := s.next(0)
			mustBe(r.t, "more", err, nil)
		},
	}} {
		t.Run(c.name, func(t *testing.T) {
			inBench(t, 1, func(t *testing.T, b *bench) {
				r := &restored{bench: b, ann: b.person(1), bob: b.person(2)}
				r.own = b.world.Slot(topic.Subject(r.bob.user))
				r.slot = (r.own + 1) % replicatest.Slots
				r.bob.own = true
				tablet := newPhone(r.bob.user, id.NewDevice(), r.bob.floor)
				b.world.LinkDevice(r.bob.user, r.bob.id, tablet.id)
				b.settle()
				defer b.online(tablet, 0).leave() // so that he is followed before
				b.settle()
				c.before(r)
				b.settle()
				s := b.online(r.bob, 0)
				defer s.leave()
				b.settle()
				mustBe(t, "SyncComplete", r.bob.syncs, 1)
				mustBe(t, "the last came with the Sync", r.bob.saw[r.group][r.mark.DeliveredPosition], false)
				c.after(r, s)
				time.Sleep(time.Minute) // what had no room is asked for again
				b.settle()
				mustBe(t, "lacks", r.bob.lacks(b.world), "")
				r.send()
				b.settle()
				mustBe(t, "lacks at the end", r.bob.lacks(b.world), "")
				mustBe(t, "lacks on the tablet", tablet.lacks(b.world), "")
				mustBe(t, "resyncs", r.bob.resyncs, 0)
			})
		})
	}
}
