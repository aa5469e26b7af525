package client

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sent(n byte) Sent {
	var s Sent
	s.ID[0] = n
	return s
}

func TestQueueOrderAndPutBack(t *testing.T) {
	q := newQueue(2)
	ctx := t.Context()
	for i := range byte(3) {
		q.put(sent(i))
	}
	e, ok := q.take(ctx)
	if !ok || e != sent(0) {
		t.Fatalf("first is %v, %v", e, ok)
	}
	q.putBack(e)
	for i := range byte(3) {
		if e, ok := q.take(ctx); !ok || e != sent(i) {
			t.Fatalf("event %d is %v, %v", i, e, ok)
		}
	}
	q.put(sent(9))
	q.close()
	q.put(sent(10))
	if e, ok := q.take(ctx); !ok || e != sent(9) {
		t.Fatalf("after close: %v, %v", e, ok)
	}
	if _, ok := q.take(ctx); ok {
		t.Fatal("something was put after close")
	}
}

func TestQueueEndsWithContext(t *testing.T) {
	q := newQueue(2)
	q.put(sent(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if e, ok := q.take(ctx); ok {
		t.Fatalf("took %v after the context's end", e)
	}
}

// A full queue stops the reader, a request that waits for its answer lets it go on, and taking makes room again.
func TestQueueRoom(t *testing.T) {
	q := newQueue(2)
	ctx := t.Context()
	full := func() bool {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		return !q.room(short)
	}
	q.put(sent(0))
	if full() {
		t.Fatal("full with one of two")
	}
	q.put(sent(1))
	if !full() {
		t.Fatal("room with two of two")
	}
	q.call(1)
	if full() {
		t.Fatal("a request waits, but the reader may not go on")
	}
	for i := range slack*2 - 2 {
		q.put(sent(byte(i)))
	}
	if !full() {
		t.Fatalf("room beyond %d times the size", slack)
	}
	q.call(-1)
	done := make(chan bool, 1)
	go func() { done <- q.room(ctx) }()
	for range slack*2 - 1 {
		q.take(ctx)
	}
	select {
	case ok := <-done:
		if !ok {
			t.Fatal("no room though it is nearly empty")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the reader was not woken")
	}
}
