package link

import (
	"context"
	"sync"

	"heliograph/infra/budget"
	linkv1 "heliograph/schemas/link/v1"
)

// Defaults of the queues.
const (
	DefaultQueue      = 4096     // frames
	DefaultQueueBytes = 32 << 20 // roughly: what the frames' records weigh
	leastBytes        = 1 << 20  // of them, however little memory is free
	recordWeight      = 32       // of a record or a subject besides its bytes
	frameWeight       = 64
)

// queue is one way of a link: bounded in frames and bytes, many writers, one reader.
type queue[T any] struct {
	max, maxBytes int
	weigh         func(T) int
	ready         chan struct{} // capacity 1: items were added
	done          chan struct{} // closed by close
	budget        *budget.Budget

	mu     sync.Mutex // guards what follows
	items  []T
	head   int
	bytes  int
	err    error
	room   chan struct{} // closed and replaced when items are taken while somebody waits
	waiter int
}

func newQueue[T any](max, maxBytes int, weigh func(T) int) *queue[T] {
	if max <= 0 {
		max = DefaultQueue
	}
	if maxBytes <= 0 {
		maxBytes = DefaultQueueBytes
	}
	return &queue[T]{
		max:      max,
		maxBytes: maxBytes,
		weigh:    weigh,
		ready:    make(chan struct{}, 1),
		done:     make(chan struct{}),
		room:     make(chan struct{}),
	}
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head
}

// add appends; the caller holds mu.
func (q *queue[T]) add(v T, w int) {
	q.items = append(q.items, v)
	q.bytes += w
	q.budget.Add(w)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// fits tells whether a frame of weight w may be added to a queue of so many frames and bytes. An empty queue takes a
// frame of any size, which the frame limit bounds already; the caller holds mu.
func (q *queue[T]) fits(w, max, maxBytes int) bool {
	n := len(q.items) - q.head
	return n == 0 || n < max && q.bytes+w <= min(maxBytes, atLeast(leastBytes, q.budget.Most(maxBytes)))
}

func atLeast(least, n int) int { return max(least, n) }

func (q *queue[T]) put(v T) error {
	w := q.weigh(v)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.err != nil:
		return q.err
	case !q.fits(w, q.max, q.maxBytes):
		return ErrFull
	}
	q.add(v, w)
	return nil
}

// putWait waits until the queue is filled by at most 1/part.
func (q *queue[T]) putWait(ctx context.Context, v T, part int) error {
	w := q.weigh(v)
	for {
		q.mu.Lock()
		if q.err != nil {
			q.mu.Unlock()
			return q.err
		}
		if q.fits(w, (q.max+part-1)/part, q.maxBytes/part) {
			q.add(v, w)
			q.mu.Unlock()
			return nil
		}
		q.waiter++
		room := q.room
		q.mu.Unlock()
		var err error
		select {
		case <-room:
		case <-q.done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		q.mu.Lock()
		q.waiter--
		q.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take appends up to n queued frames to dst, waiting for the first.
func (q *queue[T]) take(ctx context.Context, dst []T, n int) ([]T, error) {
	for {
		q.mu.Lock()
		if q.err != nil {
			q.mu.Unlock()
			return dst, q.err
		}
		if have := len(q.items) - q.head; have > 0 {
			n = min(n, have)
			part := q.items[q.head : q.head+n]
			dst = append(dst, part...)
			for _, v := range part {
				w := q.weigh(v)
				q.bytes -= w
				q.budget.Add(-w)
			}
			clear(part)
			q.head += n
			switch {
			case q.head == len(q.items):
				q.items, q.head = q.items[:0], 0
				if cap(q.items) > 1024 {
					q.items = nil
				}
			case q.head > len(q.items)/2 && q.head > 64:
				rest := copy(q.items, q.items[q.head:])
				clear(q.items[rest:])
				q.items, q.head = q.items[:rest], 0
			}
			if q.waiter > 0 {
				close(q.room)
				q.room = make(chan struct{})
			}
			q.mu.Unlock()
			return dst, nil
		}
		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-q.done:
		case <-ctx.Done():
			return dst, context.Cause(ctx)
		}
	}
}

// close empties the queue; whoever waits gets err.
func (q *queue[T]) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	q.err = err
	q.budget.Add(-q.bytes)
	q.items, q.head, q.bytes = nil, 0, 0
	close(q.done)
}

func weighToEdge(m *linkv1.ToEdge) int {
	n := frameWeight
	switch m.WhichBody() {
	case linkv1.ToEdge_Events_case:
		for _, r := range m.GetEvents().GetRecords() {
			n += recordWeight + len(r.GetKey()) + len(r.GetValue())
		}
	case linkv1.ToEdge_Progress_case:
		n += recordWeight * len(m.GetProgress().GetSlots())
	}
	return n
}

func weighToDelivery(m *linkv1.ToDelivery) int {
	switch m.WhichBody() {
	case linkv1.ToDelivery_Subscribe_case:
		return frameWeight + recordWeight*len(m.GetSubscribe().GetSubjects())
	case linkv1.ToDelivery_Unsubscribe_case:
		return frameWeight + recordWeight*len(m.GetUnsubscribe().GetSubjects())
	}
	return frameWeight
}
