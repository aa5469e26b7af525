package edge

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/embedded/certtest"
	"heliograph/infra/run"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; nothing is timed.
const patience = 20 * time.Second

type fixture struct {
	*Edge
	world *world
	tls   *tls.Config
	stop  func()
}

func start(t testing.TB, mend func(*Config)) *fixture {
	t.Helper()
	cfg := Config{Listen: "127.0.0.1:0", drainWindow: 100 * time.Millisecond}
	authority := identify(t, &cfg)
	cfg.Session.Partitions = partitions
	if mend != nil {
		mend(&cfg)
	}
	w := newWorld()
	e, err := New(cfg, readSide{w}, readSide{w}, gate{w}, reads{w}, w, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, e, w, authority)
}

// identify gives an edge a certificate and a secret, and returns the file of the authority that signed it.
func identify(t testing.TB, cfg *Config) (authority string) {
	t.Helper()
	a := certtest.New(t, "the edges' authority")
	pair := a.Server(t, "127.0.0.1", "fd00:2::2") // the latter in TestTunnel
	cfg.CertFile, cfg.KeyFile, cfg.Secret = pair.CertFile, pair.KeyFile, run.Secret(strings.Repeat("5a", 32))
	return a.File
}

// serve runs an edge until the test ends.
func serve(t testing.TB, e *Edge, w *world, cert string) *fixture {
	t.Helper()
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	f := &fixture{
		Edge:  e,
		world: w,
		tls: &tls.Config{
			RootCAs:    roots,
			ServerName: "127.0.0.1",
			NextProtos: []string{wire.Protocol},
			MinVersion: tls.VersionTLS13,
		},
	}
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// device is a client that keeps to nothing but what a test makes it do.
type device struct {
	t    testing.TB
	conn *quic.Conn
	str  *quic.Stream
	in   *bufio.Reader
	req  uint64

	features []string // that it says it knows

	nonce []byte
	id    id.DeviceID
	user  id.UserID
	key   ed25519.PrivateKey

	pushes []*wirev1.ServerFrame
}

func (f *fixture) dial(t testing.TB) *device {
	return f.dialWith(t, &quic.Config{MaxIncomingUniStreams: 8})
}

func (f *fixture) dialWith(t testing.TB, conf *quic.Config) *device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, f.Addr().String(), f.tls, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	str, err := conn.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &device{t: t, conn: conn, str: str, in: bufio.NewReader(str)}
}

// turnedAway connects where the edge lets nobody in, which may be told before a stream is there.
func (f *fixture) turnedAway(t testing.TB, want wirev1.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, f.Addr().String(), f.tls, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	(&device{t: t, conn: conn}).closed(want)
}

func (d *device) raw(b []byte) {
	d.t.Helper()
	if _, err := d.str.Write(b); err != nil {
		d.t.Fatal(err)
	}
}

// send writes a request and returns its id.
func (d *device) send(b wirev1.ClientFrame_builder) uint64 {
	d.t.Helper()
	d.req++
	b.RequestId = d.req
	data, err := frame.Append(nil, b.Build())
	if err != nil {
		d.t.Fatal(err)
	}
	d.raw(data)
	return d.req
}

// tell writes a frame that wants no answer.
func (d *device) tell(b wirev1.ClientFrame_builder) {
	d.t.Helper()
	data, err := frame.Append(nil, b.Build())
	if err != nil {
		d.t.Fatal(err)
	}
	d.raw(data)
}

func (d *device) read() (*wirev1.ServerFrame, error) {
	if err := d.str.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	raw, err := frame.Read(d.in, nil, wire.MaxServerFrame)
	if err != nil {
		return nil, err
	}
	f := &wirev1.ServerFrame{}
	if err := proto.Unmarshal(raw, f); err != nil {
		return nil, err
	}
	saysWhen(d.t, f)
	return f, nil
}

// saysWhen checks that a refusal says when to come again just when one may.
func saysWhen(t testing.TB, f *wirev1.ServerFrame) {
	t.Helper()
	if e := f.GetError(); e != nil && wire.Lookup(e.GetCode()).Retriable != (e.GetRetryAfterMs() > 0) {
		t.Errorf("refused with %v, to come again after %d ms", e.GetCode(), e.GetRetryAfterMs())
	}
}

// answer reads until the answer of a request; pushes are kept.
func (d *device) answer(req uint64) *wirev1.ServerFrame {
	d.t.Helper()
	for {
		f, err := d.read()
		if err != nil {
			d.t.Fatalf("no answer to %d: %v", req, err)
		}
		if f.GetRequestId() == req {
			return f
		}
		if f.GetRequestId() != 0 {
			d.t.Fatalf("answer to %d, want %d", f.GetRequestId(), req)
		}
		d.pushes = append(d.pushes, f)
	}
}

func (d *device) ask(b wirev1.ClientFrame_builder) *wirev1.ServerFrame {
	d.t.Helper()
	return d.answer(d.send(b))
}

// push reads until a push of a kind.
func (d *device) push(want string, is func(*wirev1.ServerFrame) bool) *wirev1.ServerFrame {
	d.t.Helper()
	for _, f := range d.pushes {
		if is(f) {
			return f
		}
	}
	for {
		f, err := d.read()
		if err != nil {
			d.t.Fatalf("no %s: %v", want, err)
		}
		if f.GetRequestId() == 0 && is(f) {
			return f
		}
	}
}

// refused checks that an answer is an error with a code.
func (d *device) refused(f *wirev1.ServerFrame, want wirev1.Code) {
	d.t.Helper()
	if f.WhichBody() != wirev1.ServerFrame_Error_case || f.GetError().GetCode() != want {
		d.t.Fatalf("got %v, want %v", f, want)
	}
}

// closed waits until the server has closed the connection and checks the code.
func (d *device) closed(want wirev1.Code) {
	d.t.Helper()
	select {
	case <-d.conn.Context().Done():
	case <-time.After(patience):
		d.t.Fatal("the connection is still open")
	}
	var app *quic.ApplicationError
	if err := context.Cause(d.conn.Context()); !errors.As(err, &app) || !app.Remote ||
		wirev1.Code(app.ErrorCode) != want {
		d.t.Fatalf("closed with %v, want %v", err, want)
	}
}

func (d *device) exporter() []byte {
	d.t.Helper()
	state := d.conn.ConnectionState()
	out, err := state.TLS.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *device) hello() *device {
	d.t.Helper()
	f := d.ask(wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{Client: "test", Features: d.features}.Build()})
	d.nonce = f.GetWelcome().GetNonce()
	if len(d.nonce) != wire.NonceSize {
		d.t.Fatalf("got %v, want a Welcome with a nonce", f)
	}
	return d
}

func (d *device) register(phone string) *device {
	d.t.Helper()
	d.hello()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.key, d.id = key, id.NewDevice()
	f := d.ask(d.registration(phone, public))
	d.user, err = id.From[id.UserID](f.GetAuthenticated().GetUserId())
	if err != nil {
		d.t.Fatalf("registering: %v", f)
	}
	return d
}

func (d *device) registration(phone string, public []byte) wirev1.ClientFrame_builder {
	return wirev1.ClientFrame_builder{Register: wirev1.Register_builder{
		Phone: phone, Pin: "000000", DeviceId: d.id[:], PublicKey: public,
		Signature: ed25519.Sign(d.key, wire.Proof(d.nonce, d.exporter(), id.UserID{}, d.id)),
	}.Build()}
}

func (d *device) proof() *wirev1.Authenticate {
	return wirev1.Authenticate_builder{
		UserId: d.user[:], DeviceId: d.id[:],
		Signature: ed25519.Sign(d.key, wire.Proof(d.nonce, d.exporter(), d.user, d.id)),
	}.Build()
}

// again opens a further connection for the same device and authenticates it.
func (f *fixture) again(t testing.TB, d *device) *device {
	t.Helper()
	n := f.dial(t).hello()
	n.key, n.id, n.user = d.key, d.id, d.user
	got := n.ask(wirev1.ClientFrame_builder{Authenticate: n.proof()})
	if got.WhichBody() != wirev1.ServerFrame_Authenticated_case {
		t.Fatalf("authenticating: %v", got)
	}
	return n
}

func (d *device) sync() *device {
	d.t.Helper()
	if f := d.ask(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}}); f.WhichBody() != wirev1.ServerFrame_Done_case {
		d.t.Fatalf("syncing: %v", f)
	}
	return d
}

func text(s string) *eventv1.Sealed {
	data, _ := proto.Marshal(eventv1.Content_builder{Text: s}.Build())
	return eventv1.Sealed_builder{Data: data}.Build()
}

func direct(a, b *device, s string) wirev1.ClientFrame_builder {
	th, m := id.DirectThread(a.user, b.user), id.NewMessage()
	return wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: th[:], MessageId: m[:], Content: text(s), DirectPeer: b.user[:],
	}.Build()}
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// page reads what a stream of history carries, to its end.
func (d *device) page(s *quic.ReceiveStream) *wirev1.ServerFrame {
	d.t.Helper()
	in := bufio.NewReader(s)
	raw, err := frame.Read(in, nil, wire.MaxServerFrame)
	if err != nil {
		d.t.Fatal(err)
	}
	f := &wirev1.ServerFrame{}
	if err := proto.Unmarshal(raw, f); err != nil {
		d.t.Fatal(err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		d.t.Fatalf("after the page: %v", err)
	}
	return f
}
