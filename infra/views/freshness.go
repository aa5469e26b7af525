package views

import (
	"context"
	"time"

	"heliograph/schemas/topic"
)

// Freshness is how far the views have got in a topic of a slot: they have taken in everything before Next.
type Freshness struct {
	Topic topic.Topic
	Slot  topic.Slot
	Next  topic.Position
	Time  time.Time // the highest log time among what was taken in; the epoch: none
	Mark  topic.Mark
}

func (r *Freshness) targets() []any {
	return []any{
		(*topicName)(&r.Topic), (*int32)(&r.Slot), (*int64)(&r.Next), &r.Time,
		(*nullable)(&r.Mark.Log), (*bits)(&r.Mark.Digest),
	}
}

const (
	columnsFreshness = `topic, slot, next, log_time, CASE WHEN marked = next THEN log_id END,
 CASE WHEN marked = next THEN digest END`

	sqlFreshness = `SELECT ` + columnsFreshness + ` FROM positions`

	sqlFreshnessBySlot = sqlFreshness + ` WHERE slot = $1`

	sqlFreshnessOf = sqlFreshness + ` WHERE topic = $1 AND slot = ANY($2)`
)

// Freshness asks how far the views have got, of every topic in every slot of which they have taken in anything.
func (q *Questions) Freshness(fn func(*Freshness) error) { put(q, "freshness", sqlFreshness, fn) }

// FreshnessOfSlot asks how far each topic of one slot has been taken in.
func (q *Questions) FreshnessOfSlot(slot topic.Slot, fn func(*Freshness) error) {
	put(q, "freshness", sqlFreshnessBySlot, fn, int32(slot))
}

// FreshnessOf asks how far one topic has been taken in, in slots that may be named more than once.
func (q *Questions) FreshnessOf(t topic.Topic, slots []topic.Slot, fn func(*Freshness) error) {
	put(q, "freshness", sqlFreshnessOf, fn, int16(t.Number()), slotNumbers(slots))
}

// Freshness returns how far the views have got, of every topic in every slot of which they have taken in anything.
func (v *Views) Freshness(ctx context.Context) ([]Freshness, error) {
	return all[Freshness](ctx, v, "freshness", sqlFreshness)
}

// FreshnessOf returns how far one topic of one slot has been taken in; Next is 0 where nothing has.
func (v *Views) FreshnessOf(ctx context.Context, t topic.Topic, slot topic.Slot) (Freshness, error) {
	r, ok, err := one[Freshness](
		ctx, v, "freshness", sqlFreshnessOf, int16(t.Number()), slotNumbers([]topic.Slot{slot}),
	)
	if !ok {
		r = Freshness{Topic: t, Slot: slot, Time: time.Unix(0, 0).UTC()}
	}
	return r, err
}

func slotNumbers(slots []topic.Slot) []int32 {
	out := make([]int32, len(slots))
	for i, s := range slots {
		out[i] = int32(s)
	}
	return out
}
