package link

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
)

// relay passes datagrams between one peer and an address, and drops those longer than a path of the least width that
// QUIC may meet carries (RFC 9000 section 14). It returns the address to dial.
func relay(t *testing.T, addr string) string {
	t.Helper()
	const widest = 1200
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var peer net.Addr
	var mu sync.Mutex // guards peer
	var wg sync.WaitGroup
	pass := func(from, over net.PacketConn, dest func(net.Addr) net.Addr) {
		buf := make([]byte, 1<<16)
		for {
			n, addr, err := from.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if d := dest(addr); err == nil && d != nil && n <= widest {
				_, _ = over.WriteTo(buf[:n], d) // lost, as datagrams may be
			}
		}
	}
	wg.Go(func() {
		pass(near, far, func(from net.Addr) net.Addr {
			mu.Lock()
			defer mu.Unlock()
			peer = from
			return to
		})
	})
	wg.Go(func() {
		pass(far, near, func(net.Addr) net.Addr {
			mu.Lock()
			defer mu.Unlock()
			return peer
		})
	})
	t.Cleanup(func() { near.Close(); far.Close(); wg.Wait() })
	return near.LocalAddr().String()
}

// A link is there over a path that drops what is longer than QUIC's least, and carries what takes many packets.
func TestNarrowPath(t *testing.T) {
	ctx := within(t)
	ca := authority(t)
	got := make(chan string, 1)
	addr := serveQUIC(t, config(t, ca, "delivery-1"), 0, func(ctx context.Context, end DeliveryEnd) error {
		m, err := end.Recv(ctx)
		if err == nil {
			got <- m.GetHello().GetEdge()
		}
		return err
	})
	edge, err := Dial(ctx, relay(t, addr), config(t, ca, "edge-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	name := string(make([]byte, 5000))
	if err := edge.Send(ctx, hello(name)); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-got:
		if n != name {
			t.Errorf("%d bytes came, want %d", len(n), len(name))
		}
	case <-ctx.Done():
		t.Error("nothing came")
	}
}
