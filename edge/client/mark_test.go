package client

import (
	"testing"
	"testing/synctest"
	"time"

	"heliograph/schemas/id"
)

// TestWatermarksGoAtOnceAndThenSeldom: the first after a quiet while goes in time for QUIC's acknowledgement, those
// behind it wait for the interval, and those that nobody looks at wait for one that somebody does.
func TestWatermarksGoAtOnceAndThenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Addrs: []string{"127.0.0.1:1"}, AckInterval: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		due := func(urgent bool) time.Duration {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.mark(id.ThreadID{1}, urgent)
			return time.Until(c.due)
		}
		sent := func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.flush.Stop()
			c.flush, c.flushed = nil, time.Now()
		}
		if d := due(false); d != patience*time.Second {
			t.Errorf("what nobody looks at is due in %v", d)
		}
		if d := due(true); d != firstAck {
			t.Errorf("the first after a quiet while is due in %v", d)
		}
		if d := due(false); d != firstAck {
			t.Errorf("what nobody looks at puts the send off to %v", d)
		}
		sent()
		time.Sleep(300 * time.Millisecond)
		if d := due(true); d != 700*time.Millisecond {
			t.Errorf("the next within the interval is due in %v", d)
		}
		sent()
		time.Sleep(2 * time.Second)
		if d := due(true); d != firstAck {
			t.Errorf("after another quiet while it is due in %v", d)
		}
		sent()
	})
}
