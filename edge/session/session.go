package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/fanout"
	"heliograph/edge/replica"
	"heliograph/infra/run"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

const maxInflight = wire.MaxInflight

// Server makes sessions of connections.
type Server struct {
	cfg      Config
	fanout   Fanout
	replica  Replica
	auth     Auth
	queries  Queries
	ingest   Log
	registry Registry
	log      *slog.Logger
	metrics  *metrics
	load     load
	budgets  *budgets
	resync   []byte        // the encoded push of wire 8.1
	pages    chan struct{} // one for each page of history that is read, or waits without memory for it
	workers  *workers

	mu   sync.Mutex // guards what follows; taken outside sessions' locks
	open map[*Session]struct{}
}

// New returns a Server.
func New(
	cfg Config, f Fanout, rep Replica, a Auth, q Queries, l Log, r Registry,
	log *slog.Logger, reg prometheus.Registerer,
) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	srv := &Server{
		cfg: cfg.withDefaults(), fanout: f, replica: rep, auth: a, queries: q, ingest: l, registry: r, log: log,
	}
	srv.load.budget = srv.cfg.Budget
	srv.pages = make(chan struct{}, min(edgePages, max(leastPages, srv.cfg.Budget.Memory()/32/wire.MaxServerFrame)))
	srv.workers = newWorkers()
	srv.budgets = newBudgets(srv.cfg.SendsPerDay, srv.cfg.PushesPerDay)
	srv.open = map[*Session]struct{}{}
	srv.metrics = newMetrics(reg, srv)
	srv.resync = encode(wirev1.ServerFrame_builder{
		Resync: wirev1.Resync_builder{Code: wirev1.Code_CODE_SLOW_CONSUMER}.Build(),
	})
	return srv, nil
}

// state is how far a connection has got (wire 3.1, 3.2).
type state int8

const (
	stateHello state = iota
	stateUnauthenticated
	stateAuthenticated
)

func (s state) String() string {
	return [...]string{"hello", "unauthenticated", "authenticated"}[s]
}

// Waiting is the number of frames in all outboxes.
func (srv *Server) Waiting() int64 { return srv.load.frames.Load() }

// WaitingReceipts is the number of members' watermarks in all outboxes.
func (srv *Server) WaitingReceipts() int64 { return srv.load.receipts.Load() }

// OldestWaiting is how long the oldest of what waits in any outbox has waited.
func (srv *Server) OldestWaiting() (age time.Duration) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.open {
		age = max(age, s.out.oldest())
	}
	return age
}

// Session is one device's connection. It implements fanout.Session.
type Session struct {
	// Fixed after Serve began.
	srv    *Server
	conn   Conn
	asking asking
	writer func() // what the writer's goroutine does

	// Reader: touched only by the goroutine of Serve. user, device and floor are fixed once the replica has the user.
	state  state
	early  int // frames before authentication
	nonce  []byte
	tag    [wire.RequestTag]byte // names the connection's requests in the log; fixed once Welcome was sent
	user   id.UserID
	device id.DeviceID
	floor  user.Floor
	// It is the device's second session, beside that of its foreground (wire 3.8); fixed like user.
	background bool
	invites    bool          // the client knows the feature invitations; fixed once Welcome was sent
	deadline   *time.Timer   // of authentication
	sends      *rate.Limiter // nil before the first
	nth        uint64        // messages so far
	requests   *rate.Limiter // nil before the first
	moves      *rate.Limiter // of watermarks; nil before the first
	syncRate   *rate.Limiter // nil before the first
	has        fanout.Known  // what the device has said that it has since the last Sync
	pages      chan struct{} // nil before the first

	out      outbox
	inflight atomic.Int32
	asked    atomic.Int64 // bytes of the requests in flight, messages apart; only the reader adds
	code     atomic.Int32
	wg       sync.WaitGroup // every goroutine of the session but Serve's own

	mu     sync.Mutex // guards the rest
	over   bool       // closing: no goroutine is started any more
	lanes  map[id.ThreadID]*lane
	laned  int                              // bytes in lanes
	heads  map[id.ThreadID]head             // refused messages that must come again first
	joins  *rate.Limiter                    // of users put into groups; nil before the first
	begun  map[id.ThreadID]id.UserID        // threads that it began and the replica has not seen yet: the peer
	ahead  map[id.ThreadID]thread.Watermark // claimed beyond what this edge has read; follow runs while it is not empty
	logged map[id.ThreadID]logged           // the device's own receipts, as the log has them
	acked  replica.Needs                    // what acks told; nil before the first
	syncs  []*syncing
	synced chan struct{} // closed when a Sync has ended well; nil before the first while nobody waits
	lagged *time.Timer   // runs while Resync is unanswered
	told   replica.Needs // to other users on its behalf, in helio.users; nil before the first
}

var (
	_ fanout.Session = (*Session)(nil)
	_ fanout.Holder  = (*Session)(nil)
)

// open marks a session that was not closed by us.
const open = -1

// Serve runs a session on a connection until it ends, and closes the connection. ctx must end with the connection.
func (srv *Server) Serve(ctx context.Context, conn Conn) {
	s := &Session{srv: srv, conn: conn, asking: newAsking(srv.queries)}
	s.writer = s.job(s.write)
	s.out.flush = func() {
		if s.out.ripe() == start {
			s.startWriter()
		}
	}
	s.code.Store(open)
	srv.mu.Lock()
	srv.open[s] = struct{}{}
	srv.mu.Unlock()
	s.wg.Add(1) // for the goroutine of close, which end sees to in any case
	srv.metrics.sessions.WithLabelValues(stateHello.String()).Inc()
	s.deadline = time.AfterFunc(srv.cfg.HelloTimeout, func() { s.Close(wirev1.Code_CODE_TIMEOUT) })
	err := run.Protect(func() error { return s.read(ctx) })
	s.deadline.Stop()
	s.end(err)
}

// end takes the session down after its reader has returned with err.
func (s *Session) end(err error) {
	var closing *wire.Error
	switch {
	case errors.As(err, &closing):
		s.close(closing.Code, closing.Message)
	case errors.Is(err, errGone):
		s.close(wirev1.Code_CODE_UNSPECIFIED, "")
	default:
		s.panicked(err)
	}
	if s.state == stateAuthenticated {
		s.srv.registry.Leave(s)
		s.srv.fanout.Detach(s)
	}
	s.wg.Wait()
	s.Hold(-len(s.has) * haveWeight)
	s.mu.Lock()
	s.wait(-s.laned) // of lanes that nobody drives any more
	s.Hold(-len(s.logged) * loggedWeight)
	s.mu.Unlock()
	s.srv.mu.Lock()
	delete(s.srv.open, s)
	s.srv.mu.Unlock()
	s.srv.metrics.sessions.WithLabelValues(s.state.String()).Dec()
	code := wire.Lookup(wirev1.Code(s.code.Load()))
	s.srv.metrics.closes.WithLabelValues(code.Name).Inc()
	level := slog.LevelDebug
	if code.Code == wirev1.Code_CODE_INTERNAL {
		level = slog.LevelWarn
	}
	s.srv.log.Log(
		context.Background(), level, "session ended", "user", s.user, "device", s.device, "code", code.Name, "err", err,
	)
}

func (s *Session) read(ctx context.Context) error {
	r := reader{src: s.conn.Control()}
	for {
		limit := wire.MaxFrame // wire 1.5
		if s.state != stateAuthenticated {
			limit = maxEarlyFrame
		}
		raw, err := r.next(limit)
		if err != nil {
			return readError(err)
		}
		f := &wirev1.ClientFrame{}
		err = proto.Unmarshal(raw, f)
		r.release()
		if err != nil {
			return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "the frame cannot be decoded")
		}
		if err := s.handle(ctx, f); err != nil {
			return err
		}
	}
}

// setState is called by the reader.
func (s *Session) setState(to state) {
	s.srv.metrics.sessions.WithLabelValues(s.state.String()).Dec()
	s.srv.metrics.sessions.WithLabelValues(to.String()).Inc()
	s.state = to
}

// spawn runs fn on a goroutine of the session. False: the session is closing.
func (s *Session) spawn(fn func()) bool { return s.launch(s.job(fn)) }

// job is fn as launch takes it.
func (s *Session) job(fn func()) func() {
	return func() {
		defer s.wg.Done()
		if err := run.Protect(func() error { fn(); return nil }); err != nil {
			s.panicked(err)
		}
	}
}

func (s *Session) launch(job func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.wg.Add(1)
	s.srv.workers.run(job)
	return true
}

// panicked ends the session, and it alone, after a broken invariant.
func (s *Session) panicked(err error) {
	s.srv.metrics.panics.Inc()
	var p *run.PanicError
	if errors.As(err, &p) {
		s.srv.log.Error("session panicked", "user", s.user, "device", s.device, "err", p, "stack", string(p.Stack))
	} else {
		s.srv.log.Error("session failed", "user", s.user, "device", s.device, "err", err)
	}
	s.Close(wirev1.Code_CODE_INTERNAL)
}

// User implements fanout.Session.
func (s *Session) User() id.UserID { return s.user }

// Device implements fanout.Session.
func (s *Session) Device() id.DeviceID { return s.device }

// Background implements fanout.Background.
func (s *Session) Background() bool { return s.background }

// Push implements fanout.Session: a frame that other sessions share. Any goroutine; never blocks.
func (s *Session) Push(data []byte) bool { return s.push(data, false) }

// PushSoon implements fanout.Patient: Push of a frame that may wait for company.
func (s *Session) PushSoon(data []byte) bool { return s.push(data, true) }

func (s *Session) push(data []byte, patient bool) bool {
	switch s.out.put(data, true, patient, s.srv.cfg.OutboxFrames, s.srv.cfg.OutboxBytes, &s.srv.load) {
	case start:
		s.startWriter()
	case full, lagging:
		return false
	}
	return true
}

// PushWait implements fanout.Session: Push that waits for room.
func (s *Session) PushWait(ctx context.Context, data []byte) error {
	for {
		switch s.out.put(data, true, false, s.srv.cfg.OutboxFrames, s.srv.cfg.OutboxBytes, &s.srv.load) {
		case start:
			s.startWriter()
			return nil
		case taken:
			return nil
		case ended:
			return errClosed
		case lagging:
			return errLagging
		}
		if err := s.out.wait(ctx, s.srv.cfg.OutboxFrames, s.srv.cfg.OutboxBytes, &s.srv.load); err != nil {
			return err
		}
	}
}

// Hold implements fanout.Holder: bytes that are held back for the device count as if they waited here.
func (s *Session) Hold(n int) { s.srv.load.budget.Add(n) }

// Room implements fanout.Holder.
func (s *Session) Room(most int) int { return s.srv.cfg.Budget.Most(most) }

// PushReceipts implements fanout.Session (wire 6.6): the highest watermark of each member of each thread waits.
func (s *Session) PushReceipts(t id.ThreadID, m []replica.Mark) bool {
	switch s.out.putReceipts(t, m, maxOutboxReceipts, &s.srv.load) {
	case start:
		s.startWriter()
	case full, lagging:
		s.srv.metrics.unsent.WithLabelValues(dropLagged).Add(float64(len(m)))
		return false
	}
	return true
}

// WaitReceipts implements fanout.Session. It leaves half of the room to what is live.
func (s *Session) WaitReceipts(ctx context.Context) error {
	return s.out.waitReceipts(ctx, max(1, maxOutboxReceipts/2))
}

// Lagged implements fanout.Session: pushes were dropped, so those that wait are dropped too and the device is told to
// sync again (wire 8.1).
func (s *Session) Lagged() {
	dropped, first, v := s.out.lag(s.srv.resync, &s.srv.load)
	s.srv.metrics.dropped.WithLabelValues(dropLagged).Add(float64(dropped))
	if v == start {
		s.startWriter()
	}
	if !first {
		return
	}
	s.srv.metrics.resyncs.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.lagged == nil {
		s.lagged = time.AfterFunc(resyncTimeout, func() { s.Close(wirev1.Code_CODE_SLOW_CONSUMER) })
	}
}

// Close implements fanout.Session: it ends the connection with a code. Any goroutine; never blocks.
func (s *Session) Close(code wirev1.Code) { s.close(code, "") }

func (s *Session) close(code wirev1.Code, reason string) {
	if !s.code.CompareAndSwap(open, int32(code)) {
		return
	}
	s.mu.Lock()
	s.over = true
	if s.lagged != nil {
		s.lagged.Stop()
	}
	for _, y := range s.syncs {
		y.cancel()
	}
	s.mu.Unlock()
	frames, receipts := s.out.close(&s.srv.load)
	s.srv.metrics.dropped.WithLabelValues(dropClosed).Add(float64(frames))
	s.srv.metrics.unsent.WithLabelValues(dropClosed).Add(float64(receipts))
	go func() {
		defer s.wg.Done()
		s.conn.Close(code, reason)
	}()
}

// GoAway tells the device to connect again after a while (wire 9.1). Any goroutine; never blocks.
func (s *Session) GoAway(after time.Duration) {
	s.answer(wirev1.ServerFrame_builder{
		GoAway: wirev1.GoAway_builder{ReconnectAfterMs: uint32(after.Milliseconds())}.Build(),
	})
}

func encode(b wirev1.ServerFrame_builder) []byte {
	data, err := frame.Append(nil, b.Build())
	if err != nil {
		panic(fmt.Sprintf("session: %v", err)) // text in answers is checked where it comes in
	}
	return data
}

// answer hands over a frame that must not be dropped: where it does not fit, the session ends. Any goroutine; never
// blocks.
func (s *Session) answer(b wirev1.ServerFrame_builder) { s.handed(s.hand(b)) }

// hand puts an answer into the outbox, so that those who hold mu can fix its place; handed does the rest without.
func (s *Session) hand(b wirev1.ServerFrame_builder) verdict {
	data, err := frame.Append(nil, b.Build())
	if err != nil {
		s.srv.log.Error("answer cannot be encoded", "user", s.user, "device", s.device, "err", err)
		return broken
	}
	return s.out.put(data, false, false, s.srv.cfg.OutboxFrames, s.srv.cfg.OutboxBytes, &s.srv.load)
}

func (s *Session) handed(v verdict) {
	switch v {
	case start:
		s.startWriter()
	case full:
		s.Close(wirev1.Code_CODE_SLOW_CONSUMER)
	case broken:
		s.Close(wirev1.Code_CODE_INTERNAL)
	}
}

// startWriter runs the writer until the outbox is empty.
func (s *Session) startWriter() { s.launch(s.writer) }

// write is the one goroutine that writes to the control stream. It gathers what waits into few writes and returns when
// nothing does.
func (s *Session) write() {
	pooled := writeBuffers.Get().(*[]byte)
	buf := *pooled
	for {
		buf = s.out.take(buf[:0], &s.srv.load)
		if len(buf) == 0 {
			break
		}
		if err := s.writeAll(buf); err != nil {
			break
		}
	}
	if cap(buf) <= 4*writeChunk && buf != nil {
		*pooled = buf[:0]
		writeBuffers.Put(pooled)
	}
}

// writeAll writes, and closes the connection when the device takes nothing for WriteTimeout.
func (s *Session) writeAll(data []byte) error {
	str := s.conn.Control()
	for {
		if err := str.SetWriteDeadline(time.Now().Add(s.srv.cfg.WriteTimeout)); err != nil {
			s.Close(wirev1.Code_CODE_UNSPECIFIED)
			return err
		}
		n, err := str.Write(data)
		if err == nil {
			return nil
		}
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			s.Close(wirev1.Code_CODE_UNSPECIFIED)
			return err
		}
		if n == 0 {
			s.Close(wirev1.Code_CODE_SLOW_CONSUMER)
			return err
		}
		data = data[n:] // slow, but alive
	}
}
