package views

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"heliograph/schemas/id"
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

func (r *Quarantined) targets() []any {
	return []any{
		(*topicName)(&r.Topic), (*int32)(&r.Slot), (*int64)(&r.Position), (*key)(&r.Subject), &r.Reason, &r.Time,
	}
}

// Held is a subject of which something is in quarantine, in a topic.
type Held struct {
	Topic   topic.Topic
	Subject topic.Subject
}

func (r *Held) targets() []any { return []any{(*topicName)(&r.Topic), (*key)(&r.Subject)} }

// HeldRange is what a subject has in quarantine in a topic.
type HeldRange struct {
	Held
	First, Last topic.Position
	Reason      string // of the first
}

func (r *HeldRange) targets() []any {
	return append(r.Held.targets(), (*int64)(&r.First), (*int64)(&r.Last), &r.Reason)
}

// Stopped is a subject that stands still on a topic since an event that could not be applied; of an event without a
// subject, that event alone.
type Stopped struct {
	Quarantined // the first
	Last        topic.Position
	Events      int64 // with the first
}

func (r *Stopped) targets() []any {
	return append(r.Quarantined.targets(), (*int64)(&r.Last), &r.Events)
}

const (
	sqlStopped = `
SELECT q.topic, q.slot, q.position, q.subject, q.reason, q.log_time, h.last, h.events
  FROM (
       SELECT topic, slot, min(position) AS position, max(position) AS last, count(*) AS events FROM quarantine
        WHERE $1::uuid IS NULL OR subject = $1
        GROUP BY topic, slot, subject, CASE WHEN subject = $2 THEN position END
       ) h
  JOIN quarantine q USING (topic, slot, position)
 ORDER BY q.topic, q.slot, q.position`

	sqlQuarantine = `SELECT topic, slot, position, subject, reason, log_time FROM quarantine`

	sqlQuarantineAt = sqlQuarantine + ` WHERE topic = $1 AND slot = $2 AND position = $3`

	sqlQuarantinePage = sqlQuarantine + `
 WHERE (topic, slot, position) > ($1, $2, $3) ORDER BY topic, slot, position LIMIT $4`

	sqlHeldOf = `SELECT DISTINCT topic, subject FROM quarantine WHERE subject = ANY($1::uuid[])`

	sqlQuarantineBetween = sqlQuarantine + `
 WHERE topic = $1 AND slot = $2 AND position >= $3 AND position < $4 ORDER BY position LIMIT $5`

	sqlHeldInSlot = `
SELECT h.topic, h.subject, h.first, h.last, r.reason
  FROM (
       SELECT topic, subject, min(position) AS first, max(position) AS last FROM quarantine
        WHERE slot = $1 AND subject <> $2 GROUP BY topic, subject
       ) h
 CROSS JOIN LATERAL (
       SELECT reason FROM quarantine WHERE topic = h.topic AND slot = $1 AND position = h.first OFFSET 0
       ) r`
)

// Held asks which of the threads and users are held in quarantine, and in which topics.
func (q *Questions) Held(threads []id.ThreadID, users []id.UserID, fn func(*Held) error) {
	put(q, "quarantine", sqlHeldOf, fn, append(uuids(threads), uuids(users)...))
}

// HeldInSlot asks which subjects of a slot are held in quarantine, and what of. An event without a subject holds
// nothing.
func (q *Questions) HeldInSlot(slot topic.Slot, fn func(*HeldRange) error) {
	put(q, "quarantine", sqlHeldInSlot, fn, int32(slot), uuid(topic.Subject{}))
}

// Stopped returns the subjects that stand still, or what one of them stands still for, by topic, slot and position.
func (v *Views) Stopped(ctx context.Context, subject *topic.Subject) ([]Stopped, error) {
	var only pgtype.UUID
	if subject != nil {
		only = uuid(*subject)
	}
	return all[Stopped](ctx, v, "quarantine", sqlStopped, only, uuid(topic.Subject{}))
}

// QuarantinedAt returns what is in quarantine at a position.
func (v *Views) QuarantinedAt(
	ctx context.Context, t topic.Topic, slot topic.Slot, at topic.Position,
) (Quarantined, bool, error) {
	return one[Quarantined](ctx, v, "quarantine", sqlQuarantineAt, int16(t.Number()), int32(slot), int64(at))
}

// Quarantine returns what is in quarantine by topic, slot and position, the first limit behind after; the zero value
// begins at the beginning.
func (v *Views) Quarantine(ctx context.Context, after Quarantined, limit int) ([]Quarantined, error) {
	return all[Quarantined](
		ctx, v, "quarantine", sqlQuarantinePage, int16(after.Topic.Number()), int32(after.Slot), int64(after.Position),
		limit,
	)
}

// QuarantineBetween returns what a topic of a slot has in quarantine at positions from <= p < to, in order, the first
// limit.
func (v *Views) QuarantineBetween(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position, limit int,
) ([]Quarantined, error) {
	return all[Quarantined](
		ctx, v, "quarantine", sqlQuarantineBetween, int16(t.Number()), int32(slot), int64(from), int64(to), limit,
	)
}
