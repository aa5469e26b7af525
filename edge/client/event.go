package client

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Event is what Events yields: one of Message, ThreadEvent, Receipt, ThreadChanged, ThreadLate, Invitation, Sent,
// Rejected, Failed, Delayed, Connected, Synced, Disconnected, Unreadable.
type Event interface{ isEvent() }

// Place is where an event of a thread lies in the log.
type Place struct {
	Thread   id.ThreadID
	Position topic.Position
	// Ordinal is the message's number in its thread; for other events that of the last message before.
	Ordinal int64
	// Time is log time.
	Time time.Time
}

// Message is a message of a thread, somebody's or one's own.
type Message struct {
	Place
	ID     id.MessageID
	Sender id.UserID
	// Device it was sent from.
	Device id.DeviceID
	// Text is empty when the content is sealed.
	Text string
	// Reply is the message that it answers; zero: none. Clients before MessageRef gave its id alone.
	Reply event.MessageRef
	// Content as it stands in the log.
	Content *eventv1.Sealed
}

// ThreadEvent is any other event of a thread: members, title, roles, edits, and what this version cannot read, which
// has its place in the thread all the same and is shown as something unknown.
type ThreadEvent struct {
	Place
	// Event has no body when its type is that of a newer server or it cannot be decoded.
	Event *eventv1.Event
	// Raw is the event as it came, for a version that can read it.
	Raw []byte
	// Err is why it cannot be read; nil when it can, or when only its type is not known.
	Err error
}

// Unknown tells whether this version cannot say what happened.
func (e ThreadEvent) Unknown() bool {
	return e.Err != nil || e.Event.WhichBody() == eventv1.Event_Body_not_set_case
}

// Unreadable tells that the server sent something of which this version cannot even tell what it is about. The
// connection goes on.
type Unreadable struct {
	Frame []byte // as it came
	Err   error
}

// Receipt tells how far a member has got.
type Receipt struct {
	Thread    id.ThreadID
	User      id.UserID
	Watermark thread.Watermark
}

// ThreadChanged tells that a thread is new or changed while the device was away.
type ThreadChanged struct{ Summary *wirev1.ThreadSummary }

// ThreadLate tells that the edge cannot bring a thread up to date for now, or has done so: then its events are live. It
// has no error either when a thread that was parked takes messages again.
type ThreadLate struct {
	Thread id.ThreadID
	Err    error // why; nil: it is live
}

// Sent tells that the log has a message of the outbox.
type Sent struct {
	ID  id.MessageID
	Ack Ack
}

// Ack is the receipt for an append: where in the log the event lies.
type Ack struct {
	Thread id.ThreadID
	// Slot is -1 when the ack was lost and the message itself, coming back, told that the log has it.
	Slot     topic.Slot
	Position topic.Position
	Time     time.Time
}

// Rejected tells that a message that the log has was not accepted: the sender was no longer a member at its position.
type Rejected struct {
	Thread   id.ThreadID
	ID       id.MessageID
	Position topic.Position
	Code     wirev1.Code
	// Message as it was sent; Unsent has it until it is forgotten.
	Message Outgoing
}

// Failed tells that a message of the outbox was refused for good and has left the outbox.
type Failed struct {
	Thread id.ThreadID
	ID     id.MessageID
	Err    error
	// Message as it was to be sent; Unsent has it until it is forgotten, unless it was given up.
	Message Outgoing
}

// Delayed tells that a message of the outbox waits because its thread is parked (CODE_THREAD_PARKED), with all behind
// it in that thread. It is sent again by itself, at once when the thread goes on (ThreadLate without an error), and
// told each time that it is refused.
type Delayed struct {
	Thread id.ThreadID
	ID     id.MessageID
	Err    error
}

// Connected tells that the device is connected and authenticated; what it missed is on its way.
type Connected struct{ Edge string }

// Synced tells that everything missed has been yielded; from here on events are live. Rest is how many threads wait for
// SyncMore: Config.SyncWindow left them.
type Synced struct{ Rest int }

// Disconnected tells why a connection ended; the client connects again by itself unless Run has returned.
type Disconnected struct {
	// Err is a *wire.Error when the edge said why, and a *Fault when somebody has to mend something.
	Err error
	// Lasting: every address has a Fault.
	Lasting bool
}

func (Message) isEvent()       {}
func (ThreadEvent) isEvent()   {}
func (Receipt) isEvent()       {}
func (ThreadChanged) isEvent() {}
func (ThreadLate) isEvent()    {}
func (Sent) isEvent()          {}
func (Rejected) isEvent()      {}
func (Failed) isEvent()        {}
func (Delayed) isEvent()       {}
func (Connected) isEvent()     {}
func (Synced) isEvent()        {}
func (Disconnected) isEvent()  {}
func (Unreadable) isEvent()    {}

// decodeEvent reads an event of a thread. It fails only when the event has no place in a thread.
func decodeEvent(e *wirev1.Event) (Event, error) {
	t, err := id.From[id.ThreadID](e.GetThreadId())
	if err != nil {
		return nil, err
	}
	if e.GetPosition() < 0 {
		return nil, fmt.Errorf("an event of thread %s at %d", t, e.GetPosition())
	}
	place := Place{
		Thread:   t,
		Position: topic.Position(e.GetPosition()),
		Ordinal:  e.GetOrdinal(),
		Time:     time.UnixMilli(e.GetLogTimeMs()),
	}
	var ev eventv1.Event
	if err := proto.Unmarshal(e.GetEvent(), &ev); err != nil {
		unread := ThreadEvent{Place: place, Event: &eventv1.Event{}, Raw: e.GetEvent(), Err: err}
		return unread, nil //nolint:nilerr // it is told with the event
	}
	if ev.WhichBody() != eventv1.Event_MessageSent_case {
		return ThreadEvent{Place: place, Event: &ev, Raw: e.GetEvent()}, nil
	}
	read := event.Of(&ev)
	if read.About.IsZero() || read.User.IsZero() {
		return ThreadEvent{Place: place, Event: &ev, Raw: e.GetEvent(), Err: errNameless}, nil
	}
	return Message{
		Place: place, ID: read.About.ID, Sender: read.User, Device: read.Device, Reply: read.Reply,
		Content: ev.GetMessageSent().GetContent(), Text: read.Content.Text,
	}, nil
}

// errNameless is a message that nothing can refer to.
var errNameless = errors.New("the message has no sender or id")

func placeOf(e Event) (Place, bool) {
	switch e := e.(type) {
	case Message:
		return e.Place, true
	case ThreadEvent:
		return e.Place, true
	}
	return Place{}, false
}
