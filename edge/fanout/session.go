package fanout

import (
	"context"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Session is a device's connection as its fanout sees it. Push, PushReceipts and Lagged are called with a lock
// of the fanout held, on the goroutines that read the links: they must neither block nor call the fanout.
type Session interface {
	// User is who it is.
	User() id.UserID
	// Device is which of his devices.
	Device() id.DeviceID
	// Push hands over one length-prefixed ServerFrame, shared with other sessions: it must not be changed. False: the
	// outbox is full and the frame was not taken.
	Push(frame []byte) bool
	// PushWait is Push that waits for room. It is called by Sync and by nothing else, without locks.
	PushWait(ctx context.Context, frame []byte) error
	// PushReceipts tells that members' watermarks in a thread are at least these. The session keeps the highest of each
	// member. The slice is shared. False: too many wait, and these were not taken.
	PushReceipts(t id.ThreadID, m []replica.Mark) bool
	// WaitReceipts waits until there is room for the receipts of a thread, and for some more. It is called by Sync and
	// by nothing else, without locks.
	WaitReceipts(ctx context.Context) error
	// Logged tells that the log has a receipt of this device at a place, in the order of the log. It is called like
	// Push, without locks.
	Logged(t id.ThreadID, at topic.Position, w thread.Watermark)
	// Lagged tells that pushes were dropped: the session drops those that still wait in its outbox and sends Resync.
	// The fanout pushes no event until the next Sync.
	Lagged()
	// Close ends the connection with a code. It must not block.
	Close(code wirev1.Code)
}

// Holder is a Session that counts what is held for its device in the fanout as it counts what waits in its outbox.
// Both methods may be called with locks held, by any goroutine; they do not block.
type Holder interface {
	// Hold counts n bytes that are held from now on, or with n < 0 are not any more.
	Hold(n int)
	// Room is how many bytes may be held for one purpose of the device now: most, or less while little memory is free.
	Room(most int) int
}

// Patient is a Session that can hold a frame back for a moment, to write it together with the next.
type Patient interface {
	// PushSoon is Push of a frame that nobody waits for: the echo of the device's own message, which has its
	// acknowledgement.
	PushSoon(frame []byte) bool
}

// Background is a Session that may be its device's second, beside that of its foreground. Either is superseded by its
// like alone.
type Background interface{ Background() bool }

func background(s Session) bool {
	b, ok := s.(Background)
	return ok && b.Background()
}
