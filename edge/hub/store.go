package hub

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// store is the queries that the hub asks of the thread views. Answers are in the order of the keys.
type store interface {
	// positions returns how far each slot is in the views; it has one entry per slot.
	positions(ctx context.Context) ([]topic.Cursor, error)
	// snapshot returns the states of threads and users as of one moment.
	snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*snapshot, error)
	// cursors returns the delivered watermark of each device in each thread, -1 where there is none.
	cursors(ctx context.Context, keys []deviceThread) ([]topic.Position, error)
	// tails returns for each range its accepted events in order, and how far the views were at that moment.
	tails(ctx context.Context, ranges []tailRange) ([]tail, error)
	// devices returns devices, nil where there is none.
	devices(ctx context.Context, keys []userDevice) ([]*user.Device, error)
}

type deviceThread struct {
	user   id.UserID // a device id is only his word: another user may claim it too
	device id.DeviceID
	thread id.ThreadID
}

type userDevice struct {
	user   id.UserID
	device id.DeviceID
}

// tailRange asks for the events at positions after < p <= upTo with a log time of at least floorMS: the first limit of
// them, and none after the one with which they have so many bytes.
type tailRange struct {
	thread      id.ThreadID
	after, upTo topic.Position
	floorMS     int64
	limit       int
	bytes       int
}

// tail is the answer to a tailRange, as of one moment of the views.
type tail struct {
	rows []row
	next topic.Position // how far the thread's slot was: with next <= upTo, the range may lack its end
	// trimmed is the last position that was trimmed from the thread's tail, -1: none, and trimmedMS the latest log
	// time: up to both, the range may lack anything.
	trimmed   topic.Position
	trimmedMS int64
}

// History has the accepted events of all threads from their beginning.
type History interface {
	// Events returns the events of a thread at positions after < p <= upTo with a log time of at least floorMS, in
	// order, the first limit of them. It fails when the history has not got beyond upTo.
	Events(
		ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
	) ([]*wirev1.Event, error)
}

type row struct {
	position  topic.Position
	ordinal   int64
	logTimeMS int64
	event     []byte
}

// snapshot is the state of subjects at one moment of the views. A subject that the views do not have is not in the
// maps.
type snapshot struct {
	at       []topic.Cursor // by slot
	threads  map[id.ThreadID]*threadState
	users    map[id.UserID]*user.State
	poisoned map[poison]bool
}

// poison names a subject that is parked in a topic.
type poison struct {
	topic   int32 // number
	subject topic.Subject
}

// threadState is what the hub knows of a thread: the fold's state, and what receipts need.
type threadState struct {
	*thread.State
	watermarks map[id.UserID]thread.Watermark
	// sent is each member's last message, as far back as the snapshot looked.
	sent map[id.UserID]sentAt
}

// sentAt is the place of a message.
type sentAt struct {
	position topic.Position
	ordinal  int64
}

// concerns tells whether a watermark that moved covers the message now, or more of those before it, and did not cover
// it before.
func (s sentAt) concerns(before, now thread.Watermark) bool {
	return now.DeliveredPosition > before.DeliveredPosition && s.position > before.DeliveredPosition ||
		now.ReadPosition > before.ReadPosition && s.position > before.ReadPosition ||
		now.DeliveredOrdinal > before.DeliveredOrdinal && s.ordinal > before.DeliveredOrdinal ||
		now.ReadOrdinal > before.ReadOrdinal && s.ordinal > before.ReadOrdinal
}

// last is the position of the last accepted event; -1: none.
func (s *threadState) last() topic.Position {
	if s.Kind == thread.None {
		return -1
	}
	return s.LastPosition
}

func newThreadState(t id.ThreadID) *threadState {
	return &threadState{
		State:      thread.New(t),
		watermarks: map[id.UserID]thread.Watermark{},
		sent:       map[id.UserID]sentAt{},
	}
}
