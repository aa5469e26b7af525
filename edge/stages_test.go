package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/edge/fanout"
	"heliograph/edge/session"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// half is one direction of a stream: what was written and not read yet. Writing never waits.
type half struct {
	mu   sync.Mutex // guards the rest
	more sync.Cond
	buf  bytes.Buffer
	over bool
}

func newHalf() *half {
	h := &half{}
	h.more.L = &h.mu
	return h
}

func (h *half) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return 0, io.ErrClosedPipe
	}
	h.more.Broadcast()
	return h.buf.Write(p)
}

func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.Len() == 0 && !h.over {
		h.more.Wait()
	}
	n, err := h.buf.Read(p)
	h.more.Broadcast()
	return n, err
}

// end lets nothing more be written.
func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.more.Broadcast()
}

// drop ends it with what was not read.
func (h *half) drop() {
	h.end()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
}

// read waits until everything that was written has been read, or never will be.
func (h *half) read() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.Len() > 0 && !h.over {
		h.more.Wait()
	}
}

// memConn is a connection in memory, as its session sees it.
type memConn struct {
	in, out *half
	from    netip.Addr
	cancel  context.CancelFunc

	mu    sync.Mutex // guards the rest
	pages []*memPage
	code  wirev1.Code
	ended bool
}

func (c *memConn) Control() session.Stream          { return c }
func (c *memConn) Exporter() ([]byte, error)        { return make([]byte, 32), nil }
func (c *memConn) Remote() netip.Addr               { return c.from }
func (c *memConn) Authenticated()                   {}
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *memConn) Write(p []byte) (int, error)      { return c.out.Write(p) }

func (c *memConn) OpenPage(context.Context) (session.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &memPage{}
	c.pages = append(c.pages, p)
	return p, nil
}

func (c *memConn) Close(code wirev1.Code, _ string) {
	c.mu.Lock()
	c.code, c.ended = code, true
	c.mu.Unlock()
	c.in.drop()
	c.out.end()
	c.cancel()
}

// outcome is the code with which the connection was closed, and whether it was.
func (c *memConn) outcome() (wirev1.Code, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code, c.ended
}

type memPage struct{ bytes.Buffer }

func (p *memPage) SetWriteDeadline(time.Time) error { return nil }
func (p *memPage) Close() error                     { return nil }
func (p *memPage) Cancel()                          {}

// mouth is the device's end of a memConn.
type mouth struct {
	t    testing.TB
	conn *memConn
	in   *bufio.Reader
	req  uint64
	said bytes.Buffer
	got  []*wirev1.ServerFrame
	done chan struct{} // the session has ended
}

func (m *mouth) raw(b []byte) {
	m.said.Write(b)
	_, _ = m.conn.in.Write(b) // the session may have ended
}

func (m *mouth) send(b wirev1.ClientFrame_builder) uint64 {
	m.t.Helper()
	m.req++
	b.RequestId = m.req
	data, err := frame.Append(nil, b.Build())
	if err != nil {
		m.t.Fatal(err)
	}
	m.raw(data)
	return m.req
}

// next returns what comes next; nil when nothing more does.
func (m *mouth) next() *wirev1.ServerFrame {
	m.t.Helper()
	raw, err := frame.Read(m.in, nil, wire.MaxServerFrame)
	if errors.Is(err, io.EOF) {
		return nil
	}
	f := &wirev1.ServerFrame{}
	if err := errors.Join(err, proto.Unmarshal(raw, f)); err != nil {
		m.t.Fatalf("the server wrote: %v", err)
	}
	saysWhen(m.t, f)
	m.got = append(m.got, f)
	return f
}

func (m *mouth) await(what string, is func(*wirev1.ServerFrame) bool) *wirev1.ServerFrame {
	m.t.Helper()
	for {
		f := m.next()
		if f == nil {
			code, _ := m.conn.outcome()
			m.t.Fatalf("no %s: the session ended with %v", what, code)
		}
		if is(f) {
			return f
		}
	}
}

func (m *mouth) answer(req uint64) *wirev1.ServerFrame {
	m.t.Helper()
	return m.await("answer", func(f *wirev1.ServerFrame) bool { return f.GetRequestId() == req })
}

func (m *mouth) ask(b wirev1.ClientFrame_builder) *wirev1.ServerFrame {
	m.t.Helper()
	return m.answer(m.send(b))
}

// want asks, and expects a kind of answer.
func (m *mouth) want(name string, b wirev1.ClientFrame_builder, is func(*wirev1.ServerFrame) bool) {
	m.t.Helper()
	if f := m.ask(b); !is(f) {
		m.t.Fatalf("got %v, want %s", f, name)
	}
}

// The people of these tests: somebody is who the hostile device proves to be, the witness writes to a friend all along.
var (
	somebody   = auth.Identity{User: id.UserID{1}, Device: id.DeviceID{6: 0x70, 8: 0x80}}
	onlooker   = auth.Identity{User: id.UserID{2}, Device: id.DeviceID{6: 0x70, 8: 0x80, 15: 2}}
	friend     = id.UserID{3}
	hostile    = netip.AddrFrom4([4]byte{10, 0, 0, 1})
	elsewhere  = netip.AddrFrom4([4]byte{10, 0, 0, 2})
	noProof    = "no proof"
	helloFrame = wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{Client: "fuzz"}.Build()}
	proofFrame = wirev1.ClientFrame_builder{Authenticate: &wirev1.Authenticate{}}
	syncFrame  = wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}}
)

// open lets every proof through but one that says that it is none: the fuzzer cannot sign. Who it is, the address
// tells.
type open struct {
	gate
	let *atomic.Bool // somebody was let in
}

func (o open) in(from netip.Addr) (auth.Identity, error) {
	if from == elsewhere {
		return onlooker, nil
	}
	o.let.Store(true)
	return somebody, nil
}

func (o open) Register(_ context.Context, _ *wirev1.Register, _, _ []byte, from netip.Addr) (auth.Identity, error) {
	return o.in(from)
}

func (o open) Authenticate(
	_ context.Context, a *wirev1.Authenticate, _, _ []byte, from netip.Addr,
) (auth.Identity, error) {
	if string(a.GetSignature()) == noProof {
		return auth.Identity{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "no")
	}
	return o.in(from)
}

// wholeReads answers every query: reads breaks on purpose.
type wholeReads struct{ reads }

func (wholeReads) GetThread(
	context.Context, id.UserID, user.Floor, func(id.ThreadID) thread.Watermark, id.ThreadID,
) (*wirev1.Thread, error) {
	return &wirev1.Thread{}, nil
}

// complaints is a log that must stay without errors: a session logs one when it panics or fails for a reason that
// nobody foresaw.
type complaints struct{ t testing.TB }

func (c complaints) Enabled(context.Context, slog.Level) bool { return true }
func (c complaints) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c complaints) WithGroup(string) slog.Handler            { return c }

func (c complaints) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		r.Attrs(func(a slog.Attr) bool { c.t.Errorf("%s: %v", r.Message, a); return true })
	}
	return nil
}

// arena is a server with one healthy session, the witness, beside which others come and go.
type arena struct {
	t       testing.TB
	world   *world
	server  *session.Server
	reg     *registry
	let     atomic.Bool
	witness *mouth
	said    int64
}

func newArena(t testing.TB) *arena {
	t.Helper()
	a := &arena{t: t, world: newWorld(), reg: &registry{sessions: map[owner]*session.Session{}}}
	a.world.users[onlooker.User], a.world.users[friend] = true, true
	var err error
	a.server, err = session.New(
		session.Config{Partitions: partitions, RequestTimeout: patience}, readSide{a.world}, readSide{a.world},
		open{gate{a.world}, &a.let}, wholeReads{reads{a.world}}, a.world, a.reg, slog.New(complaints{t}), nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	a.witness = a.connect(elsewhere)
	live(a, a.witness)
	a.undisturbed() // which begins the thread
	return a
}

func (a *arena) connect(from netip.Addr) *mouth {
	ctx, cancel := context.WithCancel(context.Background())
	c := &memConn{in: newHalf(), out: newHalf(), from: from, cancel: cancel}
	m := &mouth{t: a.t, conn: c, in: bufio.NewReader(c.out), done: make(chan struct{})}
	late := time.AfterFunc(patience, func() {
		a.t.Error("the session hangs")
		c.Close(wirev1.Code_CODE_TIMEOUT, "")
	})
	go func() {
		defer close(m.done)
		a.server.Serve(ctx, c)
		late.Stop()
		cancel()
	}()
	a.t.Cleanup(func() {
		c.in.end()
		<-m.done
	})
	return m
}

// sessions returns the sessions of the hostile device: one, or none.
func (a *arena) sessions() (out []*session.Session) {
	for _, s := range a.reg.all() {
		if s.User() == somebody.User {
			out = append(out, s)
		}
	}
	return out
}

// undisturbed has the witness say something: it is acknowledged and comes back as the next of its thread.
func (a *arena) undisturbed() {
	a.t.Helper()
	a.said++
	th, m := id.DirectThread(onlooker.User, friend), id.NewMessage()
	req := a.witness.send(wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: th[:], MessageId: m[:], Content: text("all is well"), DirectPeer: friend[:],
	}.Build()})
	var acked, back bool
	for !acked || !back {
		f := a.witness.await("ack and message", func(f *wirev1.ServerFrame) bool {
			return f.GetRequestId() != 0 || f.HasEvent() && id.ThreadID(f.GetEvent().GetThreadId()) == th
		})
		switch {
		case f.GetRequestId() == req && f.HasAck() && !acked:
			acked = true
		case f.HasEvent() && f.GetEvent().GetOrdinal() == a.said && !back:
			back = true
		default:
			a.t.Fatalf("message %d: got %v", a.said, f)
		}
	}
	a.witness.want(
		"devices", wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}, (*wirev1.ServerFrame).HasDevices,
	)
}

// push has the friend write to somebody.
func (a *arena) push() {
	th, m := id.DirectThread(somebody.User, friend), id.NewMessage()
	said := eventv1.Event_builder{UserId: friend[:], MessageSent: eventv1.MessageSent_builder{
		MessageId: m[:], Content: text("psst"), DirectPeer: somebody.User[:],
	}.Build()}.Build()
	a.world.Append(topic.Threads, topic.Subject(th), said, func(ingest.Receipt, error) {})
}

// stages are the states in which a session can be, and how a device gets there.
var stages = []struct {
	name  string
	early bool // not authenticated
	enter func(*arena, *mouth)
}{
	{"before hello", true, func(*arena, *mouth) {}},
	{"before the proof", true, greeted},
	{"after a refused proof", true, refusedOnce},
	{"authenticated", false, proven},
	{"syncing", false, syncing},
	{"live", false, live},
	{"told to sync again", false, lagging},
	{"draining", false, leaving},
}

func greeted(_ *arena, m *mouth) {
	m.t.Helper()
	m.want("Welcome", helloFrame, (*wirev1.ServerFrame).HasWelcome)
}

func refusedOnce(a *arena, m *mouth) {
	m.t.Helper()
	greeted(a, m)
	m.want(
		"a PIN", wirev1.ClientFrame_builder{RequestPin: wirev1.RequestPin_builder{Phone: "+4915112345678"}.Build()},
		(*wirev1.ServerFrame).HasPinRequested,
	)
	m.want(
		"a refusal",
		wirev1.ClientFrame_builder{Authenticate: wirev1.Authenticate_builder{Signature: []byte(noProof)}.Build()},
		func(f *wirev1.ServerFrame) bool {
			return f.GetError().GetCode() == wirev1.Code_CODE_AUTHENTICATION_FAILED
		},
	)
}

func proven(a *arena, m *mouth) {
	m.t.Helper()
	greeted(a, m)
	m.want("Authenticated", proofFrame, (*wirev1.ServerFrame).HasAuthenticated)
}

// syncing leaves the session in a Sync that does not end by itself.
func syncing(a *arena, m *mouth) {
	m.t.Helper()
	proven(a, m)
	begun := make(chan struct{}, 1)
	a.world.mu.Lock()
	a.world.sync = func(ctx context.Context, _ fanout.Session) error {
		select {
		case begun <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	a.world.mu.Unlock()
	m.send(syncFrame)
	<-begun
}

func live(a *arena, m *mouth) {
	m.t.Helper()
	proven(a, m)
	m.want("Done", syncFrame, (*wirev1.ServerFrame).HasDone)
}

func lagging(a *arena, m *mouth) {
	m.t.Helper()
	live(a, m)
	for _, s := range a.sessions() {
		s.Lagged()
	}
	m.await("Resync", (*wirev1.ServerFrame).HasResync)
}

func leaving(a *arena, m *mouth) {
	m.t.Helper()
	live(a, m)
	for _, s := range a.sessions() {
		s.GoAway(time.Second)
	}
	m.await("GoAway", (*wirev1.ServerFrame).HasGoAway)
}

func frames(t testing.TB, bs ...wirev1.ClientFrame_builder) []byte {
	var out []byte
	for k, b := range bs {
		b.RequestId = uint64(k) + 1
		var err error
		if out, err = frame.Append(out, b.Build()); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
