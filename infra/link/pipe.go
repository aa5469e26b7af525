package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	linkv1 "heliograph/schemas/link/v1"
)

// ends is what the ends of every kind of link have in common: two queues and a way to close.
type ends struct {
	toEdge     *queue[*linkv1.ToEdge]
	toDelivery *queue[*linkv1.ToDelivery]
	close      func(err error)
	peer       string
}

func newEnds(frames, bytes int) *ends {
	e := &ends{
		toEdge:     newQueue(frames, bytes, weighToEdge),
		toDelivery: newQueue(frames, bytes, weighToDelivery),
		peer:       "pipe",
	}
	e.close = e.closeQueues
	return e
}

func (e *ends) closeQueues(err error) {
	e.toEdge.close(err)
	e.toDelivery.close(err)
}

type edgeEnd struct{ *ends }

func (e edgeEnd) Send(ctx context.Context, m *linkv1.ToDelivery) error {
	return e.toDelivery.putWait(ctx, m, 1)
}

func (e edgeEnd) Recv(ctx context.Context) (*linkv1.ToEdge, error) { return first(ctx, e.toEdge) }

func (e edgeEnd) Close() error { e.close(ErrClosed); return nil }

type deliveryEnd struct{ *ends }

func (e deliveryEnd) Send(m *linkv1.ToEdge) error { return e.toEdge.put(m) }

func (e deliveryEnd) SendWait(ctx context.Context, m *linkv1.ToEdge) error {
	return e.toEdge.putWait(ctx, m, 2)
}

func (e deliveryEnd) Recv(ctx context.Context) (*linkv1.ToDelivery, error) {
	return first(ctx, e.toDelivery)
}

func (e deliveryEnd) Close() error { e.close(ErrClosed); return nil }

func (e deliveryEnd) Peer() string { return e.peer }

func (e deliveryEnd) Queued() int { return e.toEdge.len() }

func first[T any](ctx context.Context, q *queue[T]) (T, error) {
	var one [1]T
	_, err := q.take(ctx, one[:0], 1)
	return one[0], err
}

// Pipe returns the two ends of a link in one process. Each way holds at most so many frames (0: DefaultQueue) and
// DefaultQueueBytes; frames are handed over as they are.
func Pipe(queue int) (EdgeEnd, DeliveryEnd) {
	e := newEnds(queue, 0)
	return edgeEnd{e}, deliveryEnd{e}
}

// Local joins edges and delivery instances of one process: it is their Directory and their Dialer, and the instances'
// listener. The zero value is not usable; see NewLocal.
type Local struct {
	queue int

	mu      sync.Mutex // guards serving
	serving map[string]*localServer
}

type localServer struct {
	ctx    context.Context // the context of one Serve call: it ends the links that are waiting to be taken
	accept chan DeliveryEnd
}

// NewLocal returns a Local whose links hold so many frames each way; 0 means DefaultQueue.
func NewLocal(queue int) *Local {
	return &Local{queue: queue, serving: make(map[string]*localServer)}
}

// Instances lists the names that are being served now.
func (l *Local) Instances(context.Context) ([]Instance, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Instance
	for name := range l.serving {
		out = append(out, Instance{Name: name})
	}
	slices.SortFunc(out, func(a, b Instance) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Dial opens a link to the instance of that name.
func (l *Local) Dial(ctx context.Context, to Instance) (EdgeEnd, error) {
	l.mu.Lock()
	s := l.serving[to.Name]
	l.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("link: dial %s: no such instance in this process", to.Name)
	}
	edge, delivery := Pipe(l.queue)
	select {
	case s.accept <- delivery:
		return edge, nil
	case <-s.ctx.Done():
		return nil, fmt.Errorf("link: dial %s: %w", to.Name, ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("link: dial %s: %w", to.Name, context.Cause(ctx))
	}
}

// Serve gives the links that are dialled to name to handle, each on a goroutine of its own, until ctx is cancelled; it
// waits for all of them.
func (l *Local) Serve(ctx context.Context, name string, handle Handler) error {
	s := &localServer{ctx: ctx, accept: make(chan DeliveryEnd)}
	l.mu.Lock()
	if l.serving[name] != nil {
		l.mu.Unlock()
		return fmt.Errorf("link: serve %s: the name is taken", name)
	}
	l.serving[name] = s
	l.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		l.mu.Lock()
		delete(l.serving, name)
		l.mu.Unlock()
	}()
	for {
		select {
		case end := <-s.accept:
			wg.Go(func() {
				defer end.Close()
				_ = handle(ctx, end) // the handler logs and counts what ended it
			})
		case <-ctx.Done():
			return nil
		}
	}
}
