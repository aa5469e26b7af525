package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// errGoAway ends a connection because the server asked for it.
var errGoAway = errors.New("the edge is going away")

// errSilent ends a connection whose edge sends nothing any more.
var errSilent = errors.New("the edge does not answer")

// errSlow is errSilent before the device was synchronised.
var errSlow = fmt.Errorf("%w in time", errSilent)

// errClogged ends a connection whose edge sends and sends but does not read.
var errClogged = errors.New("the edge does not read what it is answered")

// maxBacklog is how many bytes may wait to be written; a full window of the longest messages is less than half of it.
// Beyond, the edge asks for more answers than it reads.
const maxBacklog = 32 << 20

// errLost is what calls get whose connection ended before their answer; they may have had an effect.
var errLost = errors.New("the connection ended before the answer")

// conn is one connection. The reader is the goroutine of connect; the writer runs only while there is something to
// write.
type conn struct {
	// Fixed after newConn.
	quic   *quic.Conn
	stream control
	nonce  []byte
	// nolint:containedctx // ends with the connection; owned by connect, which outlives every user of conn
	ctx context.Context

	backlog int    // see maxBacklog
	done    func() // gives the socket back, after the end

	paged sync.Once // pages of the history are accepted

	// Reader.
	edge  string // as Welcome named it
	proof uint64 // request id of Authenticate; 0: none was sent

	// Guarded by Client.mu.
	replyRef bool // the edge has wire.ReplyRef: it takes the author of what is answered
	abandon  bool // the edge has wire.Abandon
	cursors  bool // the edge has wire.OwnCursors
	ping     bool // the edge has wire.Ping

	// Guarded by wmu.
	wmu     sync.Mutex
	silence time.Duration // see Config.silence and attempts.patience
	silent  error         // it was given up for that
	wbuf    []byte
	spare   []byte
	writing bool
	// What was written at since is unanswered until more than heard packets have come; watch is the timer that looks,
	// nil when it does not run.
	watch *time.Timer
	since time.Time
	heard uint64
	// asked: a Sync was written, so the edge takes any frame; syncing: its SyncComplete has not come.
	asked, syncing bool
	greeted        bool        // its Welcome has come
	beat           *time.Timer // of beat; nil before the device is authenticated
	beaten         uint64      // packets that had come when it fired last

	// Guarded by pmu.
	pmu     sync.Mutex
	next    uint64
	pending map[uint64]chan *wirev1.ServerFrame
	sends   map[uint64]id.MessageID
	closed  bool
}

// control is what the client uses of its control stream: a *quic.Stream.
type control interface {
	io.ReadWriter
	CancelRead(quic.StreamErrorCode)
}

// connect opens a connection, lives on it and returns why it ended, and after how long to come back when the server
// said so.
func (c *Client) connect(ctx context.Context, addr string, patience time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cn, err := c.dial(ctx, addr, patience)
	if err != nil {
		return 0, unreached{err, errors.As(err, new(*quic.IdleTimeoutError))}
	}
	c.mu.Lock()
	delete(c.faults, addr)
	c.lasting = nil
	c.mu.Unlock()
	cn.ctx = ctx
	err = c.serve(ctx, cn)
	c.mu.Lock()
	if c.conn == cn {
		c.conn, c.live = nil, false
		c.requeue()
		c.notify()
	}
	c.mu.Unlock()
	cn.fail()
	_ = cn.quic.CloseWithError(quic.ApplicationErrorCode(0), "") // it is over either way
	cn.rest()
	cn.done()
	if silent := cn.gaveUp(); silent != nil {
		return 0, silent
	}
	var ga goAway
	if errors.As(err, &ga) {
		return ga.after, errGoAway
	}
	return 0, closeReason(err)
}

// closeReason turns a close code into a *wire.Error: the server's, or the one with which this side closed because its
// proof was refused.
func closeReason(err error) error {
	var app *quic.ApplicationError
	if errors.As(err, &app) && (app.Remote || app.ErrorCode != 0) {
		return &wire.Error{Code: wirev1.Code(app.ErrorCode), Message: app.ErrorMessage}
	}
	return err
}

type goAway struct{ after time.Duration }

func (goAway) Error() string { return errGoAway.Error() }

func (c *Client) dial(ctx context.Context, addr string, patience time.Duration) (*conn, error) {
	tlsConf := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.cfg.TLS != nil {
		tlsConf = c.cfg.TLS.Clone()
	}
	tlsConf.NextProtos = []string{wire.Protocol}
	if tlsConf.ServerName == "" { // wire 1.1
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("edge address %q: %w", addr, err)
		}
		tlsConf.ServerName = host
	}
	conf := &quic.Config{
		HandshakeIdleTimeout: 5 * time.Second, MaxIdleTimeout: 60 * time.Second, KeepAlivePeriod: quicKeepAlive,
		InitialStreamReceiveWindow: 128 << 10, MaxStreamReceiveWindow: 1 << 20,
		InitialConnectionReceiveWindow: 256 << 10, MaxConnectionReceiveWindow: 4 << 20,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: 8,
		InitialPacketSize: wire.PacketSize, DisablePathMTUDiscovery: true,
	}
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("edge address %q: %w", addr, err)
	}
	tr, done := c.cfg.Transport, func() {}
	if tr == nil {
		// Not by quic.DialAddr, which forgets its socket where dialling fails.
		socket, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, fmt.Errorf("open a socket: %w", err)
		}
		tr = &quic.Transport{Conn: socket}
		done = func() { _, _ = tr.Close(), socket.Close() } // nothing is left that could fail
	}
	q, err := tr.Dial(ctx, udp, tlsConf, conf)
	if err != nil {
		done()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	s, err := q.OpenStreamSync(ctx)
	if err != nil {
		_ = q.CloseWithError(0, "") // it is of no use without the stream
		done()
		return nil, fmt.Errorf("open control stream: %w", closeReason(err))
	}
	cn := newConn(q, s, patience, maxBacklog)
	cn.done = done
	return cn, nil
}

func newConn(q *quic.Conn, s control, silence time.Duration, backlog int) *conn {
	return &conn{
		quic:    q,
		stream:  s,
		silence: silence,
		backlog: backlog,
		pending: map[uint64]chan *wirev1.ServerFrame{},
		sends:   map[uint64]id.MessageID{},
	}
}

// serve runs a connection: greeting, proof, synchronisation, then everything that comes.
func (c *Client) serve(ctx context.Context, cn *conn) error {
	r := bufio.NewReaderSize(cn.stream, 16<<10)
	stop := context.AfterFunc(ctx, func() { cn.stream.CancelRead(0) })
	defer stop()
	cn.write(wirev1.ClientFrame_builder{
		RequestId: cn.request(nil),
		Hello:     wirev1.Hello_builder{Client: c.cfg.Name, Features: wire.Features}.Build(),
	}.Build())
	var buf []byte
	for {
		if !c.queue.room(ctx) {
			return ctx.Err()
		}
		var err error
		buf, err = frame.Read(r, buf, wire.MaxServerFrame)
		if err != nil {
			// The connection knows better than the stream why it ended.
			if cause := context.Cause(cn.quic.Context()); cause != nil {
				return cause
			}
			return fmt.Errorf("read: %w", err)
		}
		var f wirev1.ServerFrame
		if err := proto.Unmarshal(buf, &f); err != nil {
			c.unreadable(buf, fmt.Errorf("decode frame: %w", err))
		} else if err := c.handle(cn, &f); errors.As(err, new(alien)) {
			c.unreadable(buf, err)
		} else if err != nil {
			return err
		}
		if cn.clogged() {
			return errClogged
		}
		if cap(buf) > 64<<10 {
			buf = nil // do not keep what one large frame needed
		}
	}
}

// alien is about a frame that says something that this version cannot make sense of. It would come again on every
// connection, so none ends for it.
type alien struct{ error }

func (a alien) Unwrap() error { return a.error }

// unreadable tells the application of a frame. The buffer is the reader's.
func (c *Client) unreadable(frame []byte, err error) {
	c.cfg.Logger.Error("a frame of the edge cannot be read", "err", err)
	c.queue.put(Unreadable{Frame: bytes.Clone(frame), Err: err})
}

// handle takes one frame; it runs on the reader only.
func (c *Client) handle(cn *conn, f *wirev1.ServerFrame) error {
	if rid := f.GetRequestId(); rid != 0 {
		if rid == cn.proof {
			if f.WhichBody() != wirev1.ServerFrame_Authenticated_case {
				return errorOf(f.GetError())
			}
			c.queue.put(Connected{Edge: cn.edge})
			return nil
		}
		if m, ok := cn.takeSend(rid); ok {
			c.answered(m, f)
			return nil
		}
		if ch := cn.take(rid); ch != nil {
			ch <- f // buffered for its one answer
			return nil
		}
	}
	switch f.WhichBody() {
	case wirev1.ServerFrame_Welcome_case:
		if n := len(f.GetWelcome().GetNonce()); cn.nonce != nil || n != wire.NonceSize {
			return fmt.Errorf("a second Welcome, or one with a nonce of %d bytes", n)
		}
		cn.nonce = f.GetWelcome().GetNonce()
		return c.welcomed(cn, f.GetWelcome())
	case wirev1.ServerFrame_Event_case:
		return c.event(f.GetEvent())
	case wirev1.ServerFrame_Receipts_case:
		t, err := id.From[id.ThreadID](f.GetReceipts().GetThreadId())
		if err != nil {
			return alien{fmt.Errorf("receipts: %w", err)}
		}
		for _, m := range f.GetReceipts().GetItems() {
			u, err := id.From[id.UserID](m.GetUserId())
			if err != nil {
				return alien{fmt.Errorf("receipts: %w", err)}
			}
			c.queue.put(Receipt{Thread: t, User: u, Watermark: watermarkOf(m)})
		}
	case wirev1.ServerFrame_ThreadChanged_case:
		s := f.GetThreadChanged().GetThread()
		t, err := id.From[id.ThreadID](s.GetThreadId())
		if err != nil {
			return alien{fmt.Errorf("thread changed: %w", err)}
		}
		c.mu.Lock()
		own := watermarkOf(s.GetOwn())
		if own.ReadPosition < c.applied[t].ReadPosition {
			c.mark(t, true) // it was lost with an earlier connection
		}
		read := thread.Watermark{ReadPosition: own.ReadPosition, ReadOrdinal: own.ReadOrdinal}
		c.applied[t] = c.applied[t].Merge(read)
		c.mu.Unlock()
		c.queue.put(ThreadChanged{Summary: s})
	case wirev1.ServerFrame_ThreadLate_case: // wire 5.8
		late := f.GetThreadLate()
		t, err := id.From[id.ThreadID](late.GetThreadId())
		if err != nil {
			return alien{fmt.Errorf("thread late: %w", err)}
		}
		e := ThreadLate{Thread: t}
		if late.HasError() {
			e.Err = errorOf(late.GetError())
		} else {
			c.goesOn(t)
		}
		c.queue.put(e)
	case wirev1.ServerFrame_Invitation_case: // wire 16.4
		i, err := invitationOf(f.GetInvitation())
		if err != nil {
			return alien{fmt.Errorf("invitation: %w", err)}
		}
		c.queue.put(i)
	case wirev1.ServerFrame_SyncComplete_case:
		c.synced(cn, f.GetSyncComplete())
	case wirev1.ServerFrame_Resync_case:
		c.mu.Lock()
		c.sync(cn)
		c.mu.Unlock()
	case wirev1.ServerFrame_GoAway_case:
		return goAway{after: max(time.Millisecond, time.Duration(f.GetGoAway().GetReconnectAfterMs())*time.Millisecond)}
	case wirev1.ServerFrame_Rejected_case:
		rj := f.GetRejected()
		t, err := id.From[id.ThreadID](rj.GetThreadId())
		m, err2 := id.From[id.MessageID](rj.GetMessageId())
		if err := errors.Join(err, err2); err != nil {
			return alien{fmt.Errorf("rejected: %w", err)}
		}
		if c.cameBack(m) { // an earlier try of it was rejected
			return nil
		}
		// A Sync tells again what was told before: of that nothing is here any more.
		if o, ok := c.untaken(m, &wire.Error{Code: rj.GetCode()}); ok {
			c.queue.put(Rejected{
				Thread: t, ID: m, Position: topic.Position(rj.GetPosition()), Code: rj.GetCode(), Message: o,
			})
		}
	case wirev1.ServerFrame_Error_case:
		if f.GetRequestId() == 0 {
			return errorOf(f.GetError())
		}
	default: // a frame of a newer server, or an answer that nobody waits for any more
	}
	return nil
}

func watermarkOf(m *wirev1.MemberWatermark) thread.Watermark {
	return thread.Watermark{
		DeliveredPosition: topic.Position(m.GetDeliveredPosition()), DeliveredOrdinal: m.GetDeliveredOrdinal(),
		ReadPosition: topic.Position(m.GetReadPosition()), ReadOrdinal: m.GetReadOrdinal(),
	}
}

func errorOf(e *wirev1.Error) error {
	out := &wire.Error{
		Code:       e.GetCode(),
		Message:    e.GetMessage(),
		RetryAfter: time.Duration(e.GetRetryAfterMs()) * time.Millisecond,
	}
	for _, b := range e.GetUserIds() {
		if u, err := id.From[id.UserID](b); err == nil {
			out.Users = append(out.Users, u)
		}
	}
	return out
}

// welcomed has the nonce: authenticate, or wait for a registration.
func (c *Client) welcomed(cn *conn, w *wirev1.Welcome) error {
	cn.wmu.Lock()
	cn.greeted = true
	cn.wmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.live = cn, false
	can := func(feature string) bool { return slices.Contains(w.GetFeatures(), feature) }
	cn.replyRef, cn.abandon, cn.ping = can(wire.ReplyRef), can(wire.Abandon), can(wire.Ping)
	cn.cursors = can(wire.OwnCursors)
	c.notify()
	if c.id.User.IsZero() {
		return nil
	}
	exporter, err := cn.exporter()
	if err != nil {
		return err
	}
	me := c.id
	cn.edge, cn.proof = w.GetEdge(), cn.request(nil)
	cn.write(wirev1.ClientFrame_builder{RequestId: cn.proof, Authenticate: wirev1.Authenticate_builder{
		UserId: me.User[:], DeviceId: me.Device[:],
		Signature:  ed25519.Sign(me.Key, wire.Proof(cn.nonce, exporter, me.User, me.Device)),
		Background: c.cfg.BackgroundSession,
	}.Build()}.Build())
	c.sync(cn) // in the same packet: the edge takes it up once the proof is accepted, and refuses both otherwise
	return nil
}

func (cn *conn) exporter() ([]byte, error) {
	state := cn.quic.ConnectionState().TLS
	out, err := state.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("tls exporter: %w", err)
	}
	return out, nil
}

// sync asks for what was missed (wire 5.1). mu is held.
func (c *Client) sync(cn *conn) {
	cn.wmu.Lock()
	cn.asked, cn.syncing = true, true
	cn.wmu.Unlock()
	if cn.cursors {
		c.have(cn)
	}
	cn.write(wirev1.ClientFrame_builder{
		RequestId: cn.request(nil),
		Sync:      wirev1.Sync_builder{OwnCursors: cn.cursors, Window: uint32(c.cfg.SyncWindow)}.Build(),
	}.Build())
}

func (c *Client) synced(cn *conn, s *wirev1.SyncComplete) {
	cn.wmu.Lock()
	cn.syncing, cn.silence = false, c.cfg.silence
	cn.wmu.Unlock()
	c.mu.Lock()
	first := c.conn == cn && !c.live
	if first {
		c.live = true
		c.notify()
		c.pump()
	}
	c.mu.Unlock()
	c.pass()
	c.queue.put(Synced{Rest: int(s.GetRest())})
	c.pulse(cn)
	if first {
		c.flushWatermarks()
	}
}

// event queues an event that the device does not have yet (wire 6.1).
func (c *Client) event(raw *wirev1.Event) error {
	e, err := decodeEvent(raw)
	if err != nil {
		return alien{fmt.Errorf("event of thread %x at %d: %w", raw.GetThreadId(), raw.GetPosition(), err)}
	}
	p, _ := placeOf(e)
	c.mu.Lock()
	if last, ok := c.queued[p.Thread]; ok && p.Position <= last {
		if p.Position <= c.applied[p.Thread].DeliveredPosition {
			// the server repeats what was applied: the watermark was lost with an earlier connection
			c.mark(p.Thread, true)
		}
		c.mu.Unlock()
		return nil
	}
	c.queued[p.Thread] = p.Position
	me := c.id
	c.mu.Unlock()
	m, ok := e.(Message)
	mine := ok && m.Sender == me.User && m.Device == me.Device
	if mine {
		c.returned(m.ID)
	}
	if mine && !c.flying(p.Thread, m.ID) {
		if o, ok := c.settle(m.ID); ok { // its ack was lost with an earlier connection
			c.queue.put(Sent{ID: o.ID, Ack: Ack{Thread: o.Thread, Slot: -1, Position: p.Position, Time: p.Time}})
		}
	}
	c.queue.put(e)
	return nil
}

// flying tells whether a message has or will have an answer on this connection, which says more than the message
// itself. One that was refused is sent again even if it has come back: the edge waits for it before it takes those
// behind it.
func (c *Client) flying(t id.ThreadID, m id.MessageID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.inflight[m]
	_, stopped := c.stopped[t]
	return ok || stopped
}

// answered takes the answer to a SendMessage.
func (c *Client) answered(m id.MessageID, f *wirev1.ServerFrame) {
	switch f.WhichBody() {
	case wirev1.ServerFrame_Ack_case:
		if o, ok := c.acknowledge(m, topic.Position(f.GetAck().GetPosition())); ok {
			c.queue.put(Sent{ID: m, Ack: ackOf(f.GetAck(), o.Thread)})
		}
	case wirev1.ServerFrame_Error_case:
		err := errorOf(f.GetError())
		var we *wire.Error
		if errors.As(err, &we) && we.Retriable() {
			c.refused(m, we)
			return
		}
		if we == nil {
			we = &wire.Error{}
		}
		if o, ok := c.untaken(m, we); ok {
			c.queue.put(Failed{Thread: o.Thread, ID: m, Err: err, Message: o})
		}
	default:
	}
}

func ackOf(a *wirev1.Ack, t id.ThreadID) Ack {
	return Ack{
		Thread:   t,
		Slot:     topic.Slot(a.GetSlot()),
		Position: topic.Position(a.GetPosition()),
		Time:     time.UnixMilli(a.GetLogTimeMs()),
	}
}

// request reserves a request id; its answer goes to ch when that is not nil, and is handled by the reader otherwise.
func (cn *conn) request(ch chan *wirev1.ServerFrame) uint64 {
	cn.pmu.Lock()
	defer cn.pmu.Unlock()
	cn.next++
	if ch != nil {
		if cn.closed {
			close(ch)
		} else {
			cn.pending[cn.next] = ch
		}
	}
	return cn.next
}

func (cn *conn) take(rid uint64) chan *wirev1.ServerFrame {
	cn.pmu.Lock()
	defer cn.pmu.Unlock()
	ch := cn.pending[rid]
	delete(cn.pending, rid)
	return ch
}

func (cn *conn) takeSend(rid uint64) (id.MessageID, bool) {
	cn.pmu.Lock()
	defer cn.pmu.Unlock()
	m, ok := cn.sends[rid]
	delete(cn.sends, rid)
	return m, ok
}

// waiting tells whether a message or a call is unanswered.
func (cn *conn) waiting() bool {
	cn.pmu.Lock()
	defer cn.pmu.Unlock()
	return len(cn.sends) > 0 || len(cn.pending) > 0
}

// send writes a SendMessage.
func (cn *conn) send(m id.MessageID, msg *wirev1.SendMessage) {
	cn.pmu.Lock()
	cn.next++
	rid := cn.next
	cn.sends[rid] = m
	cn.pmu.Unlock()
	cn.write(wirev1.ClientFrame_builder{RequestId: rid, SendMessage: msg}.Build())
}

// fail ends every pending request.
func (cn *conn) fail() {
	cn.pmu.Lock()
	defer cn.pmu.Unlock()
	cn.closed = true
	for rid, ch := range cn.pending {
		delete(cn.pending, rid)
		close(ch)
	}
}

// clogged tells whether too much waits to be written.
func (cn *conn) clogged() bool {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	return len(cn.wbuf) > cn.backlog
}

// write queues a frame and starts the writer when it does not run. What the application makes it queue is bounded by
// the window of sends and the limit of calls; what the edge makes it queue, by clogged.
func (cn *conn) write(f *wirev1.ClientFrame) {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	cn.put(f)
}

// put is write. wmu is held.
func (cn *conn) put(f *wirev1.ClientFrame) {
	var err error
	n := len(cn.wbuf)
	if cn.wbuf, err = frame.Append(cn.wbuf, f); err != nil {
		cn.wbuf = cn.wbuf[:n] // not UTF-8 somewhere: the request is never answered and its context ends it
		return
	}
	cn.expect()
	if !cn.writing {
		cn.writing = true
		go cn.flush()
	}
}

// flush writes until there is nothing left: what gathers while it writes goes out together.
func (cn *conn) flush() {
	for {
		cn.wmu.Lock()
		buf := cn.wbuf
		if len(buf) == 0 {
			cn.writing = false
			cn.wmu.Unlock()
			return
		}
		cn.wbuf, cn.spare = cn.spare[:0], nil
		cn.wmu.Unlock()
		_, err := cn.stream.Write(buf)
		cn.wmu.Lock()
		if cap(buf) <= 64<<10 {
			cn.spare = buf[:0]
		}
		cn.wmu.Unlock()
		if err != nil {
			return // writing stays true: nothing more is written; the reader sees the end too
		}
	}
}
