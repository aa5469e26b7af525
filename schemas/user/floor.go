package user

import (
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// Floor is what a device is shown nothing from before: what the user's threads held then is on the device that he had,
// and may be another person's, who had the number before. The zero Floor hides nothing. It is not changed.
type Floor struct {
	// MS is a log time in Unix milliseconds: of devices that registered before rules 3.
	MS int64
	// Next is a position of helio.threads by slot; a slot that is not in it has none. Nil: MS counts.
	Next map[topic.Slot]topic.Position
}

// In returns what is shown of threads of a slot: what is not before a position, nor before a log time.
func (f Floor) In(s topic.Slot) (from topic.Position, ms int64) {
	if f.Next != nil {
		return f.Next[s], 0
	}
	return 0, f.MS
}

// Floor is what the device is shown nothing from before. A linked device has that of the one that approved it.
func (d *Device) Floor() Floor {
	if d.ShownFrom != nil {
		return Floor{Next: d.ShownFrom}
	}
	return Floor{MS: d.SinceMS}
}

// ShownFrom makes of ends of slots what UserRegistered says.
func ShownFrom(ends map[topic.Slot]topic.Position) *eventv1.ShownFrom {
	out := make([]*eventv1.SlotEnd, 0, len(ends))
	for _, s := range sortedSlots(ends) {
		out = append(out, eventv1.SlotEnd_builder{Slot: uint32(s), Next: int64(ends[s])}.Build())
	}
	return eventv1.ShownFrom_builder{Slots: out}.Build()
}

// shownFrom reads what Check has let through; nil: it says nothing.
func shownFrom(rules uint32, r *eventv1.UserRegistered) map[topic.Slot]topic.Position {
	if rules < positionalRules || !r.HasShownFrom() {
		return nil
	}
	out := make(map[topic.Slot]topic.Position, len(r.GetShownFrom().GetSlots()))
	for _, e := range r.GetShownFrom().GetSlots() {
		out[topic.Slot(e.GetSlot())] = topic.Position(e.GetNext())
	}
	return out
}

// positionalRules are the first by which what a device is shown begins at positions.
const positionalRules = 3

func checkShownFrom(rules uint32, f *eventv1.ShownFrom) error {
	if rules < positionalRules {
		return nil
	}
	last := int64(-1)
	for _, e := range f.GetSlots() {
		if s := int64(e.GetSlot()); s <= last || s >= topic.MaxPartitions || e.GetNext() < 0 {
			return event.Invalidf("shown_from", "is not a list of slots, in order, and positions")
		}
		last = int64(e.GetSlot())
	}
	return nil
}
