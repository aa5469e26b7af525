package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// conn is a link to one delivery instance.
type conn struct {
	// Fixed.
	to   link.Instance
	end  link.EdgeEnd
	wake chan struct{} // capacity 1: dirty is not empty

	// Guarded by Hub.linkMu.
	owned map[topic.Slot]bool // what the instance says it owns

	mu    sync.Mutex // guards what follows; taken inside slots' locks
	dirty map[*slot]bool
}

// touch tells the writer that a slot has something to be written.
func (c *conn) touch(s *slot) {
	c.mu.Lock()
	c.dirty[s] = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
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
func (h *Hub) runLinks(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[link.Instance]bool{}
	ended := make(chan link.Instance)
	t := time.NewTimer(0)
	defer t.Stop()
	var listed map[link.Instance]bool
	ask := func() {
		qctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
		list, err := h.dir.Instances(qctx)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				h.log.Warn("cannot list the delivery instances", "err", err)
				h.metrics.errors.WithLabelValues("directory").Inc()
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
			wg.Go(func() {
				h.runLink(ctx, in)
				select {
				case ended <- in:
				case <-ctx.Done():
				}
			})
		}
	}
	for {
		select {
		case <-t.C:
			ask()
			t.Reset(h.cfg.Refresh)
		case in := <-ended:
			delete(running, in)
			if listed[in] { // at once, and with the backoff that runLink has waited
				t.Reset(0)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// runLink holds one link until it ends, and waits a little before it returns.
func (h *Hub) runLink(ctx context.Context, in link.Instance) {
	began := time.Now()
	err := h.serveLink(ctx, in)
	if ctx.Err() != nil {
		return
	}
	h.log.Warn("link to a delivery instance ended", "instance", in.Name, "err", err)
	h.metrics.errors.WithLabelValues("link").Inc()
	h.linkMu.Lock()
	delay := h.backoff[in.Name]
	if time.Since(began) > 2*h.cfg.RetryMax {
		delay = 0
	}
	delay = min(max(2*delay, h.cfg.RetryMin), h.cfg.RetryMax)
	h.backoff[in.Name] = delay
	h.linkMu.Unlock()
	sleep(ctx, delay/2+rand.N(delay/2+1))
}

func (h *Hub) serveLink(ctx context.Context, in link.Instance) error {
	dctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	end, err := h.dialer.Dial(dctx, in)
	cancel()
	if err != nil {
		return fmt.Errorf("dial delivery instance %s: %w", in.Name, err)
	}
	c := &conn{to: in, end: end, wake: make(chan struct{}, 1), owned: map[topic.Slot]bool{}, dirty: map[*slot]bool{}}
	h.linkMu.Lock()
	h.conns[c] = true
	h.linkMu.Unlock()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.writeLink(gctx, c) })
	g.Go(func() error { return h.readLink(gctx, c) })
	err = g.Wait()
	h.linkMu.Lock()
	delete(h.conns, c)
	clear(c.owned)
	for _, s := range h.slots {
		h.release(s, c)
	}
	h.linkMu.Unlock()
	return errors.Join(err, end.Close())
}

func (h *Hub) writeLink(ctx context.Context, c *conn) error {
	hello := linkv1.ToDelivery_builder{Hello: linkv1.EdgeHello_builder{Edge: h.cfg.Name}.Build()}.Build()
	if err := c.end.Send(ctx, hello); err != nil {
		return fmt.Errorf("write to link: %w", err)
	}
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil
		}
		for s := range c.takeDirty() {
			for _, m := range s.frames(c, h.cfg.Batch, h.views.slot(s.n), func() uint64 { return h.requests.Add(1) }) {
				if err := c.end.Send(ctx, m); err != nil {
					return fmt.Errorf("write to link: %w", err)
				}
			}
		}
	}
}

func (h *Hub) readLink(ctx context.Context, c *conn) error {
	for {
		m, err := c.end.Recv(ctx)
		if err != nil {
			return fmt.Errorf("read from link: %w", err)
		}
		if err := h.frame(c, m); err != nil {
			return fmt.Errorf("read from link: %w", err)
		}
	}
}

// frame takes in one frame. It runs on the link's reader.
func (h *Hub) frame(c *conn, m *linkv1.ToEdge) error {
	switch m.WhichBody() {
	case linkv1.ToEdge_Owned_case:
		return h.owned(c, m.GetOwned())
	case linkv1.ToEdge_Subscribed_case:
		a := m.GetSubscribed()
		s, err := h.slotNumber(a.GetSlot())
		if err != nil {
			return err
		}
		if a.GetNotOwner() {
			h.linkMu.Lock()
			delete(c.owned, s.n)
			h.release(s, c)
			h.linkMu.Unlock()
			return nil
		}
		var after actions
		s.mu.Lock()
		if s.owner == c {
			h.subscribed(s, a.GetId(), link.DecodeCursor(a.GetLiveFrom()), &after)
		}
		s.mu.Unlock()
		after.run()
	case linkv1.ToEdge_Events_case:
		e := m.GetEvents()
		s, err := h.slotNumber(e.GetSlot())
		if err != nil {
			return err
		}
		if t, err := topic.FromNumber(e.GetTopic()); err == nil {
			h.events(s, c, t, e.GetRecords())
		} else { // a delivery instance of a later version; what of it concerns a view is in the log
			h.metrics.drops.WithLabelValues("unknown_topic").Add(float64(len(e.GetRecords())))
		}
	case linkv1.ToEdge_Progress_case:
		for _, p := range m.GetProgress().GetSlots() {
			s, err := h.slotNumber(p.GetSlot())
			if err != nil {
				return err
			}
			s.mu.Lock()
			if s.owner == c {
				s.progress(link.DecodeCursor(p.GetNext()))
			}
			s.mu.Unlock()
		}
	}
	return nil
}

func (h *Hub) slotNumber(n int32) (*slot, error) {
	if n < 0 || int(n) >= len(h.slots) {
		return nil, fmt.Errorf("slot %d is not one of %d", n, len(h.slots))
	}
	return h.slots[n], nil
}

func (h *Hub) owned(c *conn, o *linkv1.Owned) error {
	now := map[topic.Slot]bool{}
	for _, n := range o.GetSlots() {
		s, err := h.slotNumber(n)
		if err != nil {
			return err
		}
		now[s.n] = true
	}
	h.linkMu.Lock()
	defer h.linkMu.Unlock()
	before := c.owned
	c.owned = now
	for _, s := range h.slots {
		switch {
		case now[s.n] && !before[s.n]: // who says so last is believed
			s.mu.Lock()
			s.setOwner(c)
			s.mu.Unlock()
		case !now[s.n]:
			h.release(s, c)
		}
	}
	return nil
}

// release takes a slot from a link, and gives it to another that claims it too. The caller holds linkMu.
func (h *Hub) release(s *slot, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != c {
		return
	}
	var next *conn
	for o := range h.conns {
		if o != c && o.owned[s.n] {
			next = o
			break
		}
	}
	s.setOwner(next)
}

// subscribed takes in the answer to a Subscribe. The caller holds the slot's lock.
func (h *Hub) subscribed(s *slot, request uint64, liveFrom topic.Cursor, after *actions) {
	r, ok := s.requests[request]
	if !ok {
		return
	}
	delete(s.requests, request)
	for _, sub := range r.subjects {
		if sub.gone || sub.request != request {
			continue
		}
		sub.ackedAt, sub.liveFrom = s.progressed, liveFrom
		if r.resume {
			if _, waits := s.unacked[sub]; !waits {
				continue
			}
			delete(s.unacked, sub)
			if !sub.gap(r.from, liveFrom) {
				continue
			}
			h.metrics.gaps.Inc()
			sub.asking = time.Now()
			s.waiting[sub] = struct{}{}
		} else if sub.phase != asked {
			continue
		}
		sub.phase, sub.held = loading, nil
		if t := sub.thread; t != nil && t.state == nil && t.bornAt >= 0 && liveFrom.At(topic.Threads) <= t.bornAt {
			h.born(t, after)
			continue
		}
		h.loads.push(sub)
	}
}

// gap tells whether events between what the subject has taken in and liveFrom are missing.
func (sub *subject) gap(from, liveFrom topic.Cursor) bool {
	switch {
	case sub.thread != nil:
		from.Raise(topic.Threads, sub.thread.state.Next)
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
