package client

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// peer is the other end of one connection of a fakeEdge.
type peer struct {
	t      testing.TB
	n      int // 0 for the first connection
	quic   *quic.Conn
	stream *quic.Stream
	mu     sync.Mutex // guards writing to stream
}

func (p *peer) write(f *wirev1.ServerFrame) {
	b, err := frame.Append(nil, f)
	if err != nil {
		p.t.Error(err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.stream.Write(b) // the client may be gone
}

// fakeEdge is an edge that answers as the test says. What handle does not answer is answered as an edge would when all
// is well.
func fakeEdge(t testing.TB, handle func(*peer, *wirev1.ClientFrame) bool) Config {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"edge"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, pub, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	tr := &quic.Transport{Conn: socket}
	l, err := tr.Listen(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{wire.Protocol},
		MinVersion:   tls.VersionTLS13,
	}, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			q, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { serve(ctx, &peer{t: t, n: n, quic: q}, handle) })
		}
	})
	t.Cleanup(func() { cancel(); must(t, l.Close()); wg.Wait(); must(t, tr.Close(), socket.Close()) })
	return Config{
		Addrs:       []string{l.Addr().String()},
		TLS:         &tls.Config{RootCAs: roots, ServerName: "edge", MinVersion: tls.VersionTLS13},
		MinBackoff:  time.Millisecond,
		MaxBackoff:  5 * time.Millisecond,
		AckInterval: time.Millisecond,
	}
}

func serve(ctx context.Context, p *peer, handle func(*peer, *wirev1.ClientFrame) bool) {
	defer func() { _ = p.quic.CloseWithError(0, "") }()
	s, err := p.quic.AcceptStream(ctx)
	if err != nil {
		return
	}
	p.stream = s
	stop := context.AfterFunc(ctx, func() { s.CancelRead(0) })
	defer stop()
	r := bufio.NewReader(s)
	for {
		b, err := frame.Read(r, nil, wire.MaxFrame)
		if err != nil {
			return
		}
		var f wirev1.ClientFrame
		if err := proto.Unmarshal(b, &f); err != nil {
			p.t.Error(err)
			return
		}
		if handle(p, &f) {
			continue
		}
		answer := wirev1.ServerFrame_builder{RequestId: f.GetRequestId()}
		switch f.WhichBody() {
		case wirev1.ClientFrame_Hello_case:
			answer.Welcome = wirev1.Welcome_builder{Nonce: make([]byte, wire.NonceSize)}.Build()
		case wirev1.ClientFrame_Authenticate_case:
			answer.Authenticated = &wirev1.Authenticated{}
		case wirev1.ClientFrame_Sync_case:
			answer.SyncComplete = &wirev1.SyncComplete{}
		case wirev1.ClientFrame_SendMessage_case:
			m := f.GetSendMessage()
			answer.Ack = wirev1.Ack_builder{MessageId: m.GetMessageId(), ThreadId: m.GetThreadId(), Position: 5}.Build()
		default:
			continue
		}
		p.write(answer.Build())
	}
}

// start runs a client and returns the channel of Run's error; the test's end stops it.
func start(t *testing.T, cfg Config) (*Client, <-chan error) {
	t.Helper()
	c, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() { defer close(ended); done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return c, done
}

func registered(t *testing.T) *MemoryStore {
	t.Helper()
	s := NewMemoryStore()
	must(t, s.SetIdentity(identity(t)))
	return s
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func eventFrame(
	t *testing.T, th id.ThreadID, at topic.Position, me Identity, m id.MessageID, text string,
) *wirev1.ServerFrame {
	t.Helper()
	data, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	must(t, err)
	raw, err := proto.Marshal(eventv1.Event_builder{
		UserId: me.User[:], DeviceId: me.Device[:],
		MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:],
			Content:   eventv1.Sealed_builder{Data: data}.Build(),
		}.Build(),
	}.Build())
	must(t, err)
	return wirev1.ServerFrame_builder{
		Event: wirev1.Event_builder{ThreadId: th[:], Position: int64(at), Ordinal: int64(at), Event: raw}.Build(),
	}.Build()
}

// A device that the server calls revoked stops, although only the answer to its proof says so.
func TestRevokedDeviceStops(t *testing.T) {
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() == wirev1.ClientFrame_Authenticate_case {
			p.write(wirev1.ServerFrame_builder{
				RequestId: f.GetRequestId(),
				Error:     wirev1.Error_builder{Code: wirev1.Code_CODE_DEVICE_REVOKED}.Build(),
			}.Build())
			return true
		}
		return false
	})
	cfg.Store = registered(t)
	_, done := start(t, cfg)
	select {
	case err := <-done:
		if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_DEVICE_REVOKED}) {
			t.Fatalf("Run returned %v", err)
		}
	case <-within(t).Done():
		t.Fatal("the device goes on connecting")
	}
}

// Unanswered messages are sent again after a reconnect, in order and under the same ids, but one that came back in the
// synchronisation is not.
func TestSendsAgainAfterLoss(t *testing.T) {
	th, ids := id.NewGroup(), []id.MessageID{id.NewMessage(), id.NewMessage(), id.NewMessage()}
	store := registered(t)
	me := load(t, store).Identity
	again := make(chan id.MessageID, 10)
	got := 0 // of the first connection's serving goroutine
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_SendMessage_case:
			if p.n == 0 {
				if got++; got == len(ids) {
					_ = p.quic.CloseWithError(quic.ApplicationErrorCode(wirev1.Code_CODE_SLOW_CONSUMER), "")
				}
				return true
			}
			again <- id.MessageID(f.GetSendMessage().GetMessageId())
		case wirev1.ClientFrame_Sync_case:
			if p.n > 0 {
				p.write(eventFrame(t, th, 3, me, ids[1], "b"))
			}
		default:
		}
		return false
	})
	cfg.Store = store
	c, _ := start(t, cfg)
	for _, m := range ids {
		must(t, c.SendRaw(Outgoing{Thread: th, ID: m, Data: []byte{}}))
	}
	settled := map[id.MessageID]int{}
	for e := range c.Events(within(t)) {
		if s, ok := e.(Sent); ok {
			settled[s.ID]++
		}
		if len(settled) == len(ids) {
			break
		}
	}
	for _, m := range ids {
		if settled[m] != 1 {
			t.Fatalf("message settled %d times", settled[m])
		}
	}
	if a, b := <-again, <-again; a != ids[0] || b != ids[2] || len(again) > 0 {
		t.Fatalf("sent again: %v, %v and %d more", a, b, len(again))
	}
	if c.Outbox() != 0 {
		t.Fatalf("%d left in the outbox", c.Outbox())
	}
}

// The server repeats an event because its watermark went down with a connection: it is yielded once, and the watermark
// is sent again.
func TestRepeatsWatermarkThatWasLost(t *testing.T) {
	th, store := id.NewGroup(), registered(t)
	other := identity(t)
	watermarks := make(chan *wirev1.Watermark, 10)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Sync_case:
			p.write(eventFrame(t, th, 4, other, id.MessageID(th), "hello"))
		case wirev1.ClientFrame_Watermarks_case:
			if p.n == 0 {
				_ = p.quic.CloseWithError(quic.ApplicationErrorCode(wirev1.Code_CODE_SLOW_CONSUMER), "")
				return true
			}
			for _, w := range f.GetWatermarks().GetItems() {
				watermarks <- w
			}
		default:
		}
		return false
	})
	cfg.Store = store
	c, _ := start(t, cfg)
	messages := make(chan Message, 10)
	ctx := within(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		for e := range c.Events(ctx) {
			if m, ok := e.(Message); ok {
				messages <- m
			}
		}
	})
	select {
	case w := <-watermarks:
		if w.GetDeliveredPosition() != 4 {
			t.Fatalf("watermark %v", w)
		}
	case <-ctx.Done():
		t.Fatal("the watermark was not sent again")
	}
	if m := <-messages; m.Text != "hello" || len(messages) != 0 {
		t.Fatalf("got %q and %d more", m.Text, len(messages))
	}
	if w := c.Watermark(th); w != (thread.Watermark{DeliveredPosition: 4, DeliveredOrdinal: 4}) {
		t.Fatalf("own watermark %v", w)
	}
}

// An event whose loop body breaks is yielded again by the next loop.
func TestEventsAfterBreak(t *testing.T) {
	th, other := id.NewGroup(), identity(t)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() == wirev1.ClientFrame_Sync_case {
			p.write(eventFrame(t, th, 4, other, id.MessageID(th), "hello"))
		}
		return false
	})
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	for range 2 {
		found := false
		for e := range c.Events(within(t)) {
			if _, found = e.(Message); found {
				break
			}
		}
		if !found {
			t.Fatal("no message")
		}
		if w := c.Watermark(th); w != (thread.Watermark{}) {
			t.Fatalf("moved to %v although the loop did not take the event", w)
		}
	}
}
