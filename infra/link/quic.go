package link

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/budget"
	"heliograph/schemas/frame"
)

const (
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 10 * time.Second // a peer that is gone is noticed after so long
	keepAlive        = 3 * time.Second
	sign             = time.Second // how often an edge with nothing to say gives a sign of life: see resetKey
	writeBatch       = 256         // frames that may share a write
	writeBytes       = 256 << 10
	receiveQueue     = 64 // decoded frames that wait for Recv; QUIC's flow control holds back the rest

	appClosed    quic.ApplicationErrorCode = 0
	appMalformed quic.ApplicationErrorCode = 1
)

func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     1 << 20,
		MaxStreamReceiveWindow:         8 << 20,
		InitialConnectionReceiveWindow: 1 << 20,
		MaxConnectionReceiveWindow:     8 << 20,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          -1,
		// What every path carries (RFC 9000 section 14), so that a link is there at once; it then looks for more.
		InitialPacketSize: 1200,
	}
}

// quicLink is one QUIC connection with one bidirectional stream, which the edge opens. Two goroutines: reader and
// writer; both end when the link closes.
type quicLink struct {
	conn   *quic.Conn
	stream *quic.Stream
	ends   *ends
	once   sync.Once
}

// startQUIC joins the ends' queues to the stream: encode writes out of one, decode reads into the other.
// idle is what is written when there has been nothing else for a while; nil: nothing.
func startQUIC[In, Out proto.Message](
	conn *quic.Conn, stream *quic.Stream, e *ends, out *queue[Out], in *queue[In], decode func([]byte) (In, error),
	idle []byte,
) {
	l := &quicLink{conn: conn, stream: stream, ends: e}
	e.peer = peerName(conn)
	e.close = l.close
	go func() { l.close(readFrames(stream, in, decode)) }()
	go func() { l.close(writeFrames(stream, out, idle)) }()
	context.AfterFunc(conn.Context(), func() { l.close(context.Cause(conn.Context())) })
}

func (l *quicLink) close(err error) {
	l.once.Do(func() {
		code := appClosed
		if errors.Is(err, ErrMalformed) || errors.Is(err, frame.ErrTooLarge) {
			code = appMalformed
		}
		if !errors.Is(err, ErrClosed) {
			if err == nil {
				err = io.EOF
			}
			err = fmt.Errorf("%w: %w", ErrClosed, err)
		}
		l.ends.closeQueues(err)
		_ = l.conn.CloseWithError(code, "") // it is closed either way
	})
}

func readFrames[In any](stream *quic.Stream, in *queue[In], decode func([]byte) (In, error)) error {
	r := bufio.NewReaderSize(stream, 64<<10)
	var buf []byte
	for {
		b, err := frame.Read(r, buf, MaxFrame)
		if err != nil {
			return err
		}
		if cap(b) <= writeBytes { // a rare large frame does not pin its buffer
			buf = b[:0]
		}
		m, err := decode(b)
		if err != nil {
			return err
		}
		if err := in.putWait(stream.Context(), m, 1); err != nil {
			return err
		}
	}
}

func writeFrames[Out proto.Message](stream *quic.Stream, out *queue[Out], idle []byte) error {
	var batch []Out
	var buf []byte
	begun := false
	for {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if idle != nil && begun { // the first frame is the other's to expect: Hello
			ctx, cancel = context.WithTimeout(ctx, sign)
		}
		var err error
		batch, err = out.take(ctx, batch[:0], writeBatch) // ends when the queue is closed
		cancel()
		if idle != nil && errors.Is(err, context.DeadlineExceeded) {
			if _, err := stream.Write(idle); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		begun = true
		buf = buf[:0]
		for i, m := range batch {
			if buf, err = frame.Append(buf, m); err != nil {
				return err
			}
			if len(buf) >= writeBytes || i == len(batch)-1 {
				if _, err := stream.Write(buf); err != nil {
					return err
				}
				buf = buf[:0]
			}
		}
		clear(batch)
		if cap(buf) > 4*writeBytes {
			buf = nil
		}
	}
}

// signOfLife is a frame of an unknown kind, which the other end skips. It is long because QUIC resets no connection in
// answer to a packet that is as short as its own keep-alive.
func signOfLife() []byte {
	body := protowire.AppendBytes(
		protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.BytesType), make([]byte, 64),
	)
	return append(frame.AppendLength(nil, len(body)), body...)
}

func peerName(conn *quic.Conn) string {
	name := "?"
	if certs := conn.ConnectionState().TLS.PeerCertificates; len(certs) > 0 {
		name = certs[0].Subject.CommonName
	}
	return name + "@" + conn.RemoteAddr().String()
}

// Dial opens a link over QUIC to the instance that listens at addr. conf is what TLS.Load or Authority.Config returned.
func Dial(ctx context.Context, addr string, conf *tls.Config) (EdgeEnd, error) {
	return dial(ctx, addr, conf, nil)
}

func dial(ctx context.Context, addr string, conf *tls.Config, memory *budget.Budget) (EdgeEnd, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := quic.DialAddr(ctx, addr, conf, quicConfig())
	if err != nil {
		return nil, fmt.Errorf("link: dial %s: %w", addr, err)
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		_ = conn.CloseWithError(appClosed, "") // given up
		return nil, fmt.Errorf("link: dial %s: %w", addr, err)
	}
	e := newEnds(0, 0)
	e.toEdge.max, e.toEdge.budget = receiveQueue, memory
	startQUIC(conn, stream, e, e.toDelivery, e.toEdge, decodeToEdge, signOfLife())
	return edgeEnd{e}, nil
}

// QUICDialer dials an Instance's Addr.
type QUICDialer struct {
	TLS *tls.Config
	// Budget is the memory that what was received and not yet taken counts against; nil: no limit but each link's own.
	Budget *budget.Budget
}

// Dial opens a link over QUIC.
func (d QUICDialer) Dial(ctx context.Context, to Instance) (EdgeEnd, error) {
	return dial(ctx, to.Addr, d.TLS, d.Budget)
}

// maxLinks is how many links a Listener has at one time.
const maxLinks = 1024

// Listener takes links over QUIC.
type Listener struct {
	// Budget is the memory that what waits for edges counts against; nil: no limit but each link's own. It is set
	// before Serve.
	Budget *budget.Budget

	udp   net.PacketConn
	tr    *quic.Transport
	ln    *quic.Listener
	queue int // frames per link, for tests; 0 is DefaultQueue
}

// Listen binds addr. Links are taken once Serve runs; without it, Close frees the port.
func Listen(addr string, conf *tls.Config) (*Listener, error) {
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("link: listen: %w", err)
	}
	tr := &quic.Transport{Conn: udp, StatelessResetKey: resetKey(conf)}
	ln, err := tr.Listen(conf, quicConfig())
	if err != nil {
		return nil, fmt.Errorf("link: listen on %s: %w", addr, errors.Join(err, udp.Close()))
	}
	return &Listener{udp: udp, tr: tr, ln: ln}, nil
}

// resetKey makes the key by which an instance that was killed and is back tells its peers that their links are gone;
// else they would wait out the idle timeout while their slots stand still. They learn of it by their next frame, so
// edges send one every second. It comes from the certificate's private key, so it is the same after a restart and
// nobody else's.
func resetKey(conf *tls.Config) *quic.StatelessResetKey {
	if conf.GetCertificate == nil {
		return nil
	}
	cert, err := conf.GetCertificate(&tls.ClientHelloInfo{ServerName: conf.ServerName})
	if err != nil {
		return nil // no handshake will succeed either
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil // a key that its holder does not give away: peers notice by the idle timeout
	}
	mac := hmac.New(sha256.New, private)
	mac.Write([]byte("helio-link/1 stateless reset"))
	return (*quic.StatelessResetKey)(mac.Sum(nil))
}

// Addr returns the bound address.
func (l *Listener) Addr() net.Addr { return l.udp.LocalAddr() }

// Close frees the port and closes all links. Serve does it by itself.
func (l *Listener) Close() error {
	return errors.Join(l.ln.Close(), l.tr.Close(), l.udp.Close())
}

// Serve gives each link to handle, on a goroutine of its own, until ctx is cancelled; then it closes the listener and
// the links and waits for the handlers. It may be called once.
func (l *Listener) Serve(ctx context.Context, handle Handler) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	room := make(chan struct{}, maxLinks)
	for {
		conn, err := l.ln.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("link: accept: %w", err)
		}
		select {
		case room <- struct{}{}:
		default:
			_ = conn.CloseWithError(appClosed, "too many links") // the edge dials again
			continue
		}
		wg.Go(func() {
			defer func() { <-room }()
			end, err := l.open(ctx, conn)
			if err != nil {
				return
			}
			defer end.Close()
			_ = handle(ctx, end) // the handler logs and counts what ended it
		})
	}
}

// open waits for the edge's stream, which shows itself with the first frame.
func (l *Listener) open(ctx context.Context, conn *quic.Conn) (DeliveryEnd, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		_ = conn.CloseWithError(appClosed, "no stream") // nothing was begun
		return nil, err
	}
	e := newEnds(l.queue, 0)
	e.toEdge.budget = l.Budget
	e.toDelivery.max = receiveQueue
	startQUIC(conn, stream, e, e.toEdge, e.toDelivery, decodeToDelivery, nil)
	return deliveryEnd{e}, nil
}
