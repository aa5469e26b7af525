package fanout

import (
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// flow is what happens to a device's pushes; see the package comment.
type flow uint8

const (
	off     flow = iota // dropped: the next Sync makes up for them
	syncing             // all held back until the Sync under way has got to them
	open                // pushed, save those of threads that are caught up with
	closed              // dropped for good
)

// device is a device that is connected: a session that is attached.
type device struct {
	// Fixed.
	sess   Session
	id     id.DeviceID
	person *person
	turn   chan struct{} // capacity 1: held by the Sync or catch-up under way

	floor atomic.Pointer[user.Floor] // set before Attach returns: until then nothing is pushed

	mu    sync.Mutex // guards what follows; Session's methods that do not wait are called under it, so as to keep order
	state flow
	epoch uint64 // how often the state was reset
	// The threads of the Sync or catch-up under way, with the position up to which it sends them; uncaptured: it will
	// be one that covers all that was applied until then. While open, only their events are held back.
	targets map[id.ThreadID]topic.Position
	missed  map[id.ThreadID]topic.Position // of targets that are not captured: what they must cover
	pending []push
	kept    int           // bytes of pending, which the session counts
	held    time.Time     // when the first of pending came
	over    bool          // pending had no room
	joins   []id.ThreadID // of targets, those that the catch-up has not begun with
	queued  bool          // in the queue of catch-ups
	// The threads that a Sync with a window has left: nothing of them is pushed until they are caught up with (wire
	// 12.5). left has them by how late they are, and perhaps some that are not left any more.
	unasked map[id.ThreadID]struct{}
	left    []id.ThreadID
	// The threads that are not followed for now, of which the device was told so, each with how often that was found
	// (wire 5.8).
	shelved map[id.ThreadID]int
	// Where the device is at least, in threads in which its watermark may say more than it has: it was restored from a
	// backup. says: at its Sync it has said what it has.
	from   map[id.ThreadID]topic.Position
	says   bool
	behind time.Time     // while open: since when there are targets
	tell   time.Duration // how long that must be until it is said
	owed   bool          // receipts were dropped; stays until a Sync has made up for them
}

// shown returns what the device is shown nothing from before.
func (d *device) shown() user.Floor {
	if f := d.floor.Load(); f != nil {
		return *f
	}
	return user.Floor{}
}

// push is a frame for a session.
type push struct {
	thread id.ThreadID
	at     topic.Position // a catch-up that goes up to here makes it superfluous
	frame  []byte
	echo   bool // of the device's own message
}

// uncaptured is the target of a thread that a catch-up is about but has not got to; postponed that of one with which it
// could not be done: until it is tried again the thread's events are dropped, for which it will make up.
const uncaptured, postponed = topic.Position(-2), topic.Position(-3)

// never is the place of a frame that no catch-up makes superfluous.
const never = topic.Position(math.MaxInt64)

// push hands a frame to the session, or holds it back.
func (f *Fanout) push(d *device, p push) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.state {
	case open:
		if _, left := d.unasked[p.thread]; left && p.at != never {
			f.wake(d, p.thread) // which brings this event too
			return
		}
		if at, held := d.targets[p.thread]; held && p.at != never {
			if at != postponed {
				d.hold(p, f.bounds)
			}
			return
		}
		d.reached(p.thread, p.at)
		f.pushNow(d, p.frame, p.echo)
	case syncing:
		d.hold(p, f.bounds)
	}
}

// pushNow hands a frame to a session that is open. The caller holds d.mu.
func (f *Fanout) pushNow(d *device, frame []byte, echo bool) {
	push := d.sess.Push
	if p, ok := d.sess.(Patient); ok && echo {
		push = p.PushSoon
	}
	if !push(frame) {
		f.lag(d, dropOutbox)
		return
	}
	f.metrics.pushes.Inc()
}

func (d *device) hold(p push, most bounds) {
	switch {
	case d.over:
	case len(d.pending) >= most.pending, d.kept > 0 && d.kept+len(p.frame) > d.room(most.pendingBytes):
		d.keepNone()
		d.over = true
	default:
		if len(d.pending) == 0 {
			d.held = time.Now()
		}
		d.pending = append(d.pending, p)
		d.keep(len(p.frame))
	}
}

// keep has the session count n bytes more, or less, of what is held back. The caller holds mu.
func (d *device) keep(n int) {
	d.kept += n
	d.count(n)
}

// count has the session count n bytes more, or less, that are held for it.
func (d *device) count(n int) {
	if h, ok := d.sess.(Holder); ok && n != 0 {
		h.Hold(n)
	}
}

// room is how many bytes may be held for the device for one purpose.
func (d *device) room(most int) int {
	if h, ok := d.sess.(Holder); ok {
		return h.Room(most)
	}
	return most
}

// keepNone forgets what is held back. The caller holds mu.
func (d *device) keepNone() {
	d.pending = nil
	d.keep(-d.kept)
}

// sendAll hands on what was held back and counts as so until it is sent.
func (d *device) sendAll(list []push, kept int, send func([]byte) error) error {
	defer d.count(-kept)
	for _, p := range list {
		if err := send(p.frame); err != nil {
			return err
		}
	}
	return nil
}

// setPending changes what is held back to a part of it. The caller holds mu.
func (d *device) setPending(rest []push) {
	bytes := 0
	for _, p := range rest {
		bytes += len(p.frame)
	}
	d.pending = rest
	d.keep(bytes - d.kept)
}

// lag drops what is held back and makes the session sync anew. The caller holds d.mu; while syncing only the goroutine
// of the Sync calls it, since that pushes without d.mu, and nothing may be pushed between Lagged and the next Sync.
func (f *Fanout) lag(d *device, reason string) {
	if d.state == closed {
		return
	}
	f.metrics.drops.WithLabelValues(reason).Inc()
	d.reset(off)
	d.sess.Lagged()
}

// reset forgets what is held back. The caller holds d.mu.
func (d *device) reset(to flow) {
	d.epoch++
	d.keepNone()
	d.state, d.targets, d.missed, d.over, d.joins = to, nil, nil, false, nil
	if to != open {
		d.unasked, d.left, d.from, d.shelved = nil, nil, nil, nil
	}
}

// isAt notes where the device is at least in a thread, unless that is known. The caller holds d.mu.
func (d *device) isAt(t id.ThreadID, at topic.Position) {
	if d.from == nil {
		d.from = map[id.ThreadID]topic.Position{}
	}
	if _, known := d.from[t]; !known {
		d.from[t] = at
	}
}

// reached notes that the device gets a thread's events up to a position. The caller holds d.mu.
func (d *device) reached(t id.ThreadID, at topic.Position) {
	if from, ok := d.from[t]; ok && at != never {
		d.from[t] = max(from, at)
	}
}

// leave leaves threads to be caught up with later, from where the device says that it is. The caller holds d.mu.
func (d *device) leave(lacks []lack, has Known) {
	d.unasked = map[id.ThreadID]struct{}{}
	for _, l := range lacks {
		t := l.now.Thread
		d.unasked[t] = struct{}{}
		d.left = append(d.left, t)
		delete(d.targets, t)
		if has != nil {
			d.isAt(t, has.position(t))
		}
	}
}

// begin has the events of a thread held back, since it is to be caught up with. The caller holds d.mu.
func (d *device) begin(t id.ThreadID) {
	delete(d.unasked, t)
	if d.targets == nil {
		d.targets = map[id.ThreadID]topic.Position{}
	}
	if len(d.targets) == 0 {
		d.behind, d.tell = time.Now(), lateAfter
	}
	d.targets[t] = uncaptured
}

// wake has a thread caught up with by itself. The caller holds d.mu.
func (f *Fanout) wake(d *device, t id.ThreadID) {
	d.begin(t)
	d.joins = append(d.joins, t)
	if d.state == open && !d.queued {
		d.queued = true
		f.catchups.push(d)
	}
}

// wakePending has those threads caught up with of which something is held back although they were left. The caller
// holds d.mu.
func (f *Fanout) wakePending(d *device) {
	if len(d.unasked) == 0 {
		return
	}
	for _, p := range d.pending {
		if _, left := d.unasked[p.thread]; left && p.at != never {
			f.wake(d, p.thread)
		}
	}
}

// catchUp makes a session that is live, or on the way, catch up with a thread up to a position before it gets further
// events of it. It was told of those up to after, or by a Sync; -1: of none, since no Sync has got to the thread. Its
// watermark may be beyond that: it is from before the device was restored, and this edge was behind it.
func (f *Fanout) catchUp(d *device, t id.ThreadID, after, upTo topic.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != open && d.state != syncing {
		return
	}
	at, listed := d.targets[t]
	if listed && (at == uncaptured || at == postponed || at >= upTo) {
		if at == uncaptured {
			d.miss(t, upTo)
		}
		return
	}
	if d.says && d.state == open && !listed {
		d.isAt(t, after)
	}
	f.wake(d, t)
}

// miss notes what the target of a thread that is not captured yet must cover. The caller holds d.mu.
func (d *device) miss(t id.ThreadID, upTo topic.Position) {
	if d.missed == nil {
		d.missed = map[id.ThreadID]topic.Position{}
	}
	d.missed[t] = upTo
}

// receipts passes on members' watermarks.
func (f *Fanout) receipts(d *device, t id.ThreadID, m []replica.Mark) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.state {
	case off:
		d.owed = true
	case open:
		if !d.sess.PushReceipts(t, m) {
			d.owed = true
			f.lag(d, dropReceipts)
		}
	case syncing:
		if !d.sess.PushReceipts(t, m) {
			d.keepNone()
			d.owed, d.over = true, true
		}
	}
}

// revoke cuts a session whose device was revoked (wire 3.10).
func (f *Fanout) revoke(d *device) {
	f.cut(d)
	f.metrics.revoked.Inc()
	d.sess.Close(wirev1.Code_CODE_DEVICE_REVOKED)
}

// cut ends all pushes to a session.
func (f *Fanout) cut(d *device) {
	d.mu.Lock()
	d.reset(closed)
	d.mu.Unlock()
}

// catchupQueue is the devices that wait for a catch-up: each at most once in either.
type catchupQueue struct {
	wake  chan struct{} // capacity 1
	mu    sync.Mutex
	list  []*device
	later map[*device]struct{}
}

// pushLater queues a client for the next due.
func (q *catchupQueue) pushLater(d *device) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.later[d] = struct{}{}
}

// due moves the clients of pushLater to the queue.
func (q *catchupQueue) due() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = slices.AppendSeq(q.list, maps.Keys(q.later))
	clear(q.later)
}

func (q *catchupQueue) push(d *device) {
	q.mu.Lock()
	q.list = append(q.list, d)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *catchupQueue) take() []*device {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.list
	q.list = nil
	return l
}
