package client

import (
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// TestSendingReadsNothing: what a device sends moves its read watermark over itself, and over nothing that was not
// read.
func TestSendingReadsNothing(t *testing.T) {
	c, err := New(Config{Addrs: []string{"127.0.0.1:1"}, AckInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c.id = Identity{User: id.UserID{1}, Device: id.NewDevice()}
	th, other := id.NewGroup(), id.UserID{2}
	at := func(n int64) Place { return Place{Thread: th, Position: topic.Position(10 * n), Ordinal: n} }
	for _, step := range []struct {
		what string
		do   func()
		read int64
	}{
		{"the first", func() { c.apply(Message{Place: at(1), Sender: c.id.User, Device: c.id.Device}) }, 1},
		{"another's", func() { c.apply(Message{Place: at(2), Sender: other}) }, 1},
		{"one's own behind it", func() { c.apply(Message{Place: at(3), Sender: c.id.User, Device: c.id.Device}) }, 1},
		{"and one more", func() { c.apply(Message{Place: at(4), Sender: c.id.User, Device: c.id.Device}) }, 1},
		{"shown", func() { c.MarkRead(at(4)) }, 4},
		{"one's own", func() { c.apply(Message{Place: at(5), Sender: c.id.User, Device: c.id.Device}) }, 5},
		{"one's own other device's", func() { c.apply(Message{Place: at(6), Sender: c.id.User}) }, 5},
	} {
		step.do()
		if w := c.Watermark(th); w.ReadOrdinal != step.read || w.ReadPosition != topic.Position(10*step.read) {
			t.Errorf("%s: %+v, want read up to %d", step.what, w, step.read)
		}
	}
	if w := c.Watermark(th); w.DeliveredOrdinal != 6 {
		t.Errorf("%+v, want all delivered", w)
	}
}
