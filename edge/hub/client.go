package hub

import (
	"math"
	"sync"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// clientState is what happens to a session's pushes.
type clientState uint8

const (
	off     clientState = iota // dropped: the next Sync makes up for them
	syncing                    // held back until the catch-up under way has got to them
	open                       // pushed
	closed                     // dropped for good
)

// client is a session that is attached.
type client struct {
	// Fixed.
	sess   Session
	device id.DeviceID
	user   *userSub
	floor  int64
	turn   chan struct{} // capacity 1: held by the catch-up under way

	mu    sync.Mutex // guards what follows; taken inside slots' and users' locks, so that Session's methods are called under those
	state clientState
	// While syncing: the threads of the catch-up under way, with the position up to which it sends them; uncaptured: it will be one that
	// covers all that was applied until then.
	targets map[id.ThreadID]topic.Position
	pending []push
	over    bool          // pending had no room
	joins   []id.ThreadID // threads that must be caught up with too
	queued  bool          // in the queue of catch-ups
}

// push is a frame for a session.
type push struct {
	thread id.ThreadID
	at     topic.Position // a catch-up that goes up to here makes it superfluous
	frame  []byte
}

// uncaptured is the target of a thread that a catch-up is about but has not got to.
const uncaptured = topic.Position(-2)

// never is the place of a frame that no catch-up makes superfluous.
const never = topic.Position(math.MaxInt64)

// push hands a frame to the session, or holds it back.
func (h *Hub) push(c *client, p push) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case open:
		if !c.sess.Push(p.frame) {
			h.lag(c, "outbox_full")
			return
		}
		h.metrics.pushes.Inc()
	case syncing:
		switch {
		case c.over:
		case len(c.pending) >= h.cfg.SessionBuffer:
			c.pending, c.over = nil, true
		default:
			c.pending = append(c.pending, p)
		}
	}
}

// lag drops what is held back and makes the session sync anew. The caller holds c.mu, and no catch-up of the client is about to push.
func (h *Hub) lag(c *client, reason string) {
	if c.state == closed {
		return
	}
	h.metrics.drops.WithLabelValues(reason).Inc()
	c.reset(off)
	c.sess.Lagged()
}

// reset forgets what is held back. The caller holds c.mu.
func (c *client) reset(to clientState) {
	c.state, c.targets, c.pending, c.over, c.joins = to, nil, nil, false, nil
}

// catchUp makes a session that is live, or on the way, catch up with a thread before it gets further events of it.
func (h *Hub) catchUp(c *client, t id.ThreadID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case open:
		c.reset(syncing)
	case syncing:
		if at, listed := c.targets[t]; listed && at == uncaptured {
			return
		}
	default:
		return
	}
	c.joins = append(c.joins, t)
	if !c.queued {
		c.queued = true
		h.catchups.push(c)
	}
}

// receipts passes on members' watermarks.
func (h *Hub) receipts(c *client, t id.ThreadID, m []*memberMark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == open || c.state == syncing {
		c.sess.PushReceipts(t, m)
	}
}

// revoke cuts a session whose device was revoked. The caller holds the lock of the user's slot.
func (h *Hub) revoke(c *client, after *actions) {
	h.cut(c)
	h.metrics.revoked.Inc()
	after.add(func() { c.sess.Close(wirev1.Code_CODE_DEVICE_REVOKED) })
}

// cut ends all pushes to a session.
func (h *Hub) cut(c *client) {
	c.mu.Lock()
	c.reset(closed)
	c.mu.Unlock()
}

type memberMark = wirev1.MemberWatermark

// catchupQueue is the clients that wait for a catch-up: each at most once.
type catchupQueue struct {
	wake chan struct{} // capacity 1
	mu   sync.Mutex
	list []*client
}

func (q *catchupQueue) push(c *client) {
	q.mu.Lock()
	q.list = append(q.list, c)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *catchupQueue) take() []*client {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.list
	q.list = nil
	return l
}
