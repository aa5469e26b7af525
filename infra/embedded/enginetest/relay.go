package enginetest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Relay stands between a client and an engine and cuts all connections at a chosen moment, as the end of the client's
// process does.
type Relay struct {
	// Addr is where it listens.
	Addr string

	to    string
	left  atomic.Int64 // of what clients send until the cut
	after atomic.Bool

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// NewRelay starts a relay to an engine's address; it ends with the test.
func NewRelay(tb testing.TB, to string) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{Addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	r.left.Store(-1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.relay(c) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		r.cut()
		wg.Wait()
	})
	return r
}

// CutAt makes the n-th thing that clients send from now on (a statement, or a part of one) cut all connections: before
// it reaches the engine, or after, so that only its answer is lost. What clients send later passes. Negative: never.
func (r *Relay) CutAt(n int, after bool) {
	r.after.Store(after)
	r.left.Store(int64(n))
}

// Cut tells whether the cut that was asked for has come.
func (r *Relay) Cut() bool { return r.left.Load() < 0 }

func (r *Relay) relay(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer up.Close()
	r.mu.Lock()
	r.conns[c], r.conns[up] = true, true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, c)
		delete(r.conns, up)
		r.mu.Unlock()
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer c.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := up.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	defer wg.Wait()
	defer up.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		now := r.left.Load() >= 0 && r.left.Add(-1) == -1
		if now && !r.after.Load() {
			r.cut()
			return
		}
		if _, err := up.Write(buf[:n]); err != nil {
			return
		}
		if now {
			r.cut()
			return
		}
	}
}

func (r *Relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}
