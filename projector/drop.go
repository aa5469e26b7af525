package projector

import (
	"context"

	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// drop takes out of quarantine what operators have dropped of it, and tells whether anything was written. What was
// parked behind it has nothing before it then, and is drained like what a drain has left that was cut off. The rows are
// those of a fold that never saw the event: the log brings it without a value from now on.
func (s *Sink[R]) drop(ctx context.Context, slot topic.Slot, stored Stored) (dropped bool, err error) {
	store, ok := s.store.(Drainer[R])
	if !ok {
		return false, nil
	}
	s.mu.Lock()
	releases := s.releases[slot]
	s.mu.Unlock()
	held := make(map[Held]HeldRange, len(stored.Held))
	for _, h := range stored.Held {
		held[h.Held] = h
	}
	for _, t := range topic.Folded {
		var gone []Quarantined
		for _, r := range releases.Dropped(t) {
			h, in := held[Held{t, r.Subject}]
			in = in && h.First <= r.Position && r.Position <= h.Last
			if !in && r.Subject != (topic.Subject{}) || r.Position >= stored.Next[t] {
				continue
			}
			rows, err := store.Quarantined(ctx, t, slot, r.Position, r.Position+1, 1)
			if err != nil {
				return dropped, s.store.Classify(err)
			}
			if len(rows) > 0 && rows[0].Subject == r.Subject {
				gone = append(gone, rows[0])
			}
		}
		if len(gone) == 0 {
			continue
		}
		none := noStates()
		d := &Drained[R]{
			Topic: t, Slot: slot, Next: stored.Next[t], States: none, Rows: s.store.Rows(slot, none), Released: gone,
		}
		for _, q := range gone {
			d.Seen = append(d.Seen, q.Position)
		}
		if err := store.Drain(ctx, d); err != nil {
			return dropped, s.store.Classify(err)
		}
		dropped = true
		s.metrics.dropped.WithLabelValues(string(t)).Add(float64(len(gone)))
		for _, q := range gone {
			s.log.Warn("an event was taken out of quarantine and is passed over, as an operator has decided",
				"topic", t, "slot", slot, "position", q.Position, "subject", id.ThreadID(q.Subject),
				"reason", q.Reason)
		}
	}
	return dropped, nil
}

// askedAgain tells where the decision lies that a subject is to be tried again whose first event in quarantine is at a
// position, if it was not tried by that one here; -1: there is none.
func (s *Sink[R]) askedAgain(releases kafka.Releases, h HeldRange) int64 {
	r, ok := releases.Retried(h.Topic, h.Subject, h.First)
	if !ok {
		return -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if done, ok := s.retried[h.Held]; ok && done >= r.At {
		return -1
	}
	return r.At
}

func noStates() *States {
	return &States{Threads: map[id.ThreadID]*thread.State{}, Users: map[id.UserID]*user.State{}}
}
