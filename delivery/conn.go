package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"heliograph/infra/link"
	"heliograph/infra/run"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// maxRequests is how many requests of one link may be under way; the link is not read further until one is done.
const maxRequests = 256

// conn is one link. The goroutine of ServeLink reads it; one goroutine per slot with requests serves them in order.
type conn struct {
	// Fixed.
	svc  *Service
	end  link.DeliveryEnd
	edge string
	// the edge reads refusals of single subjects; fixed once the hello came
	refusals bool
	fail     context.CancelCauseFunc // ends the link; may be called under any lock

	subjects atomic.Int64
	// a frame did not get into the link's queue, so none may follow it, which could tell the edge that it has what it
	// lacks
	lost     atomic.Bool
	requests chan struct{} // a token per request under way
	workers  sync.WaitGroup

	mu sync.Mutex // guards linkSlot.requests and linkSlot.busy; taken last
}

// request is a Subscribe or an Unsubscribe.
type request struct {
	drop     bool
	id       uint64
	subjects []topic.Subject
	from     *topic.Cursor
}

// linkError is why a link was ended by this side.
type linkError struct {
	reason string
	err    error
}

func (e *linkError) Error() string { return "link closed (" + e.reason + "): " + e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// failSend ends the link, to which nothing more of a slot is sent, although it takes a moment to end. Whoever sends
// in a slot's order calls it before another can.
func (c *conn) failSend(err error) {
	c.lost.Store(true)
	if errors.Is(err, link.ErrFull) {
		c.fail(&linkError{reasonSlow, err})
		return
	}
	c.fail(err)
}

// ServeLink serves one link until it ends or ctx is cancelled, and closes it. It may be called before Run and during
// it, from any goroutine; links outlive Run, without slots, until their own context ends. The error says why the link
// ended; it has been logged and counted. nil on cancellation.
func (s *Service) ServeLink(ctx context.Context, end link.DeliveryEnd) error {
	outer := ctx
	ctx, fail := context.WithCancelCause(ctx)
	c := &conn{svc: s, end: end, fail: fail, requests: make(chan struct{}, maxRequests)}
	err := run.Protect(func() error { return c.serve(ctx) })
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	fail(err)
	s.leave(c)
	_ = end.Close() // it is over either way
	c.workers.Wait()

	var ours *linkError
	reason := reasonPeer
	switch {
	case outer.Err() != nil:
		reason, err = reasonStop, nil
	case errors.As(err, &ours):
		reason = ours.reason
	case errors.Is(err, link.ErrMalformed):
		reason = reasonProtocol
	}
	s.metrics.closed.WithLabelValues(reason).Inc()
	if reason == reasonPeer || reason == reasonStop {
		s.log.Info("link ended", "edge", c.edge, "peer", end.Peer(), "reason", reason, "err", err)
	} else {
		s.log.Warn("link closed", "edge", c.edge, "peer", end.Peer(), "reason", reason, "err", err)
	}
	if err != nil {
		return fmt.Errorf("delivery: link of %s: %w", end.Peer(), err)
	}
	return nil
}

func (c *conn) serve(ctx context.Context) error {
	hello, cancel := context.WithTimeout(ctx, helloTimeout)
	m, err := c.end.Recv(hello)
	cancel()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return &linkError{reasonProtocol, errors.New("no hello came")}
		}
		return err
	}
	if m.WhichBody() != linkv1.ToDelivery_Hello_case {
		return &linkError{reasonProtocol, errors.New("the first frame is not a hello")}
	}
	c.edge, c.refusals = m.GetHello().GetEdge(), m.GetHello().GetRefusals()
	c.svc.log.Info("link opened", "edge", c.edge, "peer", c.end.Peer())
	c.svc.enter(c)
	for {
		m, err := c.end.Recv(ctx)
		if err != nil {
			return err
		}
		switch m.WhichBody() {
		case linkv1.ToDelivery_Subscribe_case:
			sub := m.GetSubscribe()
			r := request{id: sub.GetId(), subjects: subjectsOf(sub.GetSubjects())}
			if sub.HasFrom() {
				from := link.DecodeCursor(sub.GetFrom())
				r.from = &from
			}
			err = c.route(ctx, topic.Slot(sub.GetSlot()), r)
		case linkv1.ToDelivery_Unsubscribe_case:
			uns := m.GetUnsubscribe()
			err = c.route(ctx, topic.Slot(uns.GetSlot()), request{drop: true, subjects: subjectsOf(uns.GetSubjects())})
		case linkv1.ToDelivery_AskOwned_case:
			c.svc.answerOwned(c)
		case linkv1.ToDelivery_Hello_case:
			err = &linkError{reasonProtocol, errors.New("a second hello")}
		}
		if err != nil {
			return err
		}
	}
}

func subjectsOf(in [][]byte) []topic.Subject {
	out := make([]topic.Subject, 0, len(in))
	for _, b := range in {
		if len(b) == len(topic.Subject{}) { // the codec of a real link has refused others
			out = append(out, topic.Subject(b))
		}
	}
	return out
}

// route hands a request to the goroutine of its slot, in order.
func (c *conn) route(ctx context.Context, id topic.Slot, r request) error {
	if !r.drop && !c.refusals && c.subjects.Load()+int64(len(r.subjects)) > int64(c.svc.cfg.MaxSubjects) {
		return &linkError{reasonSubjects, fmt.Errorf("interest in more than %d subjects", c.svc.cfg.MaxSubjects)}
	}
	var ls *linkSlot
	if s := c.svc.slot(id); s != nil {
		ls = s.of(c)
	}
	if ls == nil {
		if r.drop {
			return nil
		}
		return c.notOwner(ctx, id, r)
	}
	select {
	case c.requests <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ls.requests = append(ls.requests, r)
	if !ls.busy {
		ls.busy = true
		c.workers.Go(func() { c.work(ctx, ls) })
	}
	return nil
}

func (c *conn) notOwner(ctx context.Context, id topic.Slot, r request) error {
	c.svc.metrics.subscribe.WithLabelValues(servedNotOwner).Inc()
	return c.end.SendWait(ctx, linkv1.ToEdge_builder{Subscribed: linkv1.Subscribed_builder{
		Id: r.id, Slot: int32(id), NotOwner: true,
	}.Build()}.Build())
}

// work serves the requests of one slot until none is left.
func (c *conn) work(ctx context.Context, ls *linkSlot) {
	for {
		c.mu.Lock()
		if len(ls.requests) == 0 {
			ls.busy = false
			c.mu.Unlock()
			return
		}
		r := ls.requests[0]
		ls.requests = ls.requests[1:]
		c.mu.Unlock()
		err := run.Protect(func() error {
			if r.drop {
				ls.unsubscribe(r.subjects)
				return nil
			}
			return ls.subscribe(ctx, r)
		})
		if err != nil {
			c.failSend(err)
		}
		<-c.requests
	}
}
