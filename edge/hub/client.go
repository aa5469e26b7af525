package hub

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// clientState is what happens to a session's pushes.
type clientState uint8

const (
	off     clientState = iota // dropped: the next Sync makes up for them
	syncing                    // all held back until the Sync under way has got to them
	open                       // pushed, save those of threads that are caught up with
	closed                     // dropped for good
)

// client is a session that is attached.
type client struct {
	// Fixed.
	sess   Session
	device id.DeviceID
	user   *userSub
	turn   chan struct{} // capacity 1: held by the Sync or catch-up under way

	floor atomic.Int64 // the device's SinceMS, set before Attach returns: until then nothing is pushed

	// guards what follows; taken inside slots' and users' locks, so that Session's methods are called under those
	mu    sync.Mutex
	state clientState
	epoch uint64 // how often the state was reset
	// The threads of the Sync or catch-up under way, with the position up to which it sends them; uncaptured: it will
	// be one that covers all that was applied until then. While open, only their events are held back.
	targets map[id.ThreadID]topic.Position
	pending []push
	held    time.Time     // when the first of pending came
	over    bool          // pending had no room
	stuck   bool          // the store does not answer: events of targets are dropped, the catch-up will begin anew
	joins   []id.ThreadID // of targets, those that the catch-up has not begun with
	queued  bool          // in the queue of catch-ups
	owed    bool          // receipts were dropped; stays until a Sync has made up for them
}

// push is a frame for a session.
type push struct {
	thread id.ThreadID
	at     topic.Position // a catch-up that goes up to here makes it superfluous
	frame  []byte
	echo   bool // of the device's own message
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
		if _, held := c.targets[p.thread]; held && p.at != never {
			if !c.stuck {
				c.hold(p, h.cfg.SessionBuffer)
			}
			return
		}
		h.pushNow(c, p.frame, p.echo)
	case syncing:
		c.hold(p, h.cfg.SessionBuffer)
	}
}

// pushNow hands a frame to a session that is open. The caller holds c.mu.
func (h *Hub) pushNow(c *client, frame []byte, echo bool) {
	push := c.sess.Push
	if p, ok := c.sess.(Patient); ok && echo {
		push = p.PushSoon
	}
	if !push(frame) {
		h.lag(c, "outbox_full")
		return
	}
	h.metrics.pushes.Inc()
}

func (c *client) hold(p push, most int) {
	switch {
	case c.over:
	case len(c.pending) >= most:
		c.pending, c.over = nil, true
	default:
		if len(c.pending) == 0 {
			c.held = time.Now()
		}
		c.pending = append(c.pending, p)
	}
}

// lag drops what is held back and makes the session sync anew. The caller holds c.mu; while syncing only the goroutine
// of the Sync calls it, since that pushes without c.mu, and nothing may be pushed between Lagged and the next Sync.
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
	c.epoch++
	c.state, c.targets, c.pending, c.over, c.stuck, c.joins = to, nil, nil, false, false, nil
}

// catchUp makes a session that is live, or on the way, catch up with a thread before it gets further events of it.
func (h *Hub) catchUp(c *client, t id.ThreadID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open && c.state != syncing {
		return
	}
	if at, listed := c.targets[t]; listed && at == uncaptured {
		return
	}
	if c.targets == nil {
		c.targets = map[id.ThreadID]topic.Position{}
	}
	c.targets[t] = uncaptured
	c.joins = append(c.joins, t)
	if c.state == open && !c.queued {
		c.queued = true
		h.catchups.push(c)
	}
}

// receipts passes on members' watermarks.
func (h *Hub) receipts(c *client, t id.ThreadID, m []*memberMark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case off:
		c.owed = true
	case open:
		if !c.sess.PushReceipts(t, m) {
			c.owed = true
			h.lag(c, "receipts_full")
		}
	case syncing:
		if !c.sess.PushReceipts(t, m) {
			c.owed, c.pending, c.over = true, nil, true
		}
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
	wake  chan struct{} // capacity 1
	mu    sync.Mutex
	list  []*client
	later []*client
}

// pushLater queues a client for the next due.
func (q *catchupQueue) pushLater(c *client) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.later = append(q.later, c)
}

// due moves the clients of pushLater to the queue.
func (q *catchupQueue) due() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list, q.later = append(q.list, q.later...), nil
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
