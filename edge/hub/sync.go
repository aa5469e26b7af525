package hub

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Sync sends the session what it lacks (wire section 5) and then makes it live. It may run again at any time. It
// returns nil without SyncComplete when the session lagged meanwhile: Session.Lagged was called, and the client will
// ask again.
func (h *Hub) Sync(ctx context.Context, s Session) error {
	c := h.client(s)
	if c == nil {
		return wire.Errorf(wirev1.Code_CODE_NOT_AUTHENTICATED, "the session is not attached")
	}
	began := time.Now()
	err := h.sync(ctx, c)
	if err == nil {
		h.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	}
	return err
}

// sync is a session's Sync.
//
// The order within a thread is kept like this. From the first moment on, events of the stream are held back (state
// syncing). Then, for one thread after the other and under its slot's lock, its last position is taken as the target.
// What is after the target will be held back, since it was not yet applied; what is up to the target, and after the
// device's cursor, is read from the views once they have got there. So the two join without a gap, and what was held
// back up to the target is dropped as superfluous.
func (h *Hub) sync(ctx context.Context, c *client) (err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return unavailable(context.Cause(ctx))
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	if c.state == closed {
		c.mu.Unlock()
		return ended()
	}
	c.reset(syncing)
	epoch := c.epoch
	c.mu.Unlock()
	h.metrics.syncing.Inc()
	defer h.metrics.syncing.Dec()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil && c.epoch == epoch { // the client asks again
			c.reset(off)
		}
	}()
	send := func(frame []byte) error {
		if err := c.sess.PushWait(ctx, frame); err != nil {
			return err
		}
		h.metrics.pushes.Inc()
		return nil
	}
	list, err := h.threadsOf(ctx, c)
	if err != nil {
		return err
	}
	told := false
	for receipts := true; ; receipts = false {
		if err := h.feed(ctx, c, list, receipts, send); err != nil {
			return err
		}
		for {
			c.mu.Lock()
			if c.epoch != epoch {
				c.mu.Unlock()
				return ended()
			}
			if c.over {
				h.lag(c, "session_buffer_full")
				c.mu.Unlock()
				return nil
			}
			if list = c.take(); len(list) > 0 {
				c.mu.Unlock()
				break
			}
			pending := c.takePending()
			if len(pending) == 0 && told {
				c.reset(open)
				c.mu.Unlock()
				return nil
			}
			c.mu.Unlock()
			if len(pending) == 0 { // the first time that nothing is left
				if err := c.sess.PushWait(ctx, syncComplete); err != nil {
					return err
				}
				told = true
			}
			for _, p := range pending {
				if err := send(p.frame); err != nil {
					return err
				}
			}
		}
	}
}

// errLapsed ends a catch-up that a Sync will make up for.
var errLapsed = errors.New("the session syncs anew")

// catchUpNow lets a live session catch up with the threads that it was found to have missed something of, in the way of
// sync; the events of its other threads are pushed meanwhile. What the outbox cannot take at once is left to a Sync. It
// returns false when the store did not answer: it must be tried again.
func (h *Hub) catchUpNow(ctx context.Context, c *client) bool {
	turn := time.NewTimer(h.cfg.RetryMax)
	defer turn.Stop()
	select {
	case c.turn <- struct{}{}:
	case <-turn.C: // a slow device's Sync must not keep the others' catch-ups waiting
		return false
	case <-ctx.Done():
		return true
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	c.queued, c.stuck = false, false
	epoch, isOpen, list := c.epoch, c.state == open, []id.ThreadID(nil)
	if isOpen {
		list = c.take()
	}
	c.mu.Unlock()
	if !isOpen {
		return true // the Sync under way, or the next, does it
	}
	h.metrics.syncing.Inc()
	defer h.metrics.syncing.Dec()
	send := func(frame []byte) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.epoch == epoch {
			h.pushNow(c, frame, false)
		}
		if c.epoch != epoch {
			return errLapsed
		}
		return nil
	}
	for {
		if len(list) > 0 {
			err := h.feed(ctx, c, list, false, send)
			if errors.Is(err, errLapsed) {
				return true
			}
			if err != nil {
				return h.again(c, epoch)
			}
		}
		c.mu.Lock()
		if c.epoch != epoch {
			c.mu.Unlock()
			return true
		}
		if c.over {
			h.lag(c, "session_buffer_full")
			c.mu.Unlock()
			return true
		}
		list = c.take()
		var pending []push
		if len(list) == 0 {
			pending = c.takePending()
		}
		if len(list)+len(pending) == 0 {
			c.targets = nil
			c.mu.Unlock()
			return true
		}
		c.mu.Unlock()
		for _, p := range pending {
			if send(p.frame) != nil {
				return true
			}
		}
	}
}

// again leaves a catch-up for later: until then its threads' events are dropped, which it will make up for.
func (h *Hub) again(c *client, epoch uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return true
	}
	h.metrics.drops.WithLabelValues("catchup_failed").Inc()
	c.stuck, c.pending, c.over, c.joins, c.queued = true, nil, false, nil, true
	for t := range c.targets {
		c.targets[t] = uncaptured
		c.joins = append(c.joins, t)
	}
	return false
}

// take returns the threads that must be begun with. The caller holds c.mu.
func (c *client) take() []id.ThreadID {
	list := c.joins
	c.joins = nil
	return list
}

// takePending returns what is held back and not superfluous. The caller holds c.mu, and every target is captured.
func (c *client) takePending() []push {
	list := slices.DeleteFunc(c.pending, func(p push) bool {
		upTo, ok := c.targets[p.thread]
		return ok && p.at <= upTo
	})
	c.pending = nil
	return list
}

func ended() error { return wire.Errorf(wirev1.Code_CODE_NOT_AUTHENTICATED, "the session has ended") }

// threadsOf lists the user's threads, and notes them as those that the catch-up is about.
func (h *Hub) threadsOf(ctx context.Context, c *client) ([]id.ThreadID, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	s := c.user.slot
	for {
		s.mu.Lock()
		if c.user.phase == live {
			break
		}
		news := c.user.changed()
		gone := c.user.gone
		s.mu.Unlock()
		if gone {
			return nil, ended()
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, unavailable(context.Cause(ctx))
		}
	}
	list := make([]id.ThreadID, 0, len(c.user.state.Threads))
	for t := range c.user.state.Threads {
		list = append(list, t)
	}
	c.mu.Lock()
	if c.state == syncing {
		if c.targets == nil {
			c.targets = make(map[id.ThreadID]topic.Position, len(list))
		}
		for _, t := range list {
			c.targets[t] = uncaptured
		}
	}
	c.mu.Unlock()
	s.mu.Unlock()
	return list, nil
}

// capture waits until each thread is live, and takes down its state.
func (h *Hub) capture(ctx context.Context, c *client, list []id.ThreadID) ([]lack, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	lacks := make([]lack, 0, len(list))
	for _, t := range list {
		s := h.slotOf(topic.Subject(t))
		for {
			var after actions
			s.mu.Lock()
			ts := s.threads[t]
			if ts == nil {
				ts = s.addThread(t)
			}
			h.addLocal(ts, c.user, -1, &after)
			if ts.phase == live {
				if l, ok := ts.lack(c); ok {
					lacks = append(lacks, l)
				}
				s.mu.Unlock()
				after.run()
				break
			}
			news := ts.changed()
			s.mu.Unlock()
			after.run()
			select {
			case <-news:
			case <-ctx.Done():
				return nil, unavailable(context.Cause(ctx))
			}
		}
	}
	return lacks, nil
}

// lack sets the target of the thread for a client's catch-up, and tells what is up to it. The caller holds the slot's
// lock.
func (t *threadSub) lack(c *client) (lack, bool) {
	target := t.state.last()
	c.mu.Lock()
	if _, listed := c.targets[t.id]; listed {
		c.targets[t.id] = target
	}
	c.mu.Unlock()
	m := t.state.Members[c.user.id]
	if m == nil || len(m.Spans) == 0 {
		return lack{}, false
	}
	l := lack{
		thread:  t.id,
		slot:    t.slot.n,
		target:  target,
		member:  *m,
		changed: changedFrame(t.summary(c.user.id, c.floor.Load())),
	}
	l.member.Spans = slices.Clone(m.Spans)
	if !m.Active() {
		l.target = m.Spans[len(m.Spans)-1].To
	}
	return l, true
}

// compare reads the device's cursors, keeps the threads that have something after them, and waits until the views have
// all of that.
func (h *Hub) compare(ctx context.Context, c *client, lacks []lack) ([]lack, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	keys := make([]deviceThread, len(lacks))
	for i, l := range lacks {
		keys[i] = deviceThread{c.user.id, c.device, l.thread}
	}
	cursors, err := h.cursors.get(ctx, keys)
	if err != nil {
		return nil, unavailable(err)
	}
	kept := lacks[:0]
	need := map[topic.Slot]topic.Position{}
	for i, l := range lacks {
		if l.cursor = max(cursors[i], l.member.Spans[0].From-1); l.cursor < l.target {
			kept = append(kept, l)
			need[l.slot] = max(need[l.slot], l.target)
		}
	}
	if err := h.reach(ctx, need); err != nil {
		return nil, unavailable(err)
	}
	return kept, nil
}

// runCatchups runs the catch-ups that nobody asked for.
func (h *Hub) runCatchups(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, h.cfg.Catchups)
	retry := time.NewTicker(h.cfg.RetryMax)
	defer retry.Stop()
	for {
		for _, c := range h.catchups.take() {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				defer func() { <-room }()
				if !h.catchUpNow(ctx, c) {
					h.catchups.pushLater(c)
				}
			})
		}
		select {
		case <-h.catchups.wake:
		case <-retry.C:
			h.catchups.due()
		case <-ctx.Done():
			return nil
		}
	}
}

// unavailable is how a store or link that does not answer is told to a client.
func unavailable(err error) error {
	var w *wire.Error
	if errors.As(err, &w) {
		return err
	}
	return &wire.Error{
		Code:       wirev1.Code_CODE_UNAVAILABLE,
		Message:    "delivery or the views do not answer",
		RetryAfter: time.Second,
	}
}
