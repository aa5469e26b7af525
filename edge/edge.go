package edge

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"heliograph/edge/session"
	"heliograph/infra/run"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Bounds of what a client can make the edge hold, in bytes. A frame may be longer than a window: it is read as it
// comes.
const (
	streamWindow    = 64 << 10
	maxStreamWindow = 256 << 10
	connWindow      = 96 << 10
	maxConnWindow   = 384 << 10
)

// streamTimeout is how long a client may take to open its control stream (wire 1.3).
const streamTimeout = 10 * time.Second

// Log is the producer of events (package ingest): sessions append to it, Drain flushes it.
type Log interface {
	session.Log
	Flush(ctx context.Context) error
}

// Edge accepts devices.
type Edge struct {
	// Fixed after New.
	cfg      Config
	log      *slog.Logger
	ingest   Log
	sessions *session.Server
	registry *registry
	early    *early
	others   *strangers
	metrics  *metrics

	// Fixed after Listen.
	socket    *net.UDPConn
	transport *quic.Transport
	listener  *quic.Listener

	open     atomic.Int64 // connections
	draining atomic.Bool
	wg       sync.WaitGroup // connections
}

// New returns an Edge; it does nothing before Listen and Run.
func New(
	cfg Config, f session.Fanout, r session.Replica, a session.Auth, q session.Queries, l Log, log *slog.Logger,
	reg prometheus.Registerer,
) (*Edge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	e := &Edge{cfg: cfg, log: log, ingest: l, registry: &registry{sessions: map[owner]*session.Session{}}}
	e.early = &early{limit: cfg.maxEarlyPerAddress, counts: map[netip.Prefix]int{}}
	e.others = &strangers{limit: int64(cfg.maxEarly)}
	e.metrics = newMetrics(reg, e)
	var err error
	e.sessions, err = session.New(cfg.Session, f, r, a, q, l, e.registry, log, reg)
	return e, err
}

// Listen binds the address and reads the certificate. Run does it when it was not done before.
func (e *Edge) Listen() error {
	if e.listener != nil {
		return nil
	}
	certs, err := newCertificates(e.cfg, e.log)
	if err != nil {
		return err
	}
	key, err := hex.DecodeString(e.cfg.Secret.Reveal())
	if err != nil {
		return fmt.Errorf("edge: secret: %w", err)
	}
	addr, err := net.ResolveUDPAddr("udp", e.cfg.Listen)
	if err != nil {
		return fmt.Errorf("edge: resolve %s: %w", e.cfg.Listen, err)
	}
	e.socket, err = net.ListenUDP("udp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("edge: UDP address %s is in use: stop what uses it, or choose another with %s",
			e.cfg.Listen, listenFlag)
	case err != nil:
		return fmt.Errorf("edge: listen on %s (%s): %w", e.cfg.Listen, listenFlag, err)
	}
	reset := quic.StatelessResetKey(derive(key, "stateless reset"))
	token := quic.TokenGeneratorKey(derive(key, "address token"))
	verify := rate.NewLimiter(rate.Limit(retryRate), retryRate)
	handshakes := rate.NewLimiter(rate.Limit(handshakeRate), handshakeRate)
	e.transport = &quic.Transport{
		Conn: e.socket, ConnectionIDLength: 8, StatelessResetKey: &reset, TokenGeneratorKey: &token,
		VerifySourceAddress: func(net.Addr) bool {
			if verify.Allow() && !e.others.crowded() {
				return false
			}
			e.metrics.retries.Inc()
			return true
		},
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if !handshakes.Allow() {
				e.metrics.refused.WithLabelValues(refuseRate).Inc()
				return nil, errors.New("too many handshakes")
			}
			if ctx = e.others.enter(ctx); ctx == nil {
				e.metrics.refused.WithLabelValues(refuseStrangers).Inc()
				return nil, errors.New("too many connections that are not authenticated")
			}
			return ctx, nil
		},
	}
	tlsConf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{wire.Protocol}, GetCertificate: certs.get}
	tlsConf.SetSessionTicketKeys([][32]byte{derive(key, "tls ticket")})
	e.listener, err = e.transport.Listen(tlsConf, &quic.Config{
		MaxIdleTimeout: e.cfg.idleTimeout, HandshakeIdleTimeout: e.cfg.handshakeTimeout,
		InitialStreamReceiveWindow: streamWindow, MaxStreamReceiveWindow: maxStreamWindow,
		InitialConnectionReceiveWindow: connWindow, MaxConnectionReceiveWindow: maxConnWindow,
		MaxIncomingStreams:    1, // the control stream (wire 1.3)
		MaxIncomingUniStreams: -1,
		EnableDatagrams:       false, // who sends one all the same is closed (RFC 9221, section 3)
		InitialPacketSize:     wire.PacketSize, DisablePathMTUDiscovery: true,
	})
	if err != nil {
		e.socket.Close()
		return fmt.Errorf("edge: listen: %w", err)
	}
	return nil
}

// Addr is where the edge listens; nil before Listen.
func (e *Edge) Addr() net.Addr {
	if e.socket == nil {
		return nil
	}
	return e.socket.LocalAddr()
}

// Sessions is the number of authenticated sessions.
func (e *Edge) Sessions() int { return e.registry.count() }

// Waiting is the number of frames in all outboxes.
func (e *Edge) Waiting() int64 { return e.sessions.Waiting() }

// WaitingReceipts is the number of members' watermarks in all outboxes.
func (e *Edge) WaitingReceipts() int64 { return e.sessions.WaitingReceipts() }

// OldestWaiting is how long the oldest of what waits in any outbox has waited.
func (e *Edge) OldestWaiting() time.Duration { return e.sessions.OldestWaiting() }

// Ready tells whether devices may come: for readiness checks.
func (e *Edge) Ready(context.Context) error {
	if e.draining.Load() {
		return errors.New("draining")
	}
	return nil
}

// Run accepts devices until ctx ends, closes what is left and returns nil. It must be called once.
func (e *Edge) Run(ctx context.Context) error {
	if err := e.Listen(); err != nil {
		return err
	}
	e.log.Info("quic listener listening", "address", e.Addr().String())
	defer e.socket.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			conn, err := e.listener.Accept(ctx)
			switch {
			case ctx.Err() != nil:
				return nil //nolint:nilerr // stopping; a connection that came with it ends with the transport
			case err != nil:
				return fmt.Errorf("edge: accept: %w", err)
			}
			// Nothing else here: the queue of finished handshakes is short (see the package comment of quic-go's
			// Listener).
			e.wg.Add(1)
			go e.handle(conn)
		}
	})
	err := g.Wait()
	e.draining.Store(true)
	_ = e.listener.Close() // stops handshakes; it has no other failure than being closed
	for _, s := range e.registry.all() {
		s.Close(wirev1.Code_CODE_DRAINING)
	}
	// What is not authenticated, and what does not hear us, ends with the transport.
	quiet := make(chan struct{})
	go func() { e.wg.Wait(); close(quiet) }()
	select {
	case <-quiet:
	case <-time.After(time.Second):
	}
	_ = e.transport.Close()
	<-quiet
	return err
}

// handle owns one connection. Its frame, and those below it, stay on the stack of every idle connection, so they are
// kept small: what is needed at the beginning alone is in functions that have returned. With less than 1.2 KiB in use
// the stack shrinks to 4 KiB.
func (e *Edge) handle(conn *quic.Conn) {
	if c := e.admit(conn); c != nil {
		e.sessions.Serve(conn.Context(), c)
		c.Authenticated()
	}
	e.open.Add(-1)
	e.wg.Done()
}

// admit lets a connection in, or refuses it and returns nil.
func (e *Edge) admit(conn *quic.Conn) *quicConn {
	e.metrics.accepted.Inc()
	if e.open.Add(1) > int64(e.cfg.MaxConnections) {
		return e.refuse(conn, refuseFull, wirev1.Code_CODE_DRAINING) // retriable, and on another edge if there is one
	}
	if e.draining.Load() {
		return e.refuse(conn, refuseDraining, wirev1.Code_CODE_DRAINING)
	}
	c := &quicConn{conn: conn, early: e.early, from: place(remote(conn))}
	if !e.early.enter(c.from) {
		return e.refuse(conn, refuseAddress, wirev1.Code_CODE_RATE_LIMITED)
	}
	var err error
	if c.control, err = accept(conn); err != nil {
		c.Authenticated()
		return e.refuse(conn, refuseStream, wirev1.Code_CODE_TIMEOUT)
	}
	switch conn.ConnectionState().TLS.NegotiatedProtocol { // wire 1.1
	case wire.Protocol:
		return c
	default: // the handshake lets nothing else through
		c.Authenticated()
		return e.refuse(conn, refuseStream, wirev1.Code_CODE_VERSION)
	}
}

// refuse closes a connection with a code (wire 13.2).
func (e *Edge) refuse(conn *quic.Conn, reason string, code wirev1.Code) *quicConn {
	e.metrics.refused.WithLabelValues(reason).Inc()
	_ = conn.CloseWithError(quic.ApplicationErrorCode(code), reason) // it only fails when the connection is gone
	return nil
}

func accept(conn *quic.Conn) (*quic.Stream, error) {
	ctx, cancel := context.WithTimeout(conn.Context(), streamTimeout)
	defer cancel()
	return conn.AcceptStream(ctx)
}

// Drain tells every device to connect elsewhere, spread over drainWindow or what ctx leaves of it, flushes the log's
// producers and closes what is still there. New connections are refused from its beginning. Run goes on until its own
// context ends.
func (e *Edge) Drain(ctx context.Context) error {
	e.draining.Store(true)
	e.metrics.draining.Set(1)
	window := e.cfg.drainWindow
	if end, ok := ctx.Deadline(); ok {
		window = min(window, time.Until(end)/2)
	}
	sessions := e.registry.all()
	e.log.Info("draining", "sessions", len(sessions), "window", window)
	begun := time.Now()
	for k, s := range sessions {
		at := window * time.Duration(k) / time.Duration(len(sessions))
		if err := pause(ctx, at-time.Since(begun)); err != nil {
			break
		}
		s.GoAway(jitter())
	}
	// Those told last need a moment to go by themselves.
	for end := time.Now().Add(min(time.Second, window)); e.registry.count() > 0 && time.Now().Before(end); {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			break
		}
	}
	err := e.ingest.Flush(ctx)
	// The acks that the flush brought are on their way out. Who misses his sends again and gets the same place.
	for end := time.Now().Add(250 * time.Millisecond); e.sessions.Waiting() > 0 && time.Now().Before(end); {
		if pause(ctx, 5*time.Millisecond) != nil {
			break
		}
	}
	for _, s := range e.registry.all() {
		s.Close(wirev1.Code_CODE_DRAINING)
	}
	if err != nil {
		return fmt.Errorf("edge: drain: %w", err)
	}
	return nil
}

// jitter keeps devices that were told to go from coming back in one wave.
func jitter() time.Duration {
	b := run.Backoff{Min: 500 * time.Millisecond, Max: 500 * time.Millisecond}
	return b.Next()
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
