package event

import (
	"slices"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// MaxNote bounds QuarantineReleased.note, in bytes.
const MaxNote = 1024

// CheckReleased judges what a release from quarantine says, as every fold does: what fails here releases nothing. The
// note is for people, and not judged.
func CheckReleased(m *eventv1.QuarantineReleased) error {
	t, err := topic.FromNumber(m.GetTopic())
	switch {
	case err != nil || !slices.Contains(topic.Folded, t):
		return Invalidf("topic", "%d is not folded", m.GetTopic())
	case m.GetSlot() < 0 || m.GetSlot() >= topic.MaxPartitions:
		return Invalidf("slot", "%d is none", m.GetSlot())
	case m.GetPosition() < 0:
		return Invalidf("position", "%d is negative", m.GetPosition())
	}
	switch m.GetRelease() {
	case eventv1.Release_RELEASE_RETRIED, eventv1.Release_RELEASE_DROPPED:
		return nil
	}
	return Invalidf("release", "%d is none", m.GetRelease())
}
