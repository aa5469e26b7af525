package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	wirev1 "heliograph/schemas/wire/v1"
)

// newcomer is a client written from the text of wire.proto: of this repository it has the protobufs alone. What it does
// names the rule that tells it to.
type newcomer struct {
	t *testing.T

	// What it keeps over connections.
	key          ed25519.PrivateKey
	user, device []byte
	position     map[string]int64 // 6.1: of each thread
	texts        map[string][]string
	receipts     map[string]*wirev1.MemberWatermark

	// Of the connection.
	conn    *quic.Conn
	control *quic.Stream
	in      *bufio.Reader
	limits  *wirev1.Limits
	nonce   []byte
	last    uint64 // request id
	live    bool
}

func newNewcomer(t *testing.T) *newcomer {
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	return &newcomer{
		t: t, key: key, device: v7(t), position: map[string]int64{}, texts: map[string][]string{},
		receipts: map[string]*wirev1.MemberWatermark{},
	}
}

// v7 makes an id (15.1).
func v7(t *testing.T) []byte {
	u, err := uuid.NewV7()
	must(t, err)
	return u[:]
}

// dial opens a connection and greets (1.1 to 1.3, 3.1).
func (n *newcomer) dial(ctx context.Context, tr *quic.Transport, addr string, conf *tls.Config) {
	n.t.Helper()
	conf = conf.Clone()
	conf.MinVersion, conf.NextProtos, conf.ServerName = tls.VersionTLS13, []string{"helio/1"}, "127.0.0.1"
	to, err := net.ResolveUDPAddr("udp", addr)
	must(n.t, err)
	n.conn, err = tr.Dial(ctx, to, conf, &quic.Config{
		InitialPacketSize: 1200, DisablePathMTUDiscovery: true, KeepAlivePeriod: 20 * time.Second, // 1.2, 1.7
		MaxIncomingUniStreams: 4, // 10.2
	})
	must(n.t, err)
	n.control, err = n.conn.OpenStreamSync(ctx)
	must(n.t, err)
	n.in, n.last, n.live = bufio.NewReader(n.control), 0, false
	n.limits = wirev1.Limits_builder{MaxServerFrameBytes: 4 << 20}.Build()
	w := n.ask(wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{Client: "newcomer/1"}.Build()}).GetWelcome()
	n.nonce, n.limits = w.GetNonce(), w.GetLimits()
}

// write writes one frame (1.4).
func (n *newcomer) write(b wirev1.ClientFrame_builder) {
	n.t.Helper()
	raw, err := proto.Marshal(b.Build())
	must(n.t, err)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(raw))|0x8000_0000)
	_, err = n.control.Write(append(length, raw...))
	must(n.t, err)
}

// readFrame reads one frame (1.4, 1.5).
func (n *newcomer) readFrame(in *bufio.Reader) *wirev1.ServerFrame {
	n.t.Helper()
	first, err := in.ReadByte()
	must(n.t, err)
	length := uint64(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		b, err := in.ReadByte()
		must(n.t, err)
		length = length<<8 | uint64(b)
	}
	if length > uint64(n.limits.GetMaxServerFrameBytes()) {
		n.t.Fatalf("a frame of %d bytes", length)
	}
	raw := make([]byte, length)
	_, err = io.ReadFull(in, raw)
	must(n.t, err)
	f := &wirev1.ServerFrame{}
	must(n.t, proto.Unmarshal(raw, f))
	return f
}

// read reads from the control stream and takes what is a push (2.3).
func (n *newcomer) read() *wirev1.ServerFrame {
	n.t.Helper()
	must(n.t, n.control.SetReadDeadline(time.Now().Add(patience)))
	f := n.readFrame(n.in)
	if f.GetRequestId() == 0 {
		n.push(f)
	}
	return f
}

func (n *newcomer) push(f *wirev1.ServerFrame) {
	n.t.Helper()
	switch f.WhichBody() {
	case wirev1.ServerFrame_Event_case:
		e := f.GetEvent()
		th := string(e.GetThreadId())
		if had, known := n.position[th]; known && e.GetPosition() <= had { // 6.1
			return
		}
		n.position[th] = e.GetPosition()
		if text, ok := n.text(e); ok {
			n.texts[th] = append(n.texts[th], text)
		}
		n.write(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{ // 6.2
			wirev1.Watermark_builder{
				ThreadId: e.GetThreadId(), DeliveredPosition: e.GetPosition(), DeliveredOrdinal: e.GetOrdinal(),
			}.Build(),
		}}.Build()})
	case wirev1.ServerFrame_Receipts_case: // 5.3
		for _, m := range f.GetReceipts().GetItems() {
			k := string(f.GetReceipts().GetThreadId()) + string(m.GetUserId())
			if had := n.receipts[k]; m.GetDeliveredOrdinal() > had.GetDeliveredOrdinal() ||
				m.GetReadOrdinal() > had.GetReadOrdinal() {
				n.receipts[k] = m
			}
		}
	case wirev1.ServerFrame_SyncComplete_case:
		n.live = true
	default: // 1.6
	}
}

// text reads a message (7.8).
func (n *newcomer) text(raw *wirev1.Event) (string, bool) {
	n.t.Helper()
	e := &eventv1.Event{}
	must(n.t, proto.Unmarshal(raw.GetEvent(), e))
	if !e.HasMessageSent() || e.GetMessageSent().GetContent().GetKeyId() != 0 {
		return "", false
	}
	c := &eventv1.Content{}
	must(n.t, proto.Unmarshal(e.GetMessageSent().GetContent().GetData(), c))
	return c.GetText(), true
}

// start writes a request (2.1).
func (n *newcomer) start(b wirev1.ClientFrame_builder) uint64 {
	n.t.Helper()
	n.last++
	b.RequestId = n.last
	n.write(b)
	return n.last
}

func (n *newcomer) answer(req uint64) *wirev1.ServerFrame {
	n.t.Helper()
	for {
		f := n.read()
		if f.GetRequestId() != req {
			continue
		}
		if f.HasError() {
			n.t.Fatalf("request %d was refused: %v", req, f.GetError())
		}
		return f
	}
}

func (n *newcomer) ask(b wirev1.ClientFrame_builder) *wirev1.ServerFrame {
	n.t.Helper()
	return n.answer(n.start(b))
}

// proof signs this connection (4.1, 4.2).
func (n *newcomer) proof(user []byte) []byte {
	n.t.Helper()
	state := n.conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial("EXPORTER-heliograph", nil, 32)
	must(n.t, err)
	return ed25519.Sign(n.key, slices.Concat([]byte("helio/1 auth\x00"), n.nonce, exporter, user, n.device))
}

// register brings the device in (3.5); pin waits for the SMS.
func (n *newcomer) register(phone string, pin func(number string) string) {
	n.t.Helper()
	public := n.key.Public().(ed25519.PublicKey)
	checked := n.ask(wirev1.ClientFrame_builder{CheckPhone: wirev1.CheckPhone_builder{Phone: phone}.Build()})
	number := checked.GetPhoneNumber().GetNumber()
	n.ask(wirev1.ClientFrame_builder{
		RequestPin: wirev1.RequestPin_builder{Phone: number, PublicKey: public}.Build(), // 3.7
	})
	in := n.ask(wirev1.ClientFrame_builder{Register: wirev1.Register_builder{
		Phone: number, Pin: pin(number), DeviceId: n.device, PublicKey: public,
		Signature: n.proof(make([]byte, 16)), DeviceName: "newcomer", Name: "New",
	}.Build()})
	n.user = in.GetAuthenticated().GetUserId()
	n.synced(n.start(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})) // 5.1
}

// back comes back as the device, without waiting in between (3.6).
func (n *newcomer) back() {
	n.t.Helper()
	proof := n.start(wirev1.ClientFrame_builder{Authenticate: wirev1.Authenticate_builder{
		UserId: n.user, DeviceId: n.device, Signature: n.proof(n.user),
	}.Build()})
	sync := n.start(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
	n.answer(proof)
	n.synced(sync)
}

func (n *newcomer) synced(req uint64) {
	n.t.Helper()
	if n.answer(req); !n.live { // 5.5
		n.t.Error("Done before SyncComplete")
	}
}

// send sends a text to another user (7.1, 7.7, 15.3) and returns the thread.
func (n *newcomer) send(to []byte, text string) string {
	n.t.Helper()
	a, b := n.user, to
	if bytes.Compare(a, b) > 0 {
		a, b = b, a
	}
	sum := sha256.Sum256(slices.Concat([]byte("helio/direct/1\x00"), a, b))
	th := sum[:16]
	th[6], th[8] = th[6]&0x0f|0x80, th[8]&0x3f|0x80
	content, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	must(n.t, err)
	got := n.ask(wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: th, MessageId: v7(n.t), DirectPeer: to, Content: eventv1.Sealed_builder{Data: content}.Build(),
		ClientTimeMs: time.Now().UnixMilli(),
	}.Build()})
	if !got.HasAck() {
		n.t.Fatalf("sending got %v", got)
	}
	return string(th)
}

// has reads until it has n texts of a thread.
func (n *newcomer) has(th string, count int) []string {
	n.t.Helper()
	for len(n.texts[th]) < count {
		n.read()
	}
	return n.texts[th]
}

// history reads a page (10.1, 10.3).
func (n *newcomer) history(ctx context.Context, th string) (texts []string) {
	n.t.Helper()
	req := n.start(wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: []byte(th)}.Build()})
	s, err := n.conn.AcceptUniStream(ctx)
	must(n.t, err)
	f := n.readFrame(bufio.NewReader(s))
	if f.GetRequestId() != req || !f.HasHistoryPage() {
		n.t.Fatalf("got %v", f)
	}
	for _, e := range f.GetHistoryPage().GetEvents() {
		if text, ok := n.text(e); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// testNewcomer: a client that was written from the text of the protocol registers, sends, receives, sees receipts,
// misses nothing while it is away, and reads the past.
func testNewcomer(t *testing.T, e *env) {
	ctx := e.context(t)
	cfg := e.Client()
	release, err := e.Address(&cfg)
	must(t, err)
	t.Cleanup(func() { must(t, release()) })
	since := time.Now()
	pin := func(number string) string {
		p, err := e.WaitPin(ctx, number, since)
		must(t, err)
		return p
	}
	ann, bob := newNewcomer(t), newNewcomer(t)
	phone := e.phone()
	for edge, n := range map[int]*newcomer{0: ann, 1: bob} {
		n.dial(ctx, cfg.Transport, e.Edge(edge).Addr, cfg.TLS)
		number := phone
		if n == ann {
			number = e.phone()
		}
		n.register(number, pin)
	}
	until(t, "ann finds bob", func() bool { // 14.1: what another connection was told may be missing for a moment
		found := ann.ask(wirev1.ClientFrame_builder{
			LookupUsers: wirev1.LookupUsers_builder{Phones: []string{phone}}.Build(),
		}).GetUsers().GetUsers()
		return len(found) == 1 && bytes.Equal(found[0].GetUserId(), bob.user)
	})
	th := ann.send(bob.user, "1")
	if got := bob.has(th, 1); got[0] != "1" {
		t.Errorf("got %q", got)
	}
	if got := ann.has(th, 1); got[0] != "1" { // 7.1
		t.Errorf("of her own she got %q", got)
	}
	read := wirev1.Watermark_builder{
		ThreadId: []byte(th), DeliveredPosition: bob.position[th], DeliveredOrdinal: 1, ReadPosition: bob.position[th],
		ReadOrdinal: 1,
	}.Build()
	marks := wirev1.Watermarks_builder{Items: []*wirev1.Watermark{read}}.Build()
	if got := bob.ask(wirev1.ClientFrame_builder{Watermarks: marks}); !got.HasDone() { // 6.4
		t.Errorf("got %v", got)
	}
	for ann.receipts[th+string(bob.user)].GetReadOrdinal() < 1 { // 6.6
		ann.read()
	}
	if got := bob.ask(wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}}); !got.HasPong() {
		t.Errorf("got %v", got)
	}
	must(t, bob.conn.CloseWithError(0, ""))
	for k := range 5 {
		ann.send(bob.user, fmt.Sprint(k+2))
	}
	bob.dial(ctx, cfg.Transport, e.Edge(0).Addr, cfg.TLS)
	bob.back()
	want := []string{"1", "2", "3", "4", "5", "6"}
	if got := bob.texts[th]; !slices.Equal(got, want) { // 5.2
		t.Errorf("after being away he has %q, want %q", got, want)
	}
	slices.Reverse(want)
	if got := bob.history(ctx, th); !slices.Equal(got, want) {
		t.Errorf("the page has %q, want %q", got, want)
	}
	must(t, bob.conn.CloseWithError(0, ""))
	must(t, ann.conn.CloseWithError(0, ""))
}
