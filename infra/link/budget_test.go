package link

import (
	"errors"
	"testing"

	"heliograph/infra/budget"
)

// The queues of all links have one bound: with many links that nobody reads each takes less, one that is read goes on,
// and what is taken or closed is free again.
func TestQueuesShareABudget(t *testing.T) {
	const one, limit = 60 << 10, 64 << 20
	b := budget.New(4*limit, nil)
	open := func() *queue[int] {
		q := newQueue[int](0, 0, func(int) int { return one })
		q.budget = b
		return q
	}
	links := make([]*queue[int], 40) // 1.25 GiB by their own bounds
	for i := range links {
		links[i] = open()
	}
	for range DefaultQueueBytes / one {
		for _, q := range links {
			if err := q.put(1); err != nil && !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
		}
	}
	if used := b.Used(); used > limit+int64(len(links))*leastBytes || used < limit/2 {
		t.Errorf("%d bytes wait, of a limit of %d", used, limit)
	}
	read := open()
	for range 100 {
		if err := read.put(1); err != nil {
			t.Fatal(err)
		}
		if _, err := read.take(t.Context(), nil, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range links {
		q.close(ErrClosed)
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes are counted when nothing waits", b.Used())
	}
}
