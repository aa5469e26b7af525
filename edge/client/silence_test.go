package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// relay passes datagrams between clients and an edge, until it is told to swallow those of the clients that it knows: to them the edge is dead without
// having said so.
type relay struct {
	conn *net.UDPConn
	edge *net.UDPAddr

	mu    sync.Mutex
	ways  map[string]*net.UDPConn
	still map[string]bool
}

func newRelay(t *testing.T, edge string) *relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", edge)
	must(t, err)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	r := &relay{conn: conn, edge: to, ways: map[string]*net.UDPConn{}, still: map[string]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if way := r.way(from, &wg); way != nil {
				_, _ = way.Write(buf[:n]) // datagrams may be lost
			}
		}
	})
	t.Cleanup(func() {
		err := conn.Close()
		r.mu.Lock()
		for _, w := range r.ways {
			err = errors.Join(err, w.Close())
		}
		r.mu.Unlock()
		wg.Wait()
		must(t, err)
	})
	return r
}

// way is the connection to the edge on behalf of a client; nil: its datagrams are swallowed.
func (r *relay) way(from *net.UDPAddr, wg *sync.WaitGroup) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := from.String()
	if r.still[key] {
		return nil
	}
	if w, ok := r.ways[key]; ok {
		return w
	}
	w, err := net.DialUDP("udp", nil, r.edge)
	if err != nil {
		return nil
	}
	r.ways[key] = w
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := w.Read(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			still := r.still[key]
			r.mu.Unlock()
			if !still {
				_, _ = r.conn.WriteToUDP(buf[:n], from) // datagrams may be lost
			}
		}
	})
	return w
}

func (r *relay) swallow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.ways {
		r.still[k] = true
	}
}

// An edge that dies says nothing. A client that writes to it goes to another long before QUIC's idle timeout, and sends again what was not answered.
func TestSilentEdgeIsLeft(t *testing.T) {
	var r *relay
	var got sync.Map // id of the message to the number of the connection that it came by last
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_SendMessage_case {
			return false
		}
		got.Store(id.MessageID(f.GetSendMessage().GetMessageId()), p.n)
		if p.n == 0 {
			r.swallow() // with the acknowledgement of the packet that this came in
			return true
		}
		return false
	})
	r = newRelay(t, cfg.Addrs[0])
	cfg.Addrs, cfg.Silence = []string{r.conn.LocalAddr().String()}, 200*time.Millisecond
	cfg.Store = NewMemoryStore()
	me, _, err := NewDevice(id.UserID{1})
	must(t, err)
	must(t, cfg.Store.SetIdentity(me))
	c, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // half of the idle timeout
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() { _ = c.Run(ctx) })
	must(t, c.WaitSynced(ctx))
	m, err := c.Send(To{Thread: id.NewGroup()}, "anybody there?")
	must(t, err)
	for e := range c.Events(ctx) {
		if s, ok := e.(Sent); ok && s.ID == m {
			if n, _ := got.Load(m); n != 1 {
				t.Errorf("the message came by connection %v last, want 1", n)
			}
			return
		}
	}
	t.Fatal("the client stayed with an edge that says nothing")
}
