package history

import (
	"context"
	"time"

	"heliograph/schemas/topic"
)

// Freshness is how far the history has got in a topic of a slot, in its latest generation: it has taken in everything
// before Next.
type Freshness struct {
	Topic topic.Topic
	Slot  topic.Slot
	Next  topic.Position
	Time  time.Time // the highest log time among the last events of what was taken in; the epoch: none
	Mark  topic.Mark
}

func (r *Freshness) scan(into func(...any) error) error {
	return scanTopic(into, &r.Topic, (*int32)(&r.Slot), (*int64)(&r.Next), &r.Time, (*key)(&r.Mark.Log), &r.Mark.Digest)
}

const (
	sqlGeneration = `SELECT max(generation) FROM positions`

	isDone = ` FROM positions WHERE state = 'done' AND generation = (` + sqlGeneration + `)`

	lastMark = `argMax(log_id, next), argMax(digest, next)`

	sqlFreshness = `SELECT topic, slot, max(next), max(log_time), ` + lastMark + isDone + `
 GROUP BY topic, slot ORDER BY topic, slot`

	sqlFreshnessOf = `SELECT toInt16(?), toInt32(?), max(next), max(log_time), ` + lastMark + isDone +
		` AND topic = ? AND slot = ?`

	sqlRanges = `SELECT topic, toString(state), from_position, next, log_id, digest FROM positions
 WHERE slot = ? AND generation = ?`

	sqlOwner  = `SELECT toInt32(?), max(epoch) FROM owners WHERE slot = ? AND generation = ?`
	sqlOwners = `SELECT slot, max(epoch) FROM owners WHERE generation = ? GROUP BY slot`
)

// Freshness returns how far the history has got, of every topic in every slot of which its latest generation has taken
// in anything, by topic and slot.
func (h *History) Freshness(ctx context.Context) ([]Freshness, error) {
	return all[Freshness](ctx, h, "freshness", sqlFreshness)
}

// FreshnessOf returns how far one topic of one slot has been taken in; Next is 0 where nothing has.
func (h *History) FreshnessOf(ctx context.Context, t topic.Topic, slot topic.Slot) (Freshness, error) {
	n, s := t.Number(), int32(slot)
	r, _, err := one[Freshness](ctx, h, "freshness", sqlFreshnessOf, n, s, n, s)
	return r, err
}

// Generation returns the latest generation that anything was taken in under, 0 before that.
func (h *History) Generation(ctx context.Context) (uint32, error) {
	r, _, err := one[generation](ctx, h, "generation", sqlGeneration)
	return uint32(r), err
}

type generation uint32

func (r *generation) scan(into func(...any) error) error { return into((*uint32)(r)) }

// The states of a Range, as they are stored.
const (
	Begun = "begun"
	Done  = "done"
)

// Range is a stretch of a topic, in a slot and a generation, that an insert was about to take in (Begun), or has
// (Done).
type Range struct {
	Topic      topic.Topic
	State      string
	From, Next topic.Position
	Mark       topic.Mark // of the record before Next
}

func (r *Range) scan(into func(...any) error) error {
	return scanTopic(
		into, &r.Topic, &r.State, (*int64)(&r.From), (*int64)(&r.Next), (*key)(&r.Mark.Log), &r.Mark.Digest,
	)
}

// Ranges returns the ranges of a slot in a generation. Of each topic and state the highest is among them, and others
// may be.
func (h *History) Ranges(ctx context.Context, slot topic.Slot, generation uint32) ([]Range, error) {
	return all[Range](ctx, h, "ranges", sqlRanges, int32(slot), generation)
}

// Owner says who writes a slot: the process that drew this epoch when it took the slot over.
type Owner struct {
	Slot  topic.Slot
	Epoch uint64
}

func (o *Owner) scan(into func(...any) error) error { return into((*int32)(&o.Slot), &o.Epoch) }

// Owner returns the epoch of a slot's owner in a generation, 0 when it never had one.
func (h *History) Owner(ctx context.Context, slot topic.Slot, generation uint32) (uint64, error) {
	o, _, err := one[Owner](ctx, h, "owner", sqlOwner, int32(slot), int32(slot), generation)
	return o.Epoch, err
}

// Owners returns the owners of all slots that have one in a generation.
func (h *History) Owners(ctx context.Context, generation uint32) ([]Owner, error) {
	return all[Owner](ctx, h, "owners", sqlOwners, generation)
}
