package client

import (
	"slices"
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// A message came back, and the device was killed before its store had the acknowledgement: it sends the message again,
// and the log has a copy that nobody is told of. Once the thread has got on the store keeps nothing of it; one that may
// still come back, or be rejected, stays.
func TestAckedCopiesAreForgotten(t *testing.T) {
	me := Identity{User: id.UserID{1}, Device: id.NewDevice()}
	store := NewMemoryStore()
	must(t, store.SetIdentity(me))
	th := id.NewGroup()
	open := func() *Client {
		t.Helper()
		c, err := New(Config{Addrs: []string{"127.0.0.1:1"}, Store: store, AckInterval: time.Hour})
		must(t, err)
		return c
	}
	comes := func(c *Client, from Identity, m id.MessageID, at topic.Position) {
		t.Helper()
		must(t, c.event(eventFrame(t, th, at, from, m, "hi").GetEvent()))
	}
	send := func(c *Client) id.MessageID { // it is on its way
		t.Helper()
		m := id.NewMessage()
		must(t, c.SendRaw(Outgoing{Thread: th, ID: m, Data: []byte("hi"), ClientTimeMS: time.Now().UnixMilli()}))
		fly(c)
		return m
	}
	ack := func(c *Client, m id.MessageID, at topic.Position) {
		c.answered(m, wirev1.ServerFrame_builder{
			Ack: wirev1.Ack_builder{MessageId: m[:], ThreadId: th[:], Position: int64(at)}.Build(),
		}.Build())
	}
	keeps := func(what string, want ...id.MessageID) {
		t.Helper()
		saved, err := store.Load()
		must(t, err)
		var got []id.MessageID
		for _, o := range saved.Acked {
			got = append(got, o.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %v is kept, want %v", what, got, want)
		}
	}
	other := Identity{User: id.UserID{2}, Device: id.NewDevice()}

	c := open()
	lost := send(c)
	comes(c, me, lost, 5)
	must(t, store.SetWatermark(th, thread.Watermark{DeliveredPosition: 5, DeliveredOrdinal: 1})) // and it is killed

	c = open()
	fly(c)
	ack(c, lost, 9)
	c.pass()
	keeps("nothing is known of what is behind it", lost)
	next := send(c)
	comes(c, other, id.NewMessage(), 11)
	ack(c, next, 12)
	keeps("a rejection may be on its way", lost, next)
	c.pass()
	keeps("the thread got on", next)
	copied := send(c)
	comes(c, me, copied, 13)
	ack(c, copied, 14)
	keeps("it had come back", next)

	c = open() // killed again, and it connects to an edge that is behind
	comes(c, other, id.NewMessage(), 15)
	c.pass()
	keeps("the thread got on again")
}

// A client was restarted after an acknowledgement, and its edge is behind the message: what comes before it, however
// many synchronisations there are, says nothing of it, and when it is rejected then its text is there. The same goes
// for one whose position a store of before does not have.
func TestAckedIsKeptUntilItIsRejected(t *testing.T) {
	for name, at := range map[string]topic.Position{"its position is known": 12, "it is not": -1} {
		t.Run(name, func(t *testing.T) {
			me, th, m := Identity{User: id.UserID{1}, Device: id.NewDevice()}, id.NewGroup(), id.NewMessage()
			store := NewMemoryStore()
			must(t, store.SetIdentity(me))
			must(t, store.Put(Outgoing{Thread: th, ID: m, Data: []byte("hi")}), store.Acked(m, at))
			c, err := New(Config{Addrs: []string{"127.0.0.1:1"}, Store: store, AckInterval: time.Hour})
			must(t, err)
			other := Identity{User: id.UserID{2}, Device: id.NewDevice()}
			for _, before := range []topic.Position{8, 9, 10} {
				must(t, c.event(eventFrame(t, th, before, other, id.NewMessage(), "x").GetEvent()))
				c.pass()
			}
			must(t, c.handle(&conn{}, wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
				ThreadId: th[:], MessageId: m[:], Position: 12, Code: wirev1.Code_CODE_NOT_A_MEMBER,
			}.Build()}.Build()))
			if got := c.Unsent(); len(got) != 1 || got[0].ID != m || string(got[0].Data) != "hi" {
				t.Errorf("unsent: %+v, want the message with its text", got)
			}
		})
	}
}

// fly has the first message that waits be on its way.
func fly(c *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inflight[c.waiting[0].ID], c.waiting = c.waiting[0], c.waiting[1:]
}
