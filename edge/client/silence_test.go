package client

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// relay passes datagrams between clients and an edge, until it is told to swallow those of the clients that it knows:
// to them the edge is dead without having said so.
type relay struct {
	conn *net.UDPConn
	edge *net.UDPAddr

	mu    sync.Mutex    // guards what follows
	lag   time.Duration // of what comes from the edge
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
			still, lag := r.still[key], r.lag
			r.mu.Unlock()
			switch {
			case still:
			case lag > 0:
				late := bytes.Clone(buf[:n])
				time.AfterFunc(lag, func() { _, _ = r.conn.WriteToUDP(late, from) }) // as below
			default:
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

// An edge that dies says nothing. A client that waits for its answer goes to another long before QUIC's idle timeout,
// and sends again what was not answered: whether the edge dies before it has acknowledged the packet or after, when the
// client has nothing more to write.
func TestSilentEdgeIsLeft(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after bool // it dies after the acknowledgement of the packet that the message came in
	}{{"before it acknowledges", false}, {"after it has acknowledged", true}} {
		t.Run(tc.name, func(t *testing.T) { testSilentEdge(t, tc.after) })
	}
}

func testSilentEdge(t *testing.T, after bool) {
	var r *relay
	var got sync.Map // id of the message to the number of the connection that it came by last
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_SendMessage_case {
			return false
		}
		got.Store(id.MessageID(f.GetSendMessage().GetMessageId()), p.n)
		if p.n == 0 {
			if !after {
				r.swallow()
			}
			return true
		}
		return false
	})
	r = newRelay(t, cfg.Addrs[0])
	cfg.Addrs, cfg.silence = []string{r.conn.LocalAddr().String()}, 200*time.Millisecond
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
	c.mu.Lock()
	quic := c.conn.quic
	c.mu.Unlock()
	heard := quic.ConnectionStats().PacketsReceived
	m, err := c.Send(To{Thread: id.NewGroup()}, "anybody there?")
	must(t, err)
	if after {
		for quic.ConnectionStats().PacketsReceived == heard {
			if ctx.Err() != nil {
				t.Fatal("the edge does not acknowledge the packet")
			}
			runtime.Gosched()
		}
		r.swallow()
	}
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

// An edge that is there and takes its time is not left: it is asked whether it is there, and once all is answered no
// more.
func TestSlowEdgeIsProbed(t *testing.T) {
	var probes atomic.Int32
	answer := make(chan *wirev1.ServerFrame, 1)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Watermarks_case:
			if n := len(f.GetWatermarks().GetItems()); n > 0 {
				t.Errorf("a probe of %d watermarks", n)
			}
			if probes.Add(1) == 3 {
				p.write(<-answer)
			}
			return true
		case wirev1.ClientFrame_SendMessage_case:
			m := f.GetSendMessage()
			answer <- wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Ack: wirev1.Ack_builder{
				MessageId: m.GetMessageId(), ThreadId: m.GetThreadId(), Position: int64(p.n),
			}.Build()}.Build()
			return true
		}
		return false
	})
	cfg.silence, cfg.Store = 150*time.Millisecond, registered(t)
	c, _ := start(t, cfg)
	ctx := within(t)
	must(t, c.WaitSynced(ctx))
	if probes.Load() > 0 {
		t.Error("a probe before anything was asked")
	}
	m, err := c.Send(To{Thread: id.NewGroup()}, "take your time")
	must(t, err)
	answered := false
	for e := range c.Events(ctx) {
		var s Sent
		if s, answered = e.(Sent); answered {
			if s.ID != m || s.Ack.Position != 0 {
				t.Errorf("message %s is answered on connection %d, want %s on the first", s.ID, s.Ack.Position, m)
			}
			break
		}
	}
	if !answered {
		t.Fatalf("no answer after %d probes", probes.Load())
	}
	rests(t, c)
	if n := probes.Load(); n > 4 { // one may have been on its way
		t.Errorf("%d probes although the third was answered", n)
	}
}

// rests waits until the connection has nothing more to look for.
func rests(t *testing.T, c *Client) {
	t.Helper()
	c.mu.Lock()
	cn := c.conn
	c.mu.Unlock()
	if cn == nil {
		t.Fatal("there is no connection")
	}
	for ctx := within(t); ; runtime.Gosched() {
		cn.wmu.Lock()
		rest := cn.watch == nil
		cn.wmu.Unlock()
		switch {
		case rest:
			return
		case ctx.Err() != nil:
			t.Fatal("the connection goes on looking for the edge")
		}
	}
}

// Before it has proved who it is a device may send few frames: none is spent on a probe.
func TestNoProbeWhileRegistering(t *testing.T) {
	answer := make(chan func(), 1)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_RequestPin_case:
			answer <- func() {
				p.write(wirev1.ServerFrame_builder{
					RequestId: f.GetRequestId(), PinRequested: &wirev1.PinRequested{},
				}.Build())
			}
			return true
		case wirev1.ClientFrame_Watermarks_case:
			t.Error("a probe before authentication")
		}
		return false
	})
	cfg.silence = 150 * time.Millisecond
	c, _ := start(t, cfg)
	ctx := within(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := c.RequestPin(ctx, "+491"); err != nil {
			t.Error(err)
		}
	})
	reply := <-answer
	rests(t, c)
	reply()
	wg.Wait()
	rests(t, c)
}

// An edge that needs longer for its answers than a device waits is reached all the same: each attempt that it let pass
// in silence gives it twice the time. Without, all of a crowd that it has no time for would begin anew for ever.
func TestSlowEdgeIsReached(t *testing.T) {
	cfg := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
	r := newRelay(t, cfg.Addrs[0])
	r.mu.Lock()
	r.lag = 300 * time.Millisecond
	r.mu.Unlock()
	cfg.Addrs, cfg.silence = []string{r.conn.LocalAddr().String()}, 200*time.Millisecond
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	must(t, c.WaitSynced(within(t)))
}

// An edge that has taken the Hello and never greets is left for another: it has forgotten the connection, and what it
// said then was lost. The client has nothing more to write before it is greeted, so nothing tells it that.
func TestEdgeThatDoesNotGreetIsLeft(t *testing.T) {
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		return p.n == 0 && f.WhichBody() == wirev1.ClientFrame_Hello_case
	})
	cfg.silence, cfg.Store = 100*time.Millisecond, registered(t)
	c, _ := start(t, cfg)
	must(t, c.WaitSynced(within(t)))
}
