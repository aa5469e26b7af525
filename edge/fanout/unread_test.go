package fanout

import (
	"testing"

	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
)

// TestUnreadIsOfOthers: what a device is told to be unread is what others wrote after the read mark, whatever its user
// wrote meanwhile, and nothing that it is not shown.
func TestUnreadIsOfOthers(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		g, direct := b.group(ann.user, bob.user), id.DirectThread(ann.user, bob.user)
		b.settle()
		send := func(d *phone, n int) {
			for range n {
				b.world.Send(g, d.user, d.id, id.NewMessage(), id.UserID{})
			}
		}
		told := func(d *phone, th id.ThreadID) (unread int64, past bool) {
			t.Helper()
			delete(d.listed, th)
			s := b.online(d, 0)
			b.settle()
			s.leave()
			if d.listed[th] == nil {
				t.Fatal("the thread was not listed")
			}
			return d.listed[th].GetUnread(), d.listed[th].GetPastElsewhere()
		}
		for range 3 { // both write at once, and neither looks
			send(ann, 2)
			send(bob, 1)
		}
		b.settle()
		unread, _ := told(ann, g)
		mustBe(t, "of bob's", unread, int64(3))
		unread, _ = told(bob, g)
		mustBe(t, "of ann's", unread, int64(6))
		// ann reads as far as bob's second; her own messages stay behind it
		second := b.edges[0].glance(t, ann.user, g)
		at := second.LastPosition - 3
		b.world.Watermark(g, ann.user, ann.id, thread.Watermark{ReadPosition: at, ReadOrdinal: second.LastOrdinal - 3})
		send(ann, 1)
		b.settle()
		unread, _ = told(ann, g)
		mustBe(t, "after two were read", unread, int64(1))

		b.world.Join(direct, b.world.Next(direct), ann.user, bob.user)
		b.world.Send(direct, ann.user, ann.id, id.NewMessage(), bob.user)
		b.settle()
		unread, _ = told(bob, direct)
		mustBe(t, "a first message", unread, int64(1))
		unread, _ = told(ann, direct)
		mustBe(t, "one's own first message", unread, int64(0))

		// bob registers again: what came before is on the former phone
		d := id.NewDevice()
		again := newPhone(bob.user, d, b.world.Register(bob.user, d, 2))
		b.settle()
		send(ann, 4)
		send(bob, 1)
		b.settle()
		unread, past := told(again, g)
		mustBe(t, "on the new phone", unread, int64(4))
		mustBe(t, "the past is elsewhere", past, true)
		late := id.NewGroup()
		b.world.Join(late, b.world.Next(late), ann.user, bob.user)
		b.world.Create(late, ann.user, bob.user)
		b.settle()
		_, past = told(again, late)
		mustBe(t, "nothing of it is elsewhere", past, false)
	})
}

// TestFirstMessageIsNotUnreadToItsSender: a direct thread that begins while both are on line.
func TestFirstMessageIsNotUnreadToItsSender(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		defer b.online(bob, 0).leave()
		b.settle()
		direct := id.DirectThread(replicatest.User(1), replicatest.User(2))
		b.world.Join(direct, b.world.Next(direct), ann.user, bob.user)
		b.world.Send(direct, ann.user, ann.id, id.NewMessage(), bob.user)
		b.settle()
		mustBe(t, "to bob", bob.listed[direct].GetUnread(), int64(1))
		mustBe(t, "to ann", ann.listed[direct].GetUnread(), int64(0))
	})
}
