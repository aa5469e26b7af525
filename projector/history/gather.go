package history

import (
	"context"
	"sync"
	"time"

	"heliograph/schemas/topic"
)

// epochs are who owns slots.
type epochs map[topic.Slot]uint64

// gather writes the rows of several slots in one insert, and reads afterwards who owns them: while one is under way,
// the rows of the slots that come meanwhile gather for the next. An insert costs the engine the same for one row as for
// many. A row is idempotent (the table keeps the highest), so no token is needed.
type gather[R any] struct {
	insert func(ctx context.Context, rows []R) error
	owners func(ctx context.Context) (epochs, error)
	// timeout bounds an insert and the question after it; they are detached from the slots that wait for them, and end
	// no later than those give up.
	timeout time.Duration

	mu      sync.Mutex // guards the rest
	rows    []R
	waiting []chan owned // one for each put that is part of rows
	running bool
}

type owned struct {
	by  epochs // shared: not to be changed
	err error
}

// put writes rows and returns, when they are stored, who owned the slots after that. When ctx ends first they may still
// be.
func (g *gather[R]) put(ctx context.Context, rows []R) (epochs, error) {
	done := make(chan owned, 1)
	g.mu.Lock()
	g.rows = append(g.rows, rows...)
	g.waiting = append(g.waiting, done)
	if !g.running {
		g.running = true
		go g.run(context.WithoutCancel(ctx)) // ends when nothing waits: every put that it serves is awaited by its slot
	}
	g.mu.Unlock()
	select {
	case o := <-done:
		return o.by, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *gather[R]) run(ctx context.Context) {
	for {
		g.mu.Lock()
		rows, waiting := g.rows, g.waiting
		g.rows, g.waiting = nil, nil
		g.running = len(rows) > 0
		g.mu.Unlock()
		if len(rows) == 0 {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, g.timeout)
		var o owned
		if o.err = g.insert(bounded, rows); o.err == nil {
			o.by, o.err = g.owners(bounded)
		}
		cancel()
		for _, done := range waiting {
			done <- o
		}
	}
}
