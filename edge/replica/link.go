package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// conn is a link to one delivery instance.
type conn struct {
	// Fixed.
	to   link.Instance
	end  link.EdgeEnd
	wake chan struct{} // capacity 1: dirty is not empty, or asks
	asks atomic.Bool   // AskOwned is to be written

	// Reader, and after its end the goroutine that started it.
	owned map[topic.Slot]bool // what the instance says it owns

	mu    sync.Mutex // guards what follows; taken inside slots' locks
	dirty map[*slot]bool
}

// touch tells the writer that a slot has something to be written.
func (c *conn) touch(s *slot) {
	c.mu.Lock()
	c.dirty[s] = true
	c.mu.Unlock()
	poke(c.wake)
}

func (c *conn) takeDirty() map[*slot]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dirty
	c.dirty = map[*slot]bool{}
	return d
}

// runLinks keeps a link to every instance that the directory lists. One that is no longer listed keeps its link for as
// long as it holds.
func (r *Replica) runLinks(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	type end struct {
		of    link.Instance
		delay time.Duration
	}
	running, backoff := map[link.Instance]bool{}, map[string]time.Duration{} // the latter by instance
	ended := make(chan end)
	t := time.NewTimer(0)
	defer t.Stop()
	var listed map[link.Instance]bool
	ask := func() {
		qctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
		list, err := r.dir.Instances(qctx)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.log.Warn("cannot list the delivery instances", "err", err)
				r.metrics.errors.WithLabelValues("directory").Inc()
			}
			return
		}
		listed = map[link.Instance]bool{}
		for _, in := range list {
			listed[in] = true
			if running[in] {
				continue
			}
			running[in] = true
			before := backoff[in.Name]
			wg.Go(func() {
				delay := r.runLink(ctx, in, before)
				select {
				case ended <- end{in, delay}:
				case <-ctx.Done():
				}
			})
		}
	}
	for {
		select {
		case <-t.C:
			ask()
			t.Reset(refresh)
		case e := <-ended:
			delete(running, e.of)
			backoff[e.of.Name] = e.delay
			if listed[e.of] { // at once, and with the backoff that runLink has waited
				t.Reset(0)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// runLink holds one link until it ends, and waits a little before it returns: longer than it did before, unless the
// link has held for a while.
func (r *Replica) runLink(ctx context.Context, in link.Instance, before time.Duration) (delay time.Duration) {
	began := time.Now()
	err := r.serveLink(ctx, in)
	if ctx.Err() != nil {
		return before
	}
	r.log.Warn("link to a delivery instance ended", "instance", in.Name, "err", err)
	r.metrics.errors.WithLabelValues("link").Inc()
	if time.Since(began) > 2*retryMax {
		before = 0
	}
	delay = min(max(2*before, retryMin), retryMax)
	sleep(ctx, delay/2+rand.N(delay/2+1))
	return delay
}

func (r *Replica) serveLink(ctx context.Context, in link.Instance) error {
	dctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	end, err := r.dialer.Dial(dctx, in)
	cancel()
	if err != nil {
		return fmt.Errorf("dial delivery instance %s: %w", in.Name, err)
	}
	c := &conn{to: in, end: end, wake: make(chan struct{}, 1), owned: map[topic.Slot]bool{}, dirty: map[*slot]bool{}}
	r.links.enter(c)
	defer r.links.leave(c)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.writeLink(gctx, c) })
	g.Go(func() error { return r.readLink(gctx, c) })
	err = g.Wait()
	for n := range c.owned {
		r.release(r.slots[n], c)
	}
	return errors.Join(err, end.Close())
}

func (r *Replica) writeLink(ctx context.Context, c *conn) error {
	hello := linkv1.ToDelivery_builder{
		Hello: linkv1.EdgeHello_builder{Edge: r.cfg.Name, Refusals: true}.Build(),
	}.Build()
	if err := c.end.Send(ctx, hello); err != nil {
		return fmt.Errorf("write to link: %w", err)
	}
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil
		}
		if c.asks.Swap(false) {
			if err := c.end.Send(ctx, linkv1.ToDelivery_builder{AskOwned: &linkv1.AskOwned{}}.Build()); err != nil {
				return fmt.Errorf("write to link: %w", err)
			}
		}
		for s := range c.takeDirty() {
			for _, m := range s.frames(c, r.cfg.Batch, r.clock.slot(s.n), func() uint64 { return r.requests.Add(1) }) {
				if err := c.end.Send(ctx, m); err != nil {
					return fmt.Errorf("write to link: %w", err)
				}
			}
		}
	}
}

func (r *Replica) readLink(ctx context.Context, c *conn) error {
	for {
		m, err := c.end.Recv(ctx)
		if err != nil {
			return fmt.Errorf("read from link: %w", err)
		}
		if err := r.frame(c, m); err != nil {
			return fmt.Errorf("read from link: %w", err)
		}
	}
}

// frame takes in one frame. It runs on the link's reader.
func (r *Replica) frame(c *conn, m *linkv1.ToEdge) error {
	switch m.WhichBody() {
	case linkv1.ToEdge_Owned_case:
		return r.owned(c, m.GetOwned())
	case linkv1.ToEdge_Subscribed_case:
		a := m.GetSubscribed()
		s, err := r.slotNumber(a.GetSlot())
		if err != nil {
			return err
		}
		if a.GetNotOwner() {
			r.notOwner(s, c, a.GetId())
			return nil
		}
		r.in(s, func(*actions) {
			if s.owner == c {
				r.subscribed(s, a.GetId(), link.DecodeCursor(a.GetLiveFrom()), a.GetRefused())
			}
		})
	case linkv1.ToEdge_Events_case:
		e := m.GetEvents()
		s, err := r.slotNumber(e.GetSlot())
		if err != nil {
			return err
		}
		if t, err := topic.FromNumber(e.GetTopic()); err == nil {
			r.events(s, c, t, e.GetRecords())
		} else { // a delivery instance of a later version; what of it concerns a view is in the log
			r.metrics.drops.WithLabelValues(dropTopic).Add(float64(len(e.GetRecords())))
		}
	case linkv1.ToEdge_Progress_case:
		for _, p := range m.GetProgress().GetSlots() {
			s, err := r.slotNumber(p.GetSlot())
			if err != nil {
				return err
			}
			s.mu.Lock()
			if s.owner == c {
				s.progress(link.DecodeCursor(p.GetNext()))
				if s.silent {
					r.silent.leave(s)
				}
			}
			s.mu.Unlock()
		}
	}
	return nil
}

func (r *Replica) slotNumber(n int32) (*slot, error) {
	if n < 0 || int(n) >= len(r.slots) {
		return nil, fmt.Errorf("slot %d is not one of %d", n, len(r.slots))
	}
	return r.slots[n], nil
}

func (r *Replica) owned(c *conn, o *linkv1.Owned) error {
	now := map[topic.Slot]bool{}
	for _, n := range o.GetSlots() {
		s, err := r.slotNumber(n)
		if err != nil {
			return err
		}
		now[s.n] = true
	}
	before := c.owned
	c.owned = now
	for n := range now {
		s := r.slots[n]
		s.mu.Lock()
		if !before[n] || s.owner == nil { // who says so last is believed
			s.claims = append(slices.DeleteFunc(s.claims, func(o *conn) bool { return o == c }), c)
			r.setOwner(s, c)
		}
		s.mu.Unlock()
	}
	for n := range before {
		if !now[n] {
			r.release(r.slots[n], c)
		}
	}
	return nil
}

// notOwner takes in that the instance does not own the slot of a Subscribe. It says nothing when the slot has been
// given up and taken again since it was sent: the answer then comes after the Owned that lists the slot, and who
// believed it would have no owner for as long as nothing else moves. It runs on the link's reader.
func (r *Replica) notOwner(s *slot, c *conn, id uint64) {
	s.mu.RLock()
	_, asked := s.requests[id] // of the owner as it is believed now
	s.mu.RUnlock()
	if asked {
		delete(c.owned, s.n)
		r.release(s, c)
	}
}

// release takes a slot from a link, and gives it to another that claims it too.
func (r *Replica) release(s *slot, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = slices.DeleteFunc(s.claims, func(o *conn) bool { return o == c })
	if s.owner != c {
		return
	}
	var next *conn
	if n := len(s.claims); n > 0 {
		next = s.claims[n-1]
	}
	r.setOwner(s, next)
}

// subscribed takes in the answer to a Subscribe. The caller holds the slot's lock.
func (r *Replica) subscribed(s *slot, id uint64, liveFrom topic.Cursor, refused [][]byte) {
	q, ok := s.requests[id]
	if !ok {
		return
	}
	delete(s.requests, id)
	no := map[topic.Subject]bool{}
	for _, k := range refused {
		if len(k) == len(topic.Subject{}) {
			no[topic.Subject(k)] = true
		}
	}
	for _, sub := range q.subjects {
		switch _, waits := s.unacked[sub]; {
		case sub.gone:
			continue
		case q.resume && !waits:
			continue
		case !q.resume && (sub.phase != asked || sub.pending.request != id && !sub.pending.repeated):
			continue
		case no[sub.key]:
			r.refuse(s, sub)
			continue
		case q.resume:
			delete(s.unacked, sub)
			sub.isLate = false
			if !sub.gap(q.from, liveFrom) {
				continue
			}
			r.metrics.gaps.Inc()
			sub.pending = &pending{since: time.Now(), bornAt: -1}
			s.waiting[sub] = struct{}{}
			r.expect(s)
		}
		p := sub.pending
		sub.phase, p.liveFrom, p.ackedAt = loading, liveFrom, s.progressed
		if t := sub.thread; t != nil && !t.loaded() && p.bornAt >= 0 && liveFrom.At(topic.Threads) <= p.bornAt {
			r.born(t)
			continue
		}
		r.loads.push(sub)
	}
}

// refuse takes in that the link has no room for a subject: whoever waits for it is told so, and it is asked for again
// after a while. The caller holds the slot's lock.
func (r *Replica) refuse(s *slot, sub *subject) {
	delete(s.unacked, sub)
	if sub.pending == nil {
		sub.pending = &pending{since: time.Now(), bornAt: -1}
	}
	sub.phase, sub.pending.refused, sub.pending.repeated = wanted, true, false
	sub.pending.refusedAt = time.Now()
	sub.pending.backlog.take(r.cfg.Budget)
	s.waiting[sub] = struct{}{}
	r.expect(s)
	r.metrics.refused.Inc()
	closed(&sub.news)
	if t := sub.thread; t != nil && !sub.noRoom {
		s.note(late{t.id(), ErrNoRoom}, t.locals...)
	}
	sub.noRoom = true
}

// again asks anew for a subject that was refused a while ago, for somebody who begins to wait for it, and for all of
// its slot that were: whoever waits for one after the other then does so for one answer, and a refusal of just now
// holds. The caller holds the slot's lock.
func (r *Replica) again(s *slot, sub *subject) {
	if sub.full() == nil || time.Since(sub.pending.refusedAt) < lateAfter {
		return
	}
	for other := range s.waiting {
		if other.full() != nil {
			r.ask(s, other)
		}
	}
}

// full is the refusal of a subject that the link has no room for, nil when it has. The caller holds the slot's lock.
func (sub *subject) full() error {
	if sub.phase != wanted || !sub.pending.refused {
		return nil
	}
	return ErrNoRoom
}

// ErrNoRoom refuses a subject that the link to its slot's owner has no room for. It is asked for again after a while.
var ErrNoRoom error = noRoom{}

type noRoom struct{}

func (noRoom) Error() string { return "this edge follows as many threads and users as it may" }

// Unwrap returns what a client is told.
func (n noRoom) Unwrap() error {
	return &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE, Message: n.Error(), RetryAfter: lateAfter}
}

// gap tells whether events between what the subject has taken in and liveFrom are missing.
func (sub *subject) gap(from, liveFrom topic.Cursor) bool {
	switch {
	case sub.thread != nil:
		from.Raise(topic.Threads, sub.thread.next())
	default:
		from.Raise(topic.Users, sub.user.state.Next)
	}
	for _, t := range sub.topics() {
		if liveFrom.At(t) > from.At(t) {
			return true
		}
	}
	return false
}
