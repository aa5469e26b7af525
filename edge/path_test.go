package edge

import (
	"net"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"

	"heliograph/edge/client"
)

// narrow is the way of a device over the narrowest path that QUIC may meet (RFC 9000 section 14): longer datagrams
// vanish both ways.
type narrow struct{ net.PacketConn }

const narrowest = 1200

func (n narrow) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		k, from, err := n.PacketConn.ReadFrom(b)
		if err != nil || k <= narrowest {
			return k, from, err
		}
	}
}

func (n narrow) WriteTo(b []byte, to net.Addr) (int, error) {
	if len(b) > narrowest {
		return len(b), nil
	}
	return n.PacketConn.WriteTo(b, to)
}

// The narrowest path carries the handshake and messages of many packets.
func TestNarrowPath(t *testing.T) {
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	converse(t, start(t, nil), narrow{socket})
}

// converse has two clients behind a socket send messages of many packets.
func converse(t *testing.T, f *fixture, socket net.PacketConn) {
	t.Helper()
	tr := &quic.Transport{Conn: socket}
	t.Cleanup(func() {
		_ = tr.Close() // its connections are closed already
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b := f.joinWith(t, "+491", client.Config{Transport: tr}), f.joinWith(t, "+492", client.Config{Transport: tr})
	g, err := a.CreateGroup(t.Context(), "far", identity(b))
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("far ", 1000)
	if err := said(t, a, g, long); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, b, 1); len(got) != 1 || got[0] != long {
		t.Errorf("%d messages came, want 1 of %d bytes", len(got), len(long))
	}
}
