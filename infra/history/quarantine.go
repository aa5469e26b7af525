package history

import (
	"context"
	"time"

	"github.com/google/uuid"

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

// HeldRange is what a subject has in quarantine in a topic, positions First to Last.
type HeldRange struct {
	Topic       topic.Topic
	Subject     topic.Subject // all zero: of events whose key is none, which hold nothing
	First, Last topic.Position
	Reason      string // of the first
}

func (r *HeldRange) scan(into func(...any) error) error {
	return scanTopic(into, &r.Topic, (*key)(&r.Subject), (*int64)(&r.First), (*int64)(&r.Last), &r.Reason)
}

// Stopped is a subject that stands still on a topic since an event that could not be applied; of an event without a
// subject, that event alone.
type Stopped struct {
	Quarantined // the first
	Last        topic.Position
	Events      uint64 // with the first
}

func (r *Stopped) scan(into func(...any) error) error {
	return scanTopic(
		into, &r.Topic, (*int32)(&r.Slot), (*int64)(&r.Position), (*key)(&r.Subject), &r.Reason, &r.Time,
		(*int64)(&r.Last), &r.Events,
	)
}

const (
	sqlStopped = `
SELECT topic, slot, min(position) AS first, subject, argMin(reason, position), argMin(log_time, position),
       max(position), count()
  FROM quarantine FINAL WHERE NOT released AND (NOT ? OR subject = ?)
 GROUP BY topic, slot, subject, if(subject = ?, position, -1) ORDER BY topic, slot, first`

	// The row that was written last counts, and one that says "released" is none.
	sqlQuarantine = `
SELECT topic, slot, position, subject, reason, log_time FROM quarantine FINAL WHERE NOT released`

	sqlQuarantineAt = sqlQuarantine + ` AND topic = ? AND slot = ? AND position = ?`

	sqlQuarantinePage = sqlQuarantine + `
   AND (topic, slot, position) > (?, ?, ?) ORDER BY topic, slot, position LIMIT ?`

	sqlQuarantineBetween = sqlQuarantine + `
   AND topic = ? AND slot = ? AND position >= ? AND position < ? ORDER BY position LIMIT ?`

	sqlHeld = `
SELECT topic, subject, min(position), max(position), argMin(reason, position)
  FROM quarantine FINAL WHERE NOT released AND slot = ? GROUP BY topic, subject`
)

// Held returns which subjects of a slot are held in quarantine, and what of. Of a range that is begun and not done what
// was there before may be among it.
func (h *History) Held(ctx context.Context, slot topic.Slot) ([]HeldRange, error) {
	return all[HeldRange](ctx, h, "quarantine", sqlHeld, int32(slot))
}

// Stopped returns the subjects that stand still, or what one of them stands still for, by topic, slot and position.
func (h *History) Stopped(ctx context.Context, subject *topic.Subject) ([]Stopped, error) {
	var only topic.Subject
	if subject != nil {
		only = *subject
	}
	return all[Stopped](
		ctx, h, "quarantine", sqlStopped, subject != nil, uuid.UUID(only), uuid.UUID{},
	)
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

// QuarantineBetween returns what a topic of a slot has in quarantine at positions from <= p < to, in order, the first
// limit.
func (h *History) QuarantineBetween(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position, limit int,
) ([]Quarantined, error) {
	return all[Quarantined](
		ctx, h, "quarantine", sqlQuarantineBetween, t.Number(), int32(slot), int64(from), int64(to), limit,
	)
}
