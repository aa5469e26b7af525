package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func markOf(n byte) []replica.Mark {
	return []replica.Mark{{
		User:      id.UserID{n},
		Watermark: thread.Watermark{DeliveredPosition: topic.Position(n), DeliveredOrdinal: int64(n)},
	}}
}

// Receipts for a device that does not read are bounded by pairs of thread and member; a pair that waits already costs
// nothing.
func TestReceiptsAreBounded(t *testing.T) {
	const most = 3
	var o outbox
	var l load
	put := func(th id.ThreadID, n byte) verdict { return o.putReceipts(th, markOf(n), most, &l) }
	a, b := id.NewGroup(), id.NewGroup()
	if got := put(a, 1); got != start {
		t.Fatalf("the first: %v", got)
	}
	for i, c := range []struct {
		thread id.ThreadID
		n      byte
		want   verdict
		wait   int64
	}{{a, 2, taken, 2}, {a, 2, taken, 2}, {b, 1, taken, 3}, {b, 2, full, 3}, {a, 1, full, 3}} {
		if got := put(c.thread, c.n); got != c.want || l.receipts.Load() != c.wait {
			t.Errorf("step %d: %v with %d waiting, want %v with %d", i, got, l.receipts.Load(), c.want, c.wait)
		}
	}
	freed := make(chan error, 1)
	go func() { freed <- o.waitReceipts(t.Context(), most) }()
	for waits := false; !waits; {
		o.mu.Lock()
		waits = o.room != nil
		o.mu.Unlock()
	}
	if buf := o.take(nil, &l); len(buf) == 0 || l.receipts.Load() != 0 {
		t.Errorf("%d bytes taken, %d receipts still wait", len(buf), l.receipts.Load())
	}
	if err := <-freed; err != nil {
		t.Errorf("waiting for room: %v", err)
	}
	put(a, 1)
	o.lag(nil, &l)
	if got := put(a, 2); got != lagging {
		t.Errorf("while lagging: %v", got)
	}
	if err := o.waitReceipts(t.Context(), most); !errors.Is(err, errLagging) {
		t.Errorf("waiting while lagging: %v", err)
	}
	if _, receipts := o.close(&l); receipts != 1 || l.receipts.Load() != 0 {
		t.Errorf("closed with %d receipts, %d counted as waiting", receipts, l.receipts.Load())
	}
	if err := o.waitReceipts(t.Context(), most); !errors.Is(err, errClosed) {
		t.Errorf("waiting after the end: %v", err)
	}
}

// Pushes for a device that does not read are bounded in frames and bytes; answers go on for a while.
func TestPushesAreBounded(t *testing.T) {
	for name, c := range map[string]struct{ frames, bytes, want int }{
		"in frames": {4, 1 << 20, 4},
		"in bytes":  {4096, 8 << 10, 8},
	} {
		var o outbox
		var l load
		put := func(push bool) verdict { return o.put(make([]byte, 1<<10), push, false, c.frames, c.bytes, &l) }
		n := 0
		for n < 100 && put(true) != full {
			n++
		}
		if n != c.want {
			t.Errorf("%s: %d pushes wait, want %d", name, n, c.want)
		}
		if v := put(false); v != taken {
			t.Errorf("%s: an answer behind them: %v", name, v)
		}
	}
}

// The age of an outbox is that of the oldest frame or receipt in it.
func TestOldestInAnOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outbox
		var l load
		age := func(want time.Duration) {
			t.Helper()
			if got := o.oldest(); got != want {
				t.Errorf("the oldest has waited %v, not %v", got, want)
			}
		}
		age(0)
		o.putReceipts(id.NewGroup(), markOf(1), 10, &l)
		time.Sleep(time.Second)
		o.put(make([]byte, writeChunk), true, false, 10, 1<<20, &l)
		time.Sleep(time.Second)
		o.put([]byte{1}, true, false, 10, 1<<20, &l)
		time.Sleep(time.Second)
		age(3 * time.Second)
		o.take(nil, &l) // the first frame; receipts come last
		age(3 * time.Second)
		o.take(nil, &l)
		age(0)
		o.put([]byte{1}, true, false, 10, 1<<20, &l)
		time.Sleep(time.Second)
		age(time.Second)
		o.lag([]byte{2}, &l)
		time.Sleep(time.Second)
		age(time.Second)
	})
}
