package edge

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"

	"heliograph/edge/replica"
	"heliograph/edge/session"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// quicConn is a native QUIC connection as a session sees it.
type quicConn struct {
	conn    *quic.Conn
	control *quic.Stream

	// Counted as not authenticated until left; touched only by the connection's own goroutine.
	early *early
	from  netip.Prefix
	left  bool

	mu    sync.Mutex // guards paged
	paged bool       // the client has let a stream be opened
}

// Authenticated ends the connection's counting as one that is not.
func (c *quicConn) Authenticated() {
	if !c.left {
		c.left = true
		c.early.leave(c.from)
		if p, ok := c.conn.Context().Value(passKey{}).(*pass); ok {
			p.known()
		}
	}
}

// Control implements session.Conn.
func (c *quicConn) Control() session.Stream { return c.control }

// OpenPage implements session.Conn.
func (c *quicConn) OpenPage(ctx context.Context) (session.Page, error) {
	c.mu.Lock()
	s, err := c.conn.OpenUniStream() // wire 10.2
	c.paged = c.paged || err == nil
	some := c.paged
	c.mu.Unlock()
	var full *quic.StreamLimitReachedError
	if errors.As(err, &full) {
		if !some {
			return nil, session.ErrNoStreams // it said how many when it connected
		}
		s, err = c.conn.OpenUniStreamSync(ctx)
	}
	if err != nil {
		return nil, err
	}
	return page{s}, nil
}

// Exporter implements session.Conn (wire 4.1).
func (c *quicConn) Exporter() ([]byte, error) {
	state := c.conn.ConnectionState()
	return state.TLS.ExportKeyingMaterial(wire.ExporterLabel, nil, 32)
}

// Remote implements session.Conn.
func (c *quicConn) Remote() netip.Addr { return remote(c.conn) }

// Close implements session.Conn.
func (c *quicConn) Close(code wirev1.Code, reason string) {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(code), reason) // it only fails when the connection is gone
}

func remote(c *quic.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

type page struct{ *quic.SendStream }

// Cancel implements session.Page.
func (p page) Cancel() { p.CancelWrite(quic.StreamErrorCode(wirev1.Code_CODE_UNAVAILABLE)) }

// Replica makes a replica fit for sessions.
func Replica(r *replica.Replica) session.Replica { return replicaView{r} }

type replicaView struct{ *replica.Replica }

// View implements session.Replica.
func (r replicaView) View(t id.ThreadID) (session.View, bool) {
	v, ok := r.Replica.View(t)
	return viewOf(v), ok
}

// Await implements session.Replica.
func (r replicaView) Await(
	ctx context.Context, t id.ThreadID, enough func(v session.View, known bool) bool,
) (session.View, bool, error) {
	v, known, err := r.Replica.Await(ctx, t, func(v replica.View, known bool) bool { return enough(viewOf(v), known) })
	return viewOf(v), known, err
}

func viewOf(v replica.View) session.View {
	return session.View{
		Kind: v.Kind, Title: v.Title, ActiveMembers: v.ActiveMembers, LastPosition: v.LastPosition,
		LastOrdinal: v.LastOrdinal, Next: v.Next, Quarantined: v.Quarantined, Roster: v,
	}
}
