package edge

import (
	"net/netip"
	"sync"

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
