package session

import (
	"testing"

	"heliograph/schemas/topic"
)

// What acks told is bounded, and one more of a slot that is noted already takes nothing else away.
func TestAcksOfOneSlotDisplaceNoOther(t *testing.T) {
	s := &Session{}
	for k := range topic.Slot(maxAcked) {
		s.acknowledged(topic.Threads, k, 1)
	}
	for at := range topic.Position(maxAcked) {
		s.acknowledged(topic.Threads, 0, at+2)
	}
	if len(s.acked) != maxAcked {
		t.Errorf("%d slots are noted, want %d", len(s.acked), maxAcked)
	}
	s.acknowledged(topic.Threads, maxAcked, 1)
	if len(s.acked) != maxAcked {
		t.Errorf("%d slots are noted after one more, want %d", len(s.acked), maxAcked)
	}
}
