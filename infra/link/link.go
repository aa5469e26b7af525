package link

import (
	"context"
	"errors"

	linkv1 "heliograph/schemas/link/v1"
)

// ErrFull is returned by DeliveryEnd.Send when the queue has no room; the caller closes the link.
var ErrFull = errors.New("link: queue is full")

// ErrClosed is returned by an end that was closed here, there, or by the network; a more telling cause may be wrapped
// beside it.
var ErrClosed = errors.New("link: closed")

// EdgeEnd is the end of a link that an edge holds. Its methods may be called from any goroutine, Recv from one at a
// time.
type EdgeEnd interface {
	// Send queues a frame, waiting for room.
	Send(ctx context.Context, m *linkv1.ToDelivery) error
	// Recv waits for the next frame; the caller must not change it.
	Recv(ctx context.Context) (*linkv1.ToEdge, error)
	// Close ends the link for both sides. It may be called again.
	Close() error
}

// DeliveryEnd is the end of a link that a delivery instance holds. Its methods may be called from any goroutine, Recv
// from one at a time.
type DeliveryEnd interface {
	// Send queues a frame without waiting: ErrFull when there is no room, upon which the caller closes the link. The
	// frame must not be changed afterwards.
	Send(m *linkv1.ToEdge) error
	// SendWait queues a frame once the queue is at most half full, so that room is left for Send.
	SendWait(ctx context.Context, m *linkv1.ToEdge) error
	// Recv waits for the next frame; the caller must not change it.
	Recv(ctx context.Context) (*linkv1.ToDelivery, error)
	// Close ends the link for both sides. It may be called again.
	Close() error
	// Peer names the other side for logs: its certificate's name and address, or "pipe".
	Peer() string
	// Queued returns how many frames wait to be sent.
	Queued() int
}

// Handler serves one link until it ends or ctx is cancelled, and closes it.
type Handler func(ctx context.Context, end DeliveryEnd) error

// Instance is a running delivery instance.
type Instance struct {
	Name string // unique and stable over restarts
	Addr string // host:port of its listener; empty in one process
}

// Directory tells which instances run delivery now.
type Directory interface {
	Instances(ctx context.Context) ([]Instance, error)
}

// Dialer opens links.
type Dialer interface {
	Dial(ctx context.Context, to Instance) (EdgeEnd, error)
}

// Static is a Directory that never changes.
type Static []Instance

// Instances returns the list.
func (s Static) Instances(context.Context) ([]Instance, error) { return s, nil }
