package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"heliograph/schemas/topic"
)

// Record is one event of the log with its place. Key and Value are shared with the fetch they came in: read only.
type Record struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	LogTime  time.Time
	Key      []byte
	Value    []byte
}

// Positions holds, by topic, a next position: everything before it has been taken in. A topic that is absent starts at
// its beginning.
type Positions map[topic.Topic]topic.Position

// Clone returns a copy that shares nothing.
func (p Positions) Clone() Positions {
	if p == nil {
		return Positions{}
	}
	return maps.Clone(p)
}

// Batch is what a Sink applies in one go: records of one slot, within each topic in the order of the log. Between
// topics their order means nothing.
type Batch struct {
	Slot    topic.Slot
	Records []Record
	From    Positions // the sink's next positions before this batch, for every topic that is read and has one
	To      Positions // the next positions after it
	Marks   Marks     // of the records before To, as far as they are known
}

// Sink is where a Consumer puts a slot's records. Calls for one slot come one at a time; calls for different slots come
// at the same time.
type Sink interface {
	// Open is called when the slot is taken over and after every failure; it returns the stored next positions. An
	// error is retried with backoff.
	Open(ctx context.Context, slot topic.Slot) (Positions, error)
	// Apply stores the batch's rows and its To positions together, by compare-and-set on From. A plain error is
	// transient: the same batch comes again after a backoff, so a failed Apply must leave nothing behind. ErrFenced
	// drops the slot and opens it anew; so does Permanent, without haste.
	Apply(ctx context.Context, b Batch) error
	// Close ends what Open began; with lost the slot may already be another's, so its state is dropped and nothing is
	// written.
	Close(slot topic.Slot, lost bool)
}

// Pender is a Sink that may have announced a batch and died before it could tell whether the batch was stored: after
// Open, Pending returns the To positions of that batch (empty: there is none), and the first Apply brings exactly the
// records from Open's positions up to them.
type Pender interface {
	Pending(ctx context.Context, slot topic.Slot) (Positions, error)
}

// Checker is a Sink whose store may forget what it has taken: a database that does not wait for the disk loses its last
// commits in a crash, rows and position together. Stored returns the stored next positions; the consumer asks from time
// to time, since the compare-and-set shows it only with the next record.
type Checker interface {
	Stored(ctx context.Context, slot topic.Slot) (Positions, error)
}

// ErrFenced is what Apply returns (wrapped or bare) when the stored position is not the batch's From: somebody else
// wrote.
var ErrFenced = errors.New("stored position was moved by another writer")

// ErrPositions is a stored position that the log cannot serve: below its base or its first record, or past its end. The
// slot stalls until an operator rebuilds the view or restores the log.
var ErrPositions = errors.New("stored position is not in the log")

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks an error that the same batch will meet again: Apply is not called with it again at once; the slot is
// closed and opened anew after the longest backoff, and Replay gives up.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err: err}
}

// IsPermanent tells whether err was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// Lag is how far a view is behind the log's end in one partition.
type Lag struct {
	Topic   topic.Topic
	Slot    topic.Slot
	Next    topic.Position // the view's
	End     topic.Position // the log's, when last asked
	Records int64          // End - Next; compaction may leave fewer to read
	Seconds float64        // the age of the oldest record that the view has not taken in; 0 when there is none
}

func (l Lag) String() string {
	return fmt.Sprintf("%s/%d: %d of %d, %d records and %.1f s behind",
		l.Topic, l.Slot, l.Next, l.End, l.Records, l.Seconds)
}
