package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"heliograph/schemas/topic"
)

// endsTimeout bounds a question for the log's end.
const endsTimeout = 2 * time.Second

// ends asks for the end of a topic on behalf of many: while a question is under way, those who come gather for the
// next, since an answer counts only for who had come before it was asked for.
type ends struct {
	ask func(ctx context.Context) ([]topic.Position, error)

	mu      sync.Mutex // guards what follows
	waiting []chan<- end
	running bool
}

type end struct {
	at  []topic.Position
	err error
}

func (e *ends) get(ctx context.Context) ([]topic.Position, error) {
	told := make(chan end, 1)
	e.mu.Lock()
	e.waiting = append(e.waiting, told)
	if !e.running {
		e.running = true
		go e.run(context.WithoutCancel(ctx)) // ends when nobody waits
	}
	e.mu.Unlock()
	select {
	case got := <-told:
		return got.at, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (e *ends) run(ctx context.Context) {
	for {
		e.mu.Lock()
		waiting := e.waiting
		e.waiting, e.running = nil, len(e.waiting) > 0
		e.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, endsTimeout)
		at, err := e.ask(bounded)
		cancel()
		for _, told := range waiting {
			told <- end{at, err}
		}
	}
}

// Ends returns the next position of a topic of threads or users in each slot, as the log has it at a moment after the
// call: whatever was acknowledged before lies before it. The slice is shared. Its error is ErrUnavailable, wrapped.
func (i *Ingest) Ends(ctx context.Context, t topic.Topic) ([]topic.Position, error) {
	e := i.ends[t]
	if e == nil {
		return nil, fmt.Errorf("%w: nobody asks for the end of %s", ErrUnavailable, t)
	}
	at, err := e.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return at, nil
}
