package history

import (
	"context"
	"sync"
	"time"
)

// positionTimeout bounds one insert of positions; it is detached from the slots that wait for it.
const positionTimeout = 30 * time.Second

// positions writes the rows of several slots in one insert: while one is under way, the rows of the slots that come
// meanwhile gather for the next. An insert costs the engine the same for one row as for many. A row is idempotent (the
// table keeps the highest), so no token is needed.
type positions struct {
	insert func(ctx context.Context, rows []positionRow) error

	mu      sync.Mutex // guards the rest
	rows    []positionRow
	waiting []chan error // one for each put that is part of rows
	running bool
}

// put writes rows and returns when they are stored. When ctx ends first they may still be.
func (p *positions) put(ctx context.Context, rows []positionRow) error {
	done := make(chan error, 1)
	p.mu.Lock()
	p.rows = append(p.rows, rows...)
	p.waiting = append(p.waiting, done)
	if !p.running {
		p.running = true
		go p.run(context.WithoutCancel(ctx)) // ends when nothing waits: every put that it serves is awaited by its slot
	}
	p.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *positions) run(ctx context.Context) {
	for {
		p.mu.Lock()
		rows, waiting := p.rows, p.waiting
		p.rows, p.waiting = nil, nil
		p.running = len(rows) > 0
		p.mu.Unlock()
		if len(rows) == 0 {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, positionTimeout)
		err := p.insert(bounded, rows)
		cancel()
		for _, done := range waiting {
			done <- err
		}
	}
}
