package client

import (
	"context"
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestRejectionIsToldOnce: servers tell at each Sync which messages were rejected. Of each the application hears once,
// and not at all of an earlier try of a message that has come back.
func TestRejectionIsToldOnce(t *testing.T) {
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
	send := func(c *Client) id.MessageID {
		t.Helper()
		m := id.NewMessage()
		must(t, c.SendRaw(Outgoing{Thread: th, ID: m, Data: []byte("hi"), ClientTimeMS: time.Now().UnixMilli()}))
		return m
	}
	fly := func(c *Client, m id.MessageID) id.MessageID { // it is on its way
		c.mu.Lock()
		defer c.mu.Unlock()
		c.inflight[m], c.waiting = c.waiting[0], c.waiting[1:]
		return m
	}
	ack := func(c *Client, m id.MessageID, at topic.Position) {
		c.answered(m, wirev1.ServerFrame_builder{
			Ack: wirev1.Ack_builder{MessageId: m[:], ThreadId: th[:], Position: int64(at)}.Build(),
		}.Build())
	}
	echo := func(c *Client, m id.MessageID, at topic.Position) {
		t.Helper()
		f := eventFrame(t, th, at, me, m, "hi")
		must(t, c.event(f.GetEvent()))
	}
	reject := func(c *Client, m id.MessageID, at topic.Position) {
		t.Helper()
		must(t, c.handle(&conn{}, wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
			ThreadId: th[:], MessageId: m[:], Position: int64(at), Code: wirev1.Code_CODE_NOT_A_MEMBER,
		}.Build()}.Build()))
	}
	kept := func(want ...id.MessageID) {
		t.Helper()
		saved, err := store.Load()
		must(t, err)
		if len(saved.Outbox) != 0 || len(saved.Acked) != len(want) {
			t.Fatalf("stored: %+v, want %v acknowledged", saved, want)
		}
		for i, a := range saved.Acked {
			if a.ID != want[i] || string(a.Data) != "hi" {
				t.Errorf("stored: %+v, want %v", a, want[i])
			}
		}
	}
	rejected := func(c *Client) (got []Rejected) {
		c.queue.close()
		for e := range c.Events(context.Background()) {
			if r, ok := e.(Rejected); ok {
				got = append(got, r)
			}
		}
		return got
	}
	stop := func(c *Client) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flush != nil {
			c.flush.Stop()
		}
	}

	c := open()
	first, second, third := fly(c, send(c)), fly(c, send(c)), fly(c, send(c))
	ack(c, first, 10)
	echo(c, first, 10)
	echo(c, second, 11) // before its ack
	ack(c, second, 11)
	ack(c, third, 13)
	kept(third)
	if n := c.Outbox(); n != 0 {
		t.Errorf("%d wait to be sent", n)
	}
	stop(c)

	c = open()           // restarted
	reject(c, second, 9) // an earlier try of one that came back
	reject(c, third, 13)
	reject(c, third, 13) // at each Sync
	kept()
	must(t, c.Forget(third))
	reject(c, third, 13)
	fourth := fly(c, send(c))
	echo(c, fourth, 15)
	reject(c, fourth, 14) // an earlier try
	ack(c, fourth, 15)
	if n := len(c.Unsent()); n != 0 {
		t.Errorf("%d are not sent, want none", n)
	}
	got := rejected(c)
	if len(got) != 1 || got[0].ID != third || string(got[0].Message.Data) != "hi" {
		t.Errorf("told of rejections: %+v, want the third with its text, once", got)
	}
	stop(c)
}
