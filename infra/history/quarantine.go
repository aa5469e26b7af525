package history

import (
	"context"
	"time"

	"heliograph/schemas/topic"
)

// Quarantined is an event that could not be applied, or that stands behind such a one of its subject.
type Quarantined struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	Subject  topic.Subject // all zero: the event's key is none
	Reason   string        // "parked" for those behind the first
	Time     time.Time
}

func (r *Quarantined) scan(into func(...any) error) error {
	return scanTopic(
		into, &r.Topic, (*int32)(&r.Slot), (*int64)(&r.Position), (*key)(&r.Subject), &r.Reason, &r.Time,
	)
}

// Held is a subject of which something is in quarantine, in a topic, from position First.
type Held struct {
	Topic   topic.Topic
	Subject topic.Subject
	First   topic.Position
}

func (r *Held) scan(into func(...any) error) error {
	return scanTopic(into, &r.Topic, (*key)(&r.Subject), (*int64)(&r.First))
}

const (
	sqlQuarantine = sqlQuarantineColumns + ` FINAL`

	sqlQuarantineAt = sqlQuarantine + ` WHERE topic = ? AND slot = ? AND position = ?`

	sqlQuarantinePage = sqlQuarantine + `
 WHERE (topic, slot, position) > (?, ?, ?) ORDER BY topic, slot, position LIMIT ?`

	sqlHeld = `
SELECT topic, subject, min(position) FROM quarantine WHERE slot = ? AND subject != toUUID(?) GROUP BY topic, subject`
)

// Held returns the subjects of a slot that are held in quarantine. An event without a subject holds nothing.
func (h *History) Held(ctx context.Context, slot topic.Slot) ([]Held, error) {
	return all[Held](ctx, h, "quarantine", sqlHeld, int32(slot), canonical(topic.Subject{}))
}

// QuarantinedAt returns what is in quarantine at a position.
func (h *History) QuarantinedAt(
	ctx context.Context, t topic.Topic, slot topic.Slot, at topic.Position,
) (Quarantined, bool, error) {
	return one[Quarantined](ctx, h, "quarantine", sqlQuarantineAt, t.Number(), int32(slot), int64(at))
}

// Quarantine returns what is in quarantine by topic, slot and position, the first limit behind after; the zero value
// begins at the beginning.
func (h *History) Quarantine(ctx context.Context, after Quarantined, limit int) ([]Quarantined, error) {
	return all[Quarantined](
		ctx, h, "quarantine", sqlQuarantinePage, after.Topic.Number(), int32(after.Slot), int64(after.Position), limit,
	)
}
