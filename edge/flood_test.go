package edge

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// deaf is a socket that hears nothing: what is dialed over it never gets beyond its first packet.
type deaf struct{ net.PacketConn }

// ReadFrom implements net.PacketConn.
func (d deaf) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if _, _, err := d.PacketConn.ReadFrom(b); err != nil {
			return 0, nil, err
		}
	}
}

// TestFloodOfHandshakes: handshakes that nobody goes on with take a share of the memory and no more, keep no device
// out, and are forgotten.
func TestFloodOfHandshakes(t *testing.T) {
	const most = 20
	f := start(t, func(c *Config) { c.maxEarly, c.maxEarlyPerAddress, c.handshakeTimeout = most, most, time.Second })
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: deaf{socket}}
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer func() { stop(); flood.Wait(); tr.Close(); socket.Close() }()
	for range 4 * most {
		flood.Go(func() {
			if conn, err := tr.Dial(ctx, f.Addr(), f.tls, nil); err == nil {
				_ = conn.CloseWithError(0, "")
				t.Error("a handshake without an answer was finished")
			}
		})
	}
	until(t, "the flood", func() bool { return f.others.crowded() })
	for k := range 5 {
		f.dial(t).register("+49" + string(rune('1'+k))).sync()
		if n := f.others.count.Load(); n > most {
			t.Errorf("%d connections of strangers, at most %d", n, most)
		}
	}
	stop()
	until(t, "the flood to be forgotten", func() bool { return f.others.count.Load() == 0 })
}

// TestStrangersAreCounted: who is refused, goes, or is known is none any more.
func TestStrangersAreCounted(t *testing.T) {
	f := start(t, func(c *Config) { c.maxEarly, c.maxEarlyPerAddress = 2, 2 })
	a, b := f.dial(t), f.dial(t).hello()
	if conn, err := quic.DialAddr(t.Context(), f.Addr().String(), f.tls, nil); err == nil {
		_ = conn.CloseWithError(0, "")
		t.Error("a third stranger came in")
	}
	a.register("+491")
	until(t, "the first to be known", func() bool { return f.others.count.Load() == 1 })
	_ = b.conn.CloseWithError(0, "")
	until(t, "the second to be gone", func() bool { return f.others.count.Load() == 0 })
	_ = a.conn.CloseWithError(0, "")
	until(t, "the first to be gone", func() bool { return f.open.Load() == 0 })
	if n := f.others.count.Load(); n != 0 {
		t.Errorf("%d strangers are left", n)
	}
}

// TestNoDatagrams: an edge that was to take datagrams would keep what nobody reads, outside of flow control.
func TestNoDatagrams(t *testing.T) {
	f := start(t, nil)
	d := f.dialWith(t, &quic.Config{MaxIncomingUniStreams: 8, EnableDatagrams: true}).hello()
	if d.conn.ConnectionState().SupportsDatagrams.Remote {
		t.Error("the edge asks for datagrams")
	}
	if err := d.conn.SendDatagram([]byte("nobody asked")); err == nil {
		t.Error("a datagram was sent")
	}
}
