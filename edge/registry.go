package edge

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"

	"heliograph/edge/session"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

type owner struct {
	user   id.UserID
	device id.DeviceID
	// background: the device's second session
	background bool
}

func ownerOf(s *session.Session) owner { return owner{s.User(), s.Device(), s.Background()} }

// registry knows the sessions of this edge that are authenticated.
type registry struct {
	mu       sync.Mutex // guards sessions
	sessions map[owner]*session.Session
}

// Enter implements session.Registry (wire 3.8).
func (r *registry) Enter(s *session.Session) {
	k := ownerOf(s)
	r.mu.Lock()
	old := r.sessions[k]
	r.sessions[k] = s
	r.mu.Unlock()
	if old != nil {
		old.Close(wirev1.Code_CODE_SUPERSEDED)
	}
}

// Leave implements session.Registry.
func (r *registry) Leave(s *session.Session) {
	k := ownerOf(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[k] == s {
		delete(r.sessions, k)
	}
}

func (r *registry) all() []*session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*session.Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		out = append(out, s)
	}
	return out
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// strangers counts the connections that are not authenticated, from their first packet on.
type strangers struct {
	limit int64
	count atomic.Int64
}

// pass is a stranger's: it counts until he is known, or gone.
type pass struct {
	of   *strangers
	left atomic.Bool
	stop func() bool // of the watch on his going
}

// passKey is the pass's in a connection's context.
type passKey struct{}

// enter lets a stranger in, or returns nil. ctx ends when he goes.
func (s *strangers) enter(ctx context.Context) context.Context {
	if s.count.Add(1) > s.limit {
		s.count.Add(-1)
		return nil
	}
	p := &pass{of: s}
	p.stop = context.AfterFunc(ctx, p.leave)
	return context.WithValue(ctx, passKey{}, p)
}

// crowded tells whether so many are here that more of them should prove their address first.
func (s *strangers) crowded() bool { return s.count.Load() > s.limit/2 }

func (p *pass) leave() {
	if p.left.CompareAndSwap(false, true) {
		p.of.count.Add(-1)
	}
}

// known ends the counting of who is no stranger any more.
func (p *pass) known() {
	p.stop()
	p.leave()
}

// early counts the connections of each address that are not authenticated.
type early struct {
	mu     sync.Mutex // guards counts
	limit  int
	counts map[netip.Prefix]int
}

// place is what is counted together: an address, or an IPv6 network of /64, which is what one subscriber has.
func place(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (e *early) enter(p netip.Prefix) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts[p] >= e.limit {
		return false
	}
	e.counts[p]++
	return true
}

func (e *early) leave(p netip.Prefix) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts[p]--; e.counts[p] <= 0 {
		delete(e.counts, p)
	}
}
