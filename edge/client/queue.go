package client

import (
	"context"
	"sync"
)

// slack is how many times its size a queue may grow while a request waits for its answer.
const slack = 64

// queue holds the events between the reader and the application. It is bounded: room waits while it is full. Only while
// requests wait for an answer, which comes behind the events on the same stream, may it grow beyond, up to slack times
// its size: so a request made inside the loop gets through.
type queue struct {
	size int

	mu      sync.Mutex // guards all below
	items   []Event
	calls   int
	closed  bool
	changed chan struct{}
}

func newQueue(size int) *queue { return &queue{size: size, changed: make(chan struct{})} }

// wake wakes every waiter. mu is held.
func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// room waits until the reader may read on; false when ctx ends first.
func (q *queue) room(ctx context.Context) bool {
	for {
		q.mu.Lock()
		n, changed := len(q.items), q.changed
		ok := n < q.size || q.calls > 0 && n < slack*q.size || q.closed
		q.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

func (q *queue) put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.items = append(q.items, e)
	if len(q.items) == 1 {
		q.wake()
	}
}

func (q *queue) putBack(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append([]Event{e}, q.items...)
	q.wake()
}

// take waits for an event; false when ctx has ended. After close it still gives what is left.
func (q *queue) take(ctx context.Context) (Event, bool) {
	for {
		if ctx.Err() != nil {
			return nil, false
		}
		q.mu.Lock()
		if len(q.items) > 0 {
			e := q.items[0]
			q.items[0] = nil
			q.items = q.items[1:]
			if len(q.items) == 0 {
				q.items = nil
			}
			if len(q.items) == q.size-1 || len(q.items) == 0 {
				q.wake()
			}
			q.mu.Unlock()
			return e, true
		}
		closed, changed := q.closed, q.changed
		q.mu.Unlock()
		if closed {
			return nil, false
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-changed:
		}
	}
}

// call counts a request that waits for its answer.
func (q *queue) call(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls += n
	q.wake()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
