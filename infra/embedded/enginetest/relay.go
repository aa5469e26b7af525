package enginetest

import (
	"context"
	"net"
	"sync"
	"testing"
)

// Relay stands between a client and an engine and cuts all connections at a chosen moment, as the end of the client's
// process does.
type Relay struct {
	// Addr is where it listens.
	Addr string

	to string

	gate  sync.Mutex // guards left and after; held from the count that asks for the cut until all is cut
	left  int        // of what clients send until the cut; negative: none is to come
	after bool

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
	r := &Relay{Addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}, left: -1}
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
	r.gate.Lock()
	defer r.gate.Unlock()
	r.left, r.after = n, after
}

// Cut tells whether the cut that was asked for has come.
func (r *Relay) Cut() bool {
	r.gate.Lock()
	defer r.gate.Unlock()
	return r.left < 0
}

// pass sends what a client sent on, unless it is what is to be cut at. It tells whether the connection goes on.
func (r *Relay) pass(up net.Conn, sent []byte) bool {
	r.gate.Lock()
	cut := r.left == 0
	if r.left >= 0 {
		r.left--
	}
	if !cut {
		r.gate.Unlock()
		_, err := up.Write(sent)
		return err == nil
	}
	defer r.gate.Unlock() // with the answer to this the client may be done, and another begin
	if r.after {
		_, _ = up.Write(sent)
	}
	r.cut()
	return false
}

func (r *Relay) relay(c net.Conn) {
	defer c.Close()
	up, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.to)
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
		if !r.pass(up, buf[:n]) {
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
