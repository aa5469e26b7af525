package replica

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Store is the questions that a replica asks of the thread views. Answers are in the order of the keys.
type Store interface {
	// Positions returns how far each slot is in the views; it has one entry per slot.
	Positions(ctx context.Context) ([]topic.Cursor, error)
	// Snapshot returns the states of threads and users as of one moment.
	Snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*Snapshot, error)
	// Delivered returns the delivered watermark of each device in each thread, -1 where there is none.
	Delivered(ctx context.Context, keys []DeviceThread) ([]topic.Position, error)
	// Unread counts unread messages.
	Unread(ctx context.Context, keys []Unread) ([]Counted, error)
	// Tails returns for each range its accepted events in order, and how far the views were at that moment.
	Tails(ctx context.Context, ranges []Range) ([]Tail, error)
	// Sent looks for messages among what the views have of their threads, as of one moment.
	Sent(ctx context.Context, keys []MessageKey) ([]Sought, error)
	// Quarantine tells, as of one moment, of which of the subjects something is in quarantine, and how far the slots of
	// all of them are.
	Quarantine(
		ctx context.Context, threads []id.ThreadID, users []id.UserID,
	) (map[Quarantined]bool, map[topic.Slot]topic.Cursor, error)
	// Rejected returns what was rejected of what each device has sent, oldest first in each thread.
	Rejected(ctx context.Context, keys []DeviceKey) ([][]Rejected, error)
	// Devices returns devices, nil where there is none.
	Devices(ctx context.Context, keys []DeviceKey) ([]*user.Device, error)
}

// DeviceThread names a device in a thread.
type DeviceThread struct {
	User   id.UserID // a device id is only his word: another user may claim it too
	Device id.DeviceID
	Thread id.ThreadID
}

// Unread asks how many of the messages that a user has not read are somebody else's, on a device that is shown nothing
// from before FloorMS and From.
type Unread struct {
	User   id.UserID
	Thread id.ThreadID
	thread.Unread
	First   topic.Position // of the event that made him a member first
	FloorMS int64
	From    topic.Position
}

// Counted is the answer to Unread. Past: what the user may see of the thread begins before what the device is shown.
type Counted struct {
	Messages int64
	Past     bool
}

// DeviceKey names a device.
type DeviceKey struct {
	User   id.UserID
	Device id.DeviceID
}

// Range asks for the events at positions After < p <= UpTo with a log time of at least FloorMS: the first Limit of
// them, and none after the one with which they have Bytes bytes.
type Range struct {
	Thread      id.ThreadID
	After, UpTo topic.Position
	FloorMS     int64
	Limit       int
	Bytes       int
}

// Tail is the answer to a Range, as of one moment of the views.
type Tail struct {
	Rows []Row
	Next topic.Position // how far the thread's slot was: with Next <= UpTo, the range may lack its end
	// Trimmed is the last position that was trimmed from the thread's tail, -1: none, and TrimmedMS the latest log
	// time: up to both, the range may lack anything.
	Trimmed   topic.Position
	TrimmedMS int64
}

// Row is an accepted event as the views keep it.
type Row struct {
	Position  topic.Position
	Ordinal   int64
	LogTimeMS int64
	Event     []byte
}

// Snapshot is the state of subjects at one moment of the views. A subject that the views do not have is not in the
// maps.
type Snapshot struct {
	At          []topic.Cursor // by slot
	Threads     map[id.ThreadID]*ThreadState
	Users       map[id.UserID]*user.State
	Quarantined map[Quarantined]bool
}

// Quarantined names a subject of which something is in quarantine in a topic.
type Quarantined struct {
	Topic   int32 // number
	Subject topic.Subject
}

// ThreadState is what a replica knows of a thread: the fold's state, and what receipts need.
type ThreadState struct {
	*thread.State
	Marks map[id.UserID]thread.Watermark
	// Sent is each member's last message, as far back as the snapshot looked.
	Sent map[id.UserID]Sent
	// LacksMS is the log time up to which Recent may lack messages; 0: it has them all. LoadedAt is the position up to
	// which it was loaded: those lie before it.
	LacksMS  int64
	LoadedAt topic.Position
}

// Sent is the place of a message.
type Sent struct {
	Position topic.Position
	Ordinal  int64
}

// NewThreadState returns the state of a thread that no event has begun.
func NewThreadState(t id.ThreadID) *ThreadState {
	return &ThreadState{
		State: thread.New(t),
		Marks: map[id.UserID]thread.Watermark{},
		Sent:  map[id.UserID]Sent{},
	}
}

// restore makes a state that was loaded fit to be folded on, from the position that the views had reached.
func (s *ThreadState) restore(next topic.Position) {
	s.Next, s.LoadedAt = next, next
	if s.LacksMS == 0 {
		s.Restore()
		return
	}
	s.RestorePartly(s.LacksMS)
}

// concerns tells whether a watermark that moved covers the message now, or more of those before it, and did not cover
// it before.
func (s Sent) concerns(before, now thread.Watermark) bool {
	return now.DeliveredPosition > before.DeliveredPosition && s.Position > before.DeliveredPosition ||
		now.ReadPosition > before.ReadPosition && s.Position > before.ReadPosition ||
		now.DeliveredOrdinal > before.DeliveredOrdinal && s.Ordinal > before.DeliveredOrdinal ||
		now.ReadOrdinal > before.ReadOrdinal && s.Ordinal > before.ReadOrdinal
}

// last is the position of the last accepted event; -1: none.
func (s *ThreadState) last() topic.Position {
	if s.Kind == thread.None {
		return -1
	}
	return s.LastPosition
}

// slimUser is the state of a user as far as an edge needs it: without contacts and blocks; what is kept of him has no
// titles of threads into which he is invited either.
func slimUser(u id.UserID) *user.State {
	s := user.New(u)
	s.Contacts, s.Blocked = nil, nil
	return s
}
