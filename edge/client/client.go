package client

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/wording"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Errors that callers branch on.
var (
	// ErrOutboxFull is returned by Send when outboxLimit messages wait already.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrRegistered is returned by Register when the store holds an identity already.
	ErrRegistered = errors.New("this store holds a registered device already")
	// ErrNotRegistered is returned where an identity is needed and there is none.
	ErrNotRegistered = errors.New("this device is not registered")
	// ErrClosed is returned by calls after Run has returned.
	ErrClosed = errors.New("the client has stopped")
)

// outgoing is a message of the outbox with its place in it.
type outgoing struct {
	Outgoing
	seq       uint64
	abandoned bool           // it was given up while it is unanswered
	back      bool           // it came back while it is unanswered
	at        topic.Position // where the log has it, by its acknowledgement; -1: not known any more
}

// Client is a device. See the package comment.
type Client struct {
	// Fixed after New.
	cfg   Config
	queue *queue
	done  chan struct{} // closed when Run has returned
	addrs map[string]bool
	// hurried ends a wait of Run; it has room for one.
	hurried chan struct{}

	storing sync.Mutex // held while a watermark is stored, and taken before mu

	// Guarded by mu.
	mu       sync.Mutex
	id       Identity
	saved    Saved                            // of what the store had, the receipts, kept up to date
	applied  map[id.ThreadID]thread.Watermark // what the application has taken
	queued   map[id.ThreadID]topic.Position   // highest position put into the queue
	waiting  []*outgoing                      // not sent on the current connection, in order of seq
	inflight map[id.MessageID]*outgoing       // sent on the current connection
	acked    map[id.MessageID]*outgoing       // the log has them, and they have not come back
	unsent   []Unsent
	seq      uint64
	conn     *conn // current connection, nil between two
	live     bool  // authenticated and synchronised once on conn
	changed  chan struct{}
	dirty    map[id.ThreadID]bool // watermarks to send
	flush    *time.Timer          // runs while something is dirty
	due      time.Time            // when flush fires
	flushed  time.Time            // when watermarks were sent last
	paused   bool                 // a refused send waits for its backoff
	// stopped is the threads of refused sends: nothing is sent to one before its time, nor while a send to it is
	// unanswered.
	stopped map[id.ThreadID]time.Time
	// tried is the last registration, and candidate the device that it was for.
	tried     Registration
	candidate Identity
	running   bool
	// faults is the addresses whose last attempt ended by a Fault; lasting the last of them when there is no other
	// address, and lastings how often that was so.
	faults   map[string]bool
	lasting  *Fault
	lastings int
	setbacks int                 // refusals that made everything wait since the last acknowledgement
	tries    map[id.ThreadID]int // the same by thread, for its own stop

	background atomic.Bool
}

// New returns a client over what its store holds; it does nothing until Run.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	cfg = cfg.withDefaults()
	saved, err := cfg.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("client: load store: %w", err)
	}
	if saved.Identity.User.IsZero() && saved.Identity.Key == nil {
		// A PIN is good only for the key that asked for it, and the SMS may come after a restart: so the key of a
		// device that is to register is in the store before the server hears of it.
		_, key, err := newKey()
		if err != nil {
			return nil, err
		}
		saved.Identity = Identity{Key: key}
		if err := cfg.Store.SetIdentity(saved.Identity); err != nil {
			return nil, fmt.Errorf("client: store key: %w", err)
		}
	}
	c := &Client{
		cfg: cfg, queue: newQueue(cfg.Buffer), done: make(chan struct{}), changed: make(chan struct{}),
		id: saved.Identity, applied: saved.Watermarks, queued: map[id.ThreadID]topic.Position{},
		inflight: map[id.MessageID]*outgoing{}, acked: map[id.MessageID]*outgoing{},
		stopped: map[id.ThreadID]time.Time{}, dirty: map[id.ThreadID]bool{},
		addrs: map[string]bool{}, hurried: make(chan struct{}, 1), faults: map[string]bool{},
		tries: map[id.ThreadID]int{},
	}
	for _, a := range cfg.Addrs {
		c.addrs[a] = true
	}
	if c.applied == nil {
		c.applied = map[id.ThreadID]thread.Watermark{}
	}
	for t, w := range c.applied {
		c.queued[t] = w.DeliveredPosition
	}
	c.saved.Receipts = saved.Receipts
	c.known()
	c.resume(saved)
	return c, nil
}

// Run keeps the device connected until ctx ends (nil) or the server says that it must not come back: a *wire.Error,
// CODE_DEVICE_REVOKED for one. It may be called once.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("client: Run was called twice")
	}
	c.running = true
	c.mu.Unlock()
	defer close(c.done)
	defer c.queue.close()
	refused := 0
	var tries attempts
	at := rand.IntN(len(c.cfg.Addrs))
	for {
		began, addr := time.Now(), c.cfg.Addrs[at%len(c.cfg.Addrs)]
		after, err := c.connect(ctx, addr, tries.patience(c.cfg.silence))
		if ctx.Err() != nil {
			return nil
		}
		err, lasting := c.failed(addr, err)
		c.cfg.Logger.Debug("connection ended", "err", err)
		c.queue.put(Disconnected{Err: err, Lasting: lasting})
		var we *wire.Error
		if errors.As(err, &we) {
			switch info := wire.Lookup(we.Code); {
			case we.Code == wirev1.Code_CODE_AUTHENTICATION_FAILED && refused < 3:
				refused++ // a device that registered a moment ago may not be in the view yet
			case !info.Reconnect: // wire 13.3
				return err
			}
		}
		lived := time.Since(began)
		if lived > settled {
			refused = 0
		}
		tries.ended(lived, err)
		hurried := c.hurried
		switch {
		case after > 0:
			hurried = nil // the edge has said when
		case we != nil && we.RetryAfter > 0:
			after, hurried = c.wait(tries, we), nil
		default:
			after = c.wait(tries, nil)
		}
		tries.n++
		at++
		select {
		case <-ctx.Done():
			return nil
		case <-hurried:
			tries.n = 0
		case <-time.After(after):
		}
	}
}

// Close releases the store. Run must have returned.
func (c *Client) Close() error { return c.cfg.Store.Close() }

// Identity returns who this device is; false before it is registered.
func (c *Client) Identity() (Identity, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id, !c.id.User.IsZero()
}

// notify wakes whoever waits for a change of state. mu is held.
func (c *Client) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until ready, called under mu, is true. It fails at once when no address has an edge that can be connected
// to; a Fault of an earlier attempt has another one made first, since it may have been mended.
func (c *Client) await(ctx context.Context, ready func() bool) error {
	c.mu.Lock()
	seen, hurry := c.lastings, c.lasting != nil && !ready()
	c.mu.Unlock()
	if hurry {
		c.hurry()
	}
	for {
		c.mu.Lock()
		ok, changed := ready(), c.changed
		var fault error
		if c.lasting != nil && c.lastings > seen {
			fault = c.lasting
		}
		c.mu.Unlock()
		if ok {
			return nil
		}
		if fault != nil {
			return fault
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return ErrClosed
		case <-changed:
		}
	}
}

// WaitSynced waits until the device is connected and everything missed is in the queue of Events.
func (c *Client) WaitSynced(ctx context.Context) error {
	return c.await(ctx, func() bool { return c.live })
}

// Online tells whether the device is connected and synchronised.
func (c *Client) Online() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// Outbox returns how many messages wait for their acknowledgement.
func (c *Client) Outbox() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) + len(c.inflight)
}

// Watermark returns how far this device has got in a thread.
func (c *Client) Watermark(t id.ThreadID) thread.Watermark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied[t]
}

// Events yields what comes in until ctx ends or Run returns. An event is applied when the loop asks for the next one;
// after a break the event is yielded again by the next Events. One goroutine at a time.
func (c *Client) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			e, ok := c.queue.take(ctx)
			if !ok {
				return
			}
			if !yield(e) {
				c.queue.putBack(e)
				return
			}
			c.apply(e)
		}
	}
}

// apply moves the cursor past an event that the application has taken.
func (c *Client) apply(e Event) {
	c.remember(e)
	p, ok := placeOf(e)
	if !ok {
		return
	}
	c.mu.Lock()
	w, urgent := thread.Watermark{DeliveredPosition: p.Position, DeliveredOrdinal: p.Ordinal}, true
	if m, ok := e.(Message); ok && m.Sender == c.id.User && m.Device == c.id.Device {
		if c.applied[p.Thread].ReadOrdinal == p.Ordinal-1 { // it reads nothing but itself
			w.ReadPosition, w.ReadOrdinal = p.Position, p.Ordinal
		}
		urgent = false // nobody looks at it for a check mark
	}
	c.mu.Unlock()
	c.move(p.Thread, w, urgent)
}

// MarkRead (wire 6.5) moves the read watermark of a thread to an event that was shown to the user.
func (c *Client) MarkRead(p Place) {
	c.move(p.Thread, thread.Watermark{ReadPosition: p.Position, ReadOrdinal: p.Ordinal}, true)
}

func (c *Client) move(t id.ThreadID, w thread.Watermark, urgent bool) {
	c.mu.Lock()
	old, known := c.applied[t]
	merged := old.Merge(w)
	if known && merged == old { // the first event of a slot lies at 0, so what is not known is not 0
		c.mu.Unlock()
		return
	}
	c.applied[t] = merged
	c.mark(t, urgent)
	c.mu.Unlock()
	if err := c.keep(t); err != nil {
		c.cfg.Logger.Error("storing a watermark failed; the server will repeat events after a restart",
			"thread", t, "err", err)
	}
}

// keep stores the watermark of a thread. One that moved meanwhile by another goroutine is stored with it, so none goes
// back.
func (c *Client) keep(t id.ThreadID) error {
	c.storing.Lock()
	defer c.storing.Unlock()
	c.mu.Lock()
	w := c.applied[t]
	c.mu.Unlock()
	return c.cfg.Store.SetWatermark(t, w)
}

// firstAck is how soon watermarks go after a quiet while: within the 25 ms in which QUIC acknowledges the packet that
// brought the event (RFC 9000, section 18.2, max_ack_delay), so that both travel in one packet.
const firstAck = 20 * time.Millisecond

// patience is how many times longer a watermark may wait that is not urgent.
const patience = 10

// mark has the watermark of a thread sent within a while: an urgent one soon when none was sent of late, else with the
// next that are sent. mu is held.
func (c *Client) mark(t id.ThreadID, urgent bool) {
	c.dirty[t] = true
	wait := patience * c.cfg.AckInterval
	if urgent {
		wait = max(min(firstAck, c.cfg.AckInterval), c.cfg.AckInterval-time.Since(c.flushed))
	}
	c.flushWithin(wait)
}

// flushWithin makes sure that what is dirty is sent after a while at most. mu is held.
func (c *Client) flushWithin(wait time.Duration) {
	due := time.Now().Add(wait)
	if c.flush != nil {
		if !due.Before(c.due) || !c.flush.Stop() {
			return // it fires soon enough, or is about to
		}
	}
	c.due, c.flush = due, time.AfterFunc(wait, c.flushWatermarks)
}

// flushWatermarks sends what moved. Without a connection it stays dirty and goes out with the next synchronisation.
func (c *Client) flushWatermarks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flush != nil {
		c.flush.Stop()
		c.flush = nil
	}
	if !c.live || len(c.dirty) == 0 {
		return
	}
	c.flushed = time.Now()
	items := make([]*wirev1.Watermark, 0, min(len(c.dirty), 500))
	for t := range c.dirty {
		w := c.applied[t]
		items = append(items, wirev1.Watermark_builder{
			ThreadId: t[:], DeliveredPosition: int64(w.DeliveredPosition), DeliveredOrdinal: w.DeliveredOrdinal,
			ReadPosition: int64(w.ReadPosition), ReadOrdinal: w.ReadOrdinal,
		}.Build())
		delete(c.dirty, t)
		if len(items) == cap(items) {
			break
		}
	}
	c.conn.write(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: items}.Build()}.Build())
	if len(c.dirty) > 0 {
		c.flushWithin(firstAck)
	}
}

// Flush sends the watermarks that wait to be sent, and returns when an edge has read them: a short-lived process calls
// it last, since the end of a connection takes what is on its way. Without a connection it waits for one until ctx
// ends, if there is anything to send. What the Store has and no edge has read is sent when the thread moves again.
func (c *Client) Flush(ctx context.Context) error {
	for {
		c.mu.Lock()
		idle := !c.live && len(c.dirty) == 0
		c.mu.Unlock()
		if idle {
			return nil
		}
		c.flushWatermarks()
		c.mu.Lock()
		last := c.flushed
		c.mu.Unlock()
		if err := c.Ping(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		sent := len(c.dirty) == 0 && c.flushed.Equal(last) // else a timer sent some behind the question
		c.mu.Unlock()
		if sent {
			return nil
		}
	}
}

// To names where a message goes.
type To struct {
	Thread id.ThreadID
	// Peer is the other user of a direct thread; needed when the thread may not exist yet.
	Peer id.UserID
	// Reply is the message that this one answers; zero: none.
	Reply event.MessageRef
}

// Direct names the direct thread with another user. ErrNotRegistered before this device is registered.
func (c *Client) Direct(peer id.UserID) (To, error) {
	me, ok := c.Identity()
	if !ok {
		return To{}, ErrNotRegistered
	}
	return To{Thread: id.DirectThread(me.User, peer), Peer: peer}, nil
}

// Send puts a text into the outbox and returns its id; Sent or Failed tells by Events what became of it. A text that no
// server takes is refused at once.
func (c *Client) Send(to To, text string) (id.MessageID, error) {
	switch {
	case wording.Blank(text):
		return id.MessageID{}, wire.Errorf(wirev1.Code_CODE_INVALID, "the text has nothing to be seen")
	case len(text) > thread.MaxText:
		return id.MessageID{}, wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "text of %d bytes, at most %d",
			len(text), thread.MaxText)
	}
	data, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	if err != nil {
		return id.MessageID{}, wire.Errorf(wirev1.Code_CODE_INVALID, "text is not UTF-8")
	}
	o := Outgoing{
		Thread: to.Thread, ID: id.NewMessage(), Data: data, ReplyTo: to.Reply.ID, ReplyAuthor: to.Reply.Author,
		DirectPeer: to.Peer, ClientTimeMS: time.Now().UnixMilli(),
	}
	return o.ID, c.SendRaw(o)
}

// SendRaw puts a message into the outbox as it is: for sealed content, and for sending again under an id that was used
// before.
func (c *Client) SendRaw(o Outgoing) error {
	if c.Outbox() >= outboxLimit {
		return ErrOutboxFull
	}
	if err := c.cfg.Store.Put(o); err != nil {
		return fmt.Errorf("store message: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.waiting = append(c.waiting, &outgoing{Outgoing: o, seq: c.seq})
	c.pump()
	return nil
}

// pump sends what waits, as far as the window allows. mu is held.
func (c *Client) pump() {
	if !c.live || c.paused || len(c.waiting) == 0 || len(c.inflight) >= c.cfg.Window {
		return
	}
	c.goOn()
	left := c.waiting[:0]
	for n, o := range c.waiting {
		if len(c.inflight) >= c.cfg.Window {
			left = append(left, c.waiting[n:]...)
			break
		}
		if _, stopped := c.stopped[o.Thread]; stopped {
			left = append(left, o)
			continue
		}
		c.inflight[o.ID] = o
		b := wirev1.SendMessage_builder{
			ThreadId: o.Thread[:], MessageId: o.ID[:], ClientTimeMs: o.ClientTimeMS,
			Content: eventv1.Sealed_builder{KeyId: o.KeyID, Nonce: o.Nonce, Data: o.Data}.Build(),
		}
		switch {
		case o.ReplyTo.IsZero():
		case o.ReplyAuthor.IsZero() || !c.conn.replyRef:
			b.ReplyTo = o.ReplyTo[:]
		default:
			b.Reply = o.Reply().Proto()
		}
		if !o.DirectPeer.IsZero() {
			b.DirectPeer = o.DirectPeer[:]
		}
		c.conn.send(o.ID, b.Build())
	}
	clear(c.waiting[len(left):])
	c.waiting = left
}

// goOn ends the stop of threads whose time has come and to which nothing sent is unanswered. mu is held.
func (c *Client) goOn() {
	if len(c.stopped) == 0 {
		return
	}
	unanswered := map[id.ThreadID]bool{}
	for _, o := range c.inflight {
		unanswered[o.Thread] = true
	}
	maps.DeleteFunc(
		c.stopped, func(t id.ThreadID, until time.Time) bool { return !unanswered[t] && !time.Now().Before(until) },
	)
}

// goesOn ends the stop of a thread that takes messages again (wire 5.9), without waiting for its time.
func (c *Client) goesOn(t id.ThreadID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, stopped := c.stopped[t]; !stopped {
		return
	}
	c.stopped[t] = time.Time{}
	delete(c.tries, t)
	c.pump()
}

// settle takes a message out of the outbox; false when it was not in it.
func (c *Client) settle(m id.MessageID) (*outgoing, bool) {
	c.mu.Lock()
	o, ok := c.leave(m)
	if ok {
		c.pump()
	}
	c.mu.Unlock()
	if ok {
		c.drop(m)
	}
	return o, ok
}

// refused puts a message that was refused for now back and stops its thread for a while: what is on its way to it
// behind the message is refused too, and all of it is sent again in order once it is answered. Other threads wait as
// well, unless the refusal is about this thread alone. The thread's waits double until a message of it is taken, those
// of all until any is.
func (c *Client) refused(m id.MessageID, why *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.inflight[m]
	if !ok {
		return
	}
	delete(c.inflight, m)
	if o.abandoned {
		c.abandon(o)
		return
	}
	at, _ := slices.BinarySearchFunc(c.waiting, o, bySeq)
	c.waiting = slices.Insert(c.waiting, at, o)
	if _, stopped := c.stopped[o.Thread]; stopped {
		c.pump() // it may have been the last that was unanswered
		return
	}
	after := c.backoff(c.tries[o.Thread], why)
	c.tries[o.Thread]++
	c.stopped[o.Thread] = time.Now().Add(after)
	c.pumpAfter(after, func() {})
	switch {
	case why.Code == wirev1.Code_CODE_THREAD_PARKED:
		c.queue.put(Delayed{Thread: o.Thread, ID: o.ID, Err: why})
	case why.Code == wirev1.Code_CODE_OUT_OF_TURN || c.paused:
	default:
		c.paused = true
		c.pumpAfter(c.backoff(c.setbacks, why), func() { c.paused = false })
		c.setbacks++
	}
	c.pump()
}

// pumpAfter sends what waits after a while. change is called under mu before.
func (c *Client) pumpAfter(d time.Duration, change func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		change()
		c.pump()
	})
}

func bySeq(a, b *outgoing) int { return cmp.Compare(a.seq, b.seq) }

// requeue moves what is in flight back to what waits (wire 7.6). mu is held.
func (c *Client) requeue() {
	for _, o := range c.inflight {
		if o.abandoned {
			c.abandon(o)
			continue
		}
		c.waiting = append(c.waiting, o)
	}
	clear(c.inflight)
	slices.SortFunc(c.waiting, bySeq)
}

// newKey makes the key of a device.
func newKey() (ed25519.PublicKey, ed25519.PrivateKey, error) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make device key: %w", err)
	}
	return pub, priv, nil
}
