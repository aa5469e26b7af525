package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/edge/replica"
	"heliograph/infra/budget"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	wirev1 "heliograph/schemas/wire/v1"
)

// writeChunk is how much is gathered for one write.
const writeChunk = 16 << 10

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeChunk+4096); return &b }}

var (
	errClosed  = errors.New("the session has ended")
	errLagging = errors.New("the device lags and must sync again")
)

// load is what waits in all outboxes of an edge.
type load struct {
	frames, bytes, receipts atomic.Int64
	budget                  *budget.Budget // fixed; nil: no limit
}

// hold counts n bytes that an outbox holds from now on, or with n < 0 not any more.
func (l *load) hold(n int) {
	l.bytes.Add(int64(n))
	l.budget.Add(n)
}

// wait counts n members' watermarks that wait from now on, or with n < 0 not any more.
func (l *load) wait(n int) {
	l.receipts.Add(int64(n))
	l.budget.Add(n * pairWeight)
}

const (
	pairWeight = 96 // bytes of a watermark that waits

	// What a device may have however little memory is free, so that one that reads gets on.
	leastPushes, leastAnswers = 4 << 10, 16 << 10
)

// born is when this process began, so that a frame's time is one word.
var born = time.Now()

type queued struct {
	data []byte
	push bool // may be dropped
	at   time.Duration
}

// outbox is what waits for the device. All fields are guarded by mu.
type outbox struct {
	mu       sync.Mutex
	queue    []queued
	bytes    int
	pushes   int // how many of queue may be dropped
	receipts map[id.ThreadID]map[id.UserID]thread.Watermark
	pairs    int           // of a thread and a user in receipts
	since    time.Duration // when the first of receipts came
	writing  bool          // the writer runs
	lagging  bool          // a push was refused; nothing is pushed until the next Sync
	closed   bool          // nothing is taken any more
	room     chan struct{} // closed when there may be room again; nil while nobody waits
	soon     *time.Timer   // runs while something patient waits alone
	flush    func()        // starts the writer if there is need; nil: nothing is patient
}

// patience is how long a frame that nobody waits for (check marks, the echo of a device's own message) may wait for
// company: each write that it saves is a packet, here and on the device. Whatever is urgent takes it along, so the
// order stays.
const patience = 150 * time.Millisecond

type verdict int8

const (
	taken   verdict = iota
	start           // taken, and the caller must start the writer
	full            // not taken
	lagging         // not taken: the device lags
	ended           // not taken: the session has ended
	broken          // not taken: it cannot be encoded
)

// put hands over a frame. Pushes are refused beyond the bounds, answers beyond four times the bounds. A patient one
// does not start the writer by itself.
func (o *outbox) put(data []byte, push, patient bool, maxFrames, maxBytes int, l *load) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ended
	case push && o.lagging:
		return lagging
	case push && !o.fits(maxFrames, maxBytes, l):
		return full
	case len(o.queue) >= 4*maxFrames || o.bytes >= max(leastAnswers, 4*l.budget.Most(maxBytes)):
		return full
	}
	o.queue = append(o.queue, queued{data, push, time.Since(born)})
	o.bytes += len(data)
	if push {
		o.pushes++
	}
	l.frames.Add(1)
	l.hold(len(data))
	if patient {
		return o.wakeSoon()
	}
	return o.wake()
}

// fits tells whether a push has room: an empty outbox takes any, or what is large would never go. The caller holds mu.
func (o *outbox) fits(maxFrames, maxBytes int, l *load) bool {
	return len(o.queue) == 0 || len(o.queue) < maxFrames && o.bytes < max(leastPushes, l.budget.Most(maxBytes))
}

// wake says whether the writer must be started; the caller holds mu.
func (o *outbox) wake() verdict {
	if o.writing {
		return taken
	}
	o.writing = true
	return start
}

// wakeSoon is wake for what may wait for company; the caller holds mu.
func (o *outbox) wakeSoon() verdict {
	if o.flush == nil {
		return o.wake()
	}
	if !o.writing && o.soon == nil {
		o.soon = time.AfterFunc(patience, o.flush)
	}
	return taken
}

// ripe ends the wait of what is patient; it says start when the caller must start the writer.
func (o *outbox) ripe() verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.soon = nil
	if o.closed || len(o.queue) == 0 && o.receipts == nil {
		return taken
	}
	return o.wake()
}

// wait blocks until there may be room for a push, or an error says that there will be none.
func (o *outbox) wait(ctx context.Context, maxFrames, maxBytes int, l *load) error {
	_, err := o.await(ctx, func() bool { return o.fits(maxFrames, maxBytes, l) })
	return err
}

// await returns at once when what is to be put fits, which it asks under mu, and else when something was taken, after
// which it may.
func (o *outbox) await(ctx context.Context, fits func() bool) (fit bool, err error) {
	o.mu.Lock()
	switch {
	case o.closed:
		o.mu.Unlock()
		return false, errClosed
	case o.lagging:
		o.mu.Unlock()
		return false, errLagging
	case fits():
		o.mu.Unlock()
		return true, nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	room := o.room
	o.mu.Unlock()
	select {
	case <-room:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (o *outbox) freed() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// putReceipts merges watermarks into those that wait, while those are fewer than most.
func (o *outbox) putReceipts(t id.ThreadID, items []replica.Mark, most int, l *load) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ended
	case o.lagging:
		return lagging
	case o.pairs >= most:
		return full
	}
	if o.receipts == nil {
		o.receipts, o.since = map[id.ThreadID]map[id.UserID]thread.Watermark{}, time.Since(born)
	}
	of := o.receipts[t]
	if of == nil {
		of = make(map[id.UserID]thread.Watermark, len(items))
		o.receipts[t] = of
	}
	before := len(of)
	for _, m := range items {
		of[m.User] = of[m.User].Merge(m.Watermark)
	}
	o.pairs += len(of) - before
	l.wait(len(of) - before)
	return o.wakeSoon()
}

// waitReceipts blocks until fewer than most watermarks wait, or an error says that they will not.
func (o *outbox) waitReceipts(ctx context.Context, most int) error {
	for {
		if fit, err := o.await(ctx, func() bool { return o.pairs < most }); fit || err != nil {
			return err
		}
	}
}

// take moves frames to buf until it holds a chunk. With nothing left it says so, and the writer is over: the next put
// starts a new one.
func (o *outbox) take(buf []byte, l *load) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		o.writing = false
		return nil
	}
	n := 0
	for n < len(o.queue) && len(buf) < writeChunk {
		q := &o.queue[n]
		buf = append(buf, q.data...)
		o.bytes -= len(q.data)
		l.hold(-len(q.data))
		if q.push {
			o.pushes--
		}
		n++
	}
	l.frames.Add(-int64(n))
	if n == len(o.queue) {
		o.queue = nil
		if len(buf) < writeChunk && o.receipts != nil {
			buf = appendReceipts(buf, o.receipts)
			o.noReceipts(l)
			o.freed()
		}
	} else {
		clear(o.queue[:n])
		o.queue = o.queue[n:]
	}
	if n > 0 {
		o.freed()
	}
	if len(buf) == 0 {
		o.writing = false
	}
	return buf
}

func appendReceipts(buf []byte, receipts map[id.ThreadID]map[id.UserID]thread.Watermark) []byte {
	for t, of := range receipts {
		items := make([]*wirev1.MemberWatermark, 0, len(of))
		for u, w := range of {
			items = append(items, wirev1.MemberWatermark_builder{
				UserId: u[:], DeliveredPosition: int64(w.DeliveredPosition), DeliveredOrdinal: w.DeliveredOrdinal,
				ReadPosition: int64(w.ReadPosition), ReadOrdinal: w.ReadOrdinal,
			}.Build())
		}
		receipts := wirev1.Receipts_builder{ThreadId: t[:], Items: items}.Build()
		out, err := frame.Append(buf, wirev1.ServerFrame_builder{Receipts: receipts}.Build())
		if err != nil {
			panic(err) // no strings in it: it always encodes
		}
		buf = out
	}
	return buf
}

// lag drops the pushes that wait and puts Resync in their place. first is false when the device was told already.
func (o *outbox) lag(resync []byte, l *load) (dropped int, first bool, v verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, false, ended
	}
	dropped, first = o.pushes, !o.lagging
	o.lagging = true
	if o.pushes > 0 {
		kept := make([]queued, 0, len(o.queue)-o.pushes+1)
		for _, q := range o.queue {
			if q.push {
				o.bytes -= len(q.data)
				l.hold(-len(q.data))
				continue
			}
			kept = append(kept, q)
		}
		l.frames.Add(-int64(o.pushes))
		o.queue, o.pushes = kept, 0
	}
	o.freed()
	if !first {
		return dropped, false, taken
	}
	o.queue = append(o.queue, queued{data: resync, at: time.Since(born)})
	o.bytes += len(resync)
	l.frames.Add(1)
	l.hold(len(resync))
	return dropped, true, o.wake()
}

// resume ends the lag: the device syncs again.
func (o *outbox) resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lagging = false
}

// close drops everything and takes nothing any more.
func (o *outbox) close(l *load) (frames, receipts int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, 0
	}
	frames, receipts = len(o.queue), o.pairs
	o.noReceipts(l)
	l.frames.Add(-int64(len(o.queue)))
	l.hold(-o.bytes)
	o.closed, o.queue, o.bytes, o.pushes = true, nil, 0, 0
	if o.soon != nil {
		o.soon.Stop()
	}
	o.freed()
	return frames, receipts
}

// noReceipts empties receipts; the caller holds mu.
func (o *outbox) noReceipts(l *load) {
	l.wait(-o.pairs)
	o.receipts, o.pairs = nil, 0
}

// oldest is how long the oldest of what waits has waited.
func (o *outbox) oldest() (age time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Since(born)
	if len(o.queue) > 0 {
		age = now - o.queue[0].at
	}
	if o.receipts != nil {
		age = max(age, now-o.since)
	}
	return age
}

func (o *outbox) isLagging() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lagging
}
