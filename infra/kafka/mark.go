package kafka

import (
	"context"
	"fmt"
	"maps"

	"heliograph/schemas/topic"
)

// Marks holds, by topic, the mark of the record before a next position.
type Marks map[topic.Topic]topic.Mark

// Clone returns a copy that shares nothing.
func (m Marks) Clone() Marks {
	if m == nil {
		return Marks{}
	}
	return maps.Clone(m)
}

// Marker is a Sink whose store keeps, with each next position, the mark of the record before it: Batch.Marks, which
// Apply stores with Batch.To. Marks is asked after Open and returns those that go with Open's positions; a topic that
// is absent has none. A log that does not agree with them stalls the slot (*LogError).
type Marker interface {
	Marks(ctx context.Context, slot topic.Slot) (Marks, error)
}

// Fault is what is wrong with a log that a view has read.
type Fault string

// The faults.
const (
	// FaultSetBack: the log ends before the view's next position.
	FaultSetBack Fault = "set back"
	// FaultReplaced: the topic was made anew under its old name.
	FaultReplaced Fault = "made anew"
	// FaultChanged: the record before the view's next position is another than the view has read.
	FaultChanged Fault = "changed"
	// FaultGivenUp: the view has read what an operator has given up since, when he adopted the log as it is.
	FaultGivenUp Fault = "adopted without what was read"
	// FaultCut: the head of a topic that is kept for ever is gone.
	FaultCut Fault = "cut at its head"
)

// LogError says that a partition of the log is not the one that a view has read. It is an ErrPositions: the slot stalls
// until an operator has decided.
type LogError struct {
	Topic topic.Topic
	Slot  topic.Slot
	Fault Fault
	Next  topic.Position // the view's
	// At is where the log ends (FaultSetBack) or begins (FaultCut).
	At topic.Position
}

// Error is one line that names the command which leads out.
func (e *LogError) Error() string {
	what := fmt.Sprintf("the log of %s/%d was %s", e.Topic, e.Slot, e.Fault)
	switch e.Fault {
	case FaultSetBack:
		what += fmt.Sprintf(": it ends at %d, and was read up to %d", e.At, e.Next)
	case FaultCut:
		what += fmt.Sprintf(": it begins at %d", e.At)
	case FaultChanged:
		what += fmt.Sprintf(": the record before %d is not the one that was read there", e.Next)
	case FaultReplaced:
		what += fmt.Sprintf(": it is not the topic that was read up to %d", e.Next)
	}
	if e.Fault == FaultGivenUp {
		return what + fmt.Sprintf(" up to %d; rebuild this view: 'helio replay --help' says how", e.Next)
	}
	return what + "; 'helio log check' shows all that is wrong, 'helio log adopt' makes what is there the log"
}

// Is makes it an ErrPositions.
func (e *LogError) Is(target error) bool { return target == ErrPositions }
