package session

import (
	"context"
	"io"
	"net/netip"
	"time"

	"heliograph/edge/auth"
	"heliograph/edge/fanout"
	"heliograph/edge/replica"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Conn is a device's connection: QUIC today, WebTransport with the same frames.
type Conn interface {
	// Control is the stream that the client opened (wire 1.3).
	Control() Stream
	// OpenPage opens a unidirectional stream to the client (wire 10.2); it waits until the client allows one, and
	// fails with ErrNoStreams when that lets none be opened at all.
	OpenPage(ctx context.Context) (Page, error)
	// Exporter is what proofs are bound to (wire 4.1).
	Exporter() ([]byte, error)
	// Remote is the device's address.
	Remote() netip.Addr
	// Close ends the connection with a code as application error code. It may block for a moment; what was written last
	// may be lost.
	Close(code wirev1.Code, reason string)
	// Authenticated tells that the device is known now. It must not block.
	Authenticated()
}

// Stream is the control stream.
type Stream interface {
	io.Reader
	io.Writer
	SetWriteDeadline(time.Time) error
}

// Page is a stream for one page of history.
type Page interface {
	io.Writer
	SetWriteDeadline(time.Time) error
	// Close ends the stream in good order.
	Close() error
	// Cancel gives it up.
	Cancel()
}

// Fanout is what pushes to devices (package fanout).
type Fanout interface {
	Attach(ctx context.Context, s fanout.Session) (user.Device, error)
	Sync(ctx context.Context, s fanout.Session, has fanout.Known, window int) error
	More(ctx context.Context, s fanout.Session, threads int) (rest int, err error)
	Detach(s fanout.Session)
}

// Replica is what this edge has of the log (package replica).
type Replica interface {
	// View returns a thread as this edge knows it; false when it is not live here. No I/O.
	View(t id.ThreadID) (View, bool)
	Seen(t id.ThreadID, key thread.Key) (thread.Seen, bool)
	Watermark(t id.ThreadID, u id.UserID) thread.Watermark
	Cursor(s topic.Slot) (at topic.Cursor, ok bool)
	// WaitFor returns once this edge has read past a position of a slot's topic.
	WaitFor(ctx context.Context, s topic.Slot, t topic.Topic, p topic.Position) error
	// Judge has put append an event to a thread and returns the fold's verdict on it, once this edge has come to it.
	Judge(
		ctx context.Context, t id.ThreadID, put func(context.Context) (topic.Position, error),
	) (thread.Verdict, error)
	// Await returns a thread as View does, once enough says so; it is asked again whenever the thread may have changed.
	Await(ctx context.Context, t id.ThreadID, enough func(v View, known bool) bool) (v View, known bool, err error)
	// WaitViews waits until this edge has read a topic of a subject's slot beyond a position, and then until the thread
	// views are as far, which it returns.
	WaitViews(ctx context.Context, t topic.Topic, s topic.Subject, beyond topic.Position) (topic.Position, error)
	// Past waits until the thread views have got past all of some positions.
	Past(ctx context.Context, n replica.Needs) error
	// TakenIn and TakenInBy add what a thread, and a user with or without his threads, have taken in here. No I/O.
	TakenIn(t id.ThreadID, n replica.Needs)
	TakenInBy(u id.UserID, threads bool, n replica.Needs)
	EnsureThread(ctx context.Context, t id.ThreadID) error
	// Listed tells whether a thread is or was in the list of a user who is connected here, as this edge knows it.
	Listed(u id.UserID, t id.ThreadID) bool
	// Invited tells whether a user who is connected here has an open invitation into a thread, as this edge knows it.
	Invited(u id.UserID, t id.ThreadID) bool
	// DeviceKey returns a device of a user, revoked or not.
	DeviceKey(ctx context.Context, u id.UserID, d id.DeviceID) (user.Device, error)
}

// View is a thread as this edge knows it.
type View struct {
	Kind          thread.Kind // None: no event has begun the thread
	Title         string
	ActiveMembers int
	LastPosition  topic.Position
	LastOrdinal   int64
	Next          topic.Position // the thread has no event before it that is not in here
	// an event could not be applied: the thread is as it was before, and takes nothing more
	Quarantined bool
	Roster      Roster
}

// closed says why a user may not add to the thread, nil when he may. That a thread is in quarantine is told to its
// members, and to those who were told that they are about to be (listed): the event that made them so may be the one
// that cannot be applied. To a stranger a thread that is there is as one that is not
// (wire 7.11).
func (v View) closed(u id.UserID, listed bool) *wire.Error {
	switch member := v.Roster.IsMember(u); {
	case v.Quarantined && (member || listed && !v.Roster.WasMember(u)):
		return parked()
	case v.Kind == thread.None || !member:
		return notMember()
	}
	return nil
}

func parked() *wire.Error {
	return &wire.Error{
		Code:       wirev1.Code_CODE_THREAD_PARKED,
		Message:    "the thread is in quarantine: an event of it cannot be applied here yet",
		RetryAfter: retryQuarantined,
	}
}

// retryQuarantined is when to ask again about a thread that waits for people.
const retryQuarantined = 30 * time.Second

// Roster tells who is in a thread.
type Roster interface {
	// IsMember tells whether the user is a member now.
	IsMember(u id.UserID) bool
	// WasMember tells whether the user is a member now or was one.
	WasMember(u id.UserID) bool
	// IsInvited tells whether the user is invited now.
	IsInvited(u id.UserID) bool
	// Role returns a member's role.
	Role(u id.UserID) thread.Role
	// Members returns the members now.
	Members() []id.UserID
}

// Auth registers and proves devices (package auth).
type Auth interface {
	RequestPin(ctx context.Context, r *wirev1.RequestPin, addr netip.Addr) (*wirev1.PinRequested, error)
	Register(ctx context.Context, r *wirev1.Register, nonce, exporter []byte, addr netip.Addr) (auth.Identity, error)
	Authenticate(
		ctx context.Context, r *wirev1.Authenticate, nonce, exporter []byte, addr netip.Addr,
	) (auth.Identity, error)
	// Spend takes n of what a user may do in a day, over all edges.
	Spend(ctx context.Context, u id.UserID, what auth.Spending, n int) error
}

// Queries answers what needs a store (package query).
type Queries interface {
	ListThreads(
		ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark,
		r *wirev1.ListThreads,
	) (*wirev1.Threads, error)
	GetThread(
		ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, t id.ThreadID,
	) (*wirev1.Thread, error)
	History(ctx context.Context, u id.UserID, floor user.Floor, r *wirev1.GetHistory) (*wirev1.HistoryPage, error)
	LookupUsers(ctx context.Context, u id.UserID, r *wirev1.LookupUsers) (*wirev1.Users, error)
	GetUsers(ctx context.Context, ids [][]byte) (*wirev1.Users, error)
	UserExists(ctx context.Context, u id.UserID) (bool, error)
	WasMember(ctx context.Context, u id.UserID, t id.ThreadID) (bool, error)
	// Unaddable returns those of some users whom a user may not put into a thread: they have blocked him, let nobody
	// add them, or are in as many threads as one may be in. Of himself the last alone counts.
	Unaddable(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error)
	// BlockedBy returns those of some users who have blocked a user.
	BlockedBy(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error)
	// InvitedTo returns those of some users among whose invitations, as they are listed, a thread is.
	InvitedTo(ctx context.Context, t id.ThreadID, users []id.UserID) ([]id.UserID, error)
	// MayBlock tells whether a user has room for a block of another, whom he may have blocked already.
	MayBlock(ctx context.Context, by, u id.UserID) (bool, error)
	// Invitations returns a user's open invitations by those whom he has not blocked, the latest first.
	Invitations(ctx context.Context, u id.UserID) (*wirev1.Invitations, error)
	// Settings returns what a user has set.
	Settings(ctx context.Context, u id.UserID) (*wirev1.Settings, error)
	ListDevices(ctx context.Context, u id.UserID) (*wirev1.Devices, error)
	Views(ctx context.Context, t id.ThreadID) (*wirev1.Views, error)
}

// Log takes events (package ingest).
type Log interface {
	Append(t topic.Topic, s topic.Subject, ev *eventv1.Event, done func(ingest.Receipt, error))
	Watermark(t id.ThreadID, u id.UserID, d id.DeviceID, w thread.Watermark)
}

// Registry knows the authenticated sessions of this edge.
type Registry interface {
	// Enter makes s the session of its device and closes an older one with CODE_SUPERSEDED.
	Enter(s *Session)
	// Leave forgets s, if it still is its device's.
	Leave(s *Session)
}
