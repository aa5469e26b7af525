package projector

import (
	"context"

	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Store is where a view keeps its rows: it loads and writes, and the rest is the Sink's. R is what the view makes of a
// batch. Calls for one slot come one at a time, calls for different slots at the same time.
type Store[R Rows] interface {
	// Read returns what is stored about a slot.
	Read(ctx context.Context, slot topic.Slot) (Stored, error)
	// Load adds to the states those that are wanted.
	Load(ctx context.Context, states *States, w Wanted) error
	// Rows returns empty rows for a batch of a slot, which is folded into the states.
	Rows(slot topic.Slot, states *States) R
	// Write stores a folded batch: rows, quarantine and positions, all or nothing in effect.
	Write(ctx context.Context, f *Folded[R]) error
	// Classify tells the consumer loop what kind of error Load or Write has returned: fenced, transient or permanent.
	Classify(err error) error
}

// Rows take in the events of a batch that have an effect.
type Rows interface {
	// Thread is called for an accepted event of a thread, after it was folded.
	Thread(e *Event, s *thread.State, v thread.Verdict)
	// Rejected is called for a message that was not accepted and of which its sender is told later.
	Rejected(e *Event, v thread.Verdict)
	// Receipt is called for a watermark.
	Receipt(e *Event, u id.UserID, mark thread.Watermark)
	// User is called for an accepted event of a user, after it was folded.
	User(e *Event, s *user.State, v user.Verdict)
}

// Stored is what a store knows about a slot.
type Stored struct {
	Next kafka.Positions
	// Marks are those of the records before Next, as far as they are known.
	Marks kafka.Marks
	// Pending is the end of a batch that was begun at Next and may not be whole; empty: there is none.
	Pending kafka.Positions
	Latest  map[topic.Topic]int64 // the highest log times, Unix milliseconds
	Held    []HeldRange
}

// HeldRange is what a subject has in quarantine on a topic, of what lies before the next position.
type HeldRange struct {
	Held
	First, Last topic.Position
	Reason      string // of the first
}

// States are the fold states of the subjects that a batch is about.
type States struct {
	Threads map[id.ThreadID]*thread.State
	Users   map[id.UserID]*user.State
}

// Wanted are the states that a batch needs and that are in no cache, as of From.
type Wanted struct {
	Slot topic.Slot
	From kafka.Positions
	// Since is set when quarantine is drained: what each subject is wanted as of, instead of From. Everything that the
	// store holds of a subject lies before it, save what a drain has left that was cut off.
	Since   map[topic.Subject]topic.Position
	Threads []id.ThreadID
	Users   []id.UserID
	// Events are those of the batch. They may repeat messages that a state, cached or not, does not remember.
	Events []Event
}

// AsOf is the position as of which a subject is wanted.
func (w *Wanted) AsOf(t topic.Topic, subject topic.Subject) topic.Position {
	if at, ok := w.Since[subject]; ok {
		return at
	}
	return w.From[t]
}

// Folded is a batch, ready to be written.
type Folded[R Rows] struct {
	Batch       kafka.Batch
	LogTimes    map[topic.Topic]int64 // the highest of the batch, Unix milliseconds
	States      *States
	Rows        R
	Quarantined []Quarantined
}

// Drainer is a Store from which a Sink can take what it holds in quarantine for a newer version.
type Drainer[R Rows] interface {
	// Quarantined returns what a topic of a slot has in quarantine at positions from <= p < to, in order, the first
	// limit.
	Quarantined(
		ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position, limit int,
	) ([]Quarantined, error)
	// Drain stores what was drained so that it lasts: rows and quarantine, all or nothing in effect. It stores nothing
	// and says so by an error that Classify tells as fenced when it can see that another has written meanwhile.
	Drain(ctx context.Context, d *Drained[R]) error
}

// Drained is a part of a topic's quarantine, folded.
type Drained[R Rows] struct {
	Topic  topic.Topic
	Slot   topic.Slot
	Next   topic.Position // the topic's next position, which has not moved
	States *States
	Rows   R
	// Seen are the positions in quarantine that this goes by.
	Seen []topic.Position
	// Released are those of them that are in quarantine no more.
	Released []Quarantined
	// Kept are in quarantine for another reason than before.
	Kept []Quarantined
}
