// Package hub is an edge's side of delivery: which subjects its sessions are interested in, their states, and the events that go to each device.
package hub

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/link"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Hub is the edge's side of delivery. Its methods may be called from any goroutine while Run runs.
type Hub struct {
	cfg Config
}

var errNotRunning = wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the hub does not run")

// New returns a Hub that does nothing until Run.
func New(cfg Config, pool *pgxpool.Pool, dir link.Directory, dialer link.Dialer, log *slog.Logger, reg prometheus.Registerer) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Hub{cfg: cfg.withDefaults()}, nil
}

// Run keeps links, subscriptions and snapshots until ctx is cancelled.
func (h *Hub) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Ready tells whether every slot has a delivery instance; the error names those that have none. Fit for a readiness check.
func (h *Hub) Ready(context.Context) error { return errNotRunning }

// Attach registers a session and returns once its user's state is live here. A revoked or unknown device is refused with a *wire.Error; a store or a link that
// does not answer in time is CODE_UNAVAILABLE. After an error the session is not registered.
func (h *Hub) Attach(ctx context.Context, s Session) error { return errNotRunning }

// Sync sends the session what it lacks (wire section 5) and then makes it live. It may run again at any time.
func (h *Hub) Sync(ctx context.Context, s Session) error { return errNotRunning }

// Detach forgets a session. It may be called again, and for a session whose Attach failed.
func (h *Hub) Detach(s Session) {}

// DeviceKey returns a device of a user, revoked or not: from live state, else from Postgres. Nobody's device is CODE_AUTHENTICATION_FAILED.
func (h *Hub) DeviceKey(ctx context.Context, u id.UserID, d id.DeviceID) (user.Device, error) {
	return user.Device{}, errNotRunning
}

// View returns a thread as this edge knows it; false when the thread is not live here. No I/O.
func (h *Hub) View(t id.ThreadID) (ThreadView, bool) { return ThreadView{}, false }

// Seen tells whether the thread accepted this message before, and where. No I/O.
func (h *Hub) Seen(t id.ThreadID, key thread.Key) (thread.Seen, bool) { return thread.Seen{}, false }

// Watermark returns the highest watermark of a user's devices in a thread that is live here. No I/O.
func (h *Hub) Watermark(t id.ThreadID, u id.UserID) thread.Watermark { return thread.Watermark{} }

// Cursor tells how far this edge has read each topic of a slot; ok is false until a delivery instance has said so.
func (h *Hub) Cursor(s topic.Slot) (threads, receipts, users topic.Position, ok bool) {
	return 0, 0, 0, false
}

// EnsureThread makes a thread live here on behalf of a user who is about to join it, and waits until it is.
func (h *Hub) EnsureThread(ctx context.Context, t id.ThreadID) error { return errNotRunning }

// ThreadView is a thread as this edge knows it. The fields are copied; the methods read the state as it is when they are called.
type ThreadView struct {
	ID            id.ThreadID
	Kind          thread.Kind // None: no event has begun the thread
	Title         string
	ActiveMembers int
	LastPosition  topic.Position
	LastOrdinal   int64
}

// IsMember tells whether the user is a member now.
func (v ThreadView) IsMember(u id.UserID) bool { return false }

// Role returns the user's role; 0 when he is not a member.
func (v ThreadView) Role(u id.UserID) thread.Role { return 0 }

// Members returns the members now, in no order.
func (v ThreadView) Members() []id.UserID { return nil }
