package history

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Read takes a slot over and reads its positions: the highest done, and the highest that was begun from there; and
// which subjects are held by what lies before them.
func (s *store) Read(ctx context.Context, slot topic.Slot) (projector.Stored, error) {
	out := projector.Stored{Next: kafka.Positions{}, Marks: kafka.Marks{}, Pending: kafka.Positions{}}
	if err := s.claim(ctx, slot); err != nil {
		return out, err
	}
	if err := s.readPositions(ctx, slot, &out); err != nil {
		return out, err
	}
	if len(out.Pending) > 0 {
		s.metrics.repeated.Inc()
	}
	return out, s.readHeld(ctx, slot, &out)
}

func (s *store) readPositions(ctx context.Context, slot topic.Slot, out *projector.Stored) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	if err := CheckGeneration(ctx, s.conn, s.cfg.Generation); err != nil {
		return err
	}
	ranges, err := s.history.Ranges(ctx, slot, s.cfg.Generation)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		if r.Topic == "" {
			return errLater
		}
		if r.State == history.Done {
			if r.Next < out.Next[r.Topic] {
				continue
			}
			out.Next[r.Topic] = r.Next
			delete(out.Marks, r.Topic)
			if r.Mark.Digest != 0 {
				out.Marks[r.Topic] = r.Mark
			}
		}
	}
	for _, r := range ranges {
		if r.State != history.Done && r.From == out.Next[r.Topic] && r.Next > r.From {
			out.Pending[r.Topic] = max(out.Pending[r.Topic], r.Next)
		}
	}
	return nil
}

// errLater refuses what a version that knows more topics has written.
var errLater = errors.New("a topic of a later version")

func (s *store) readHeld(ctx context.Context, slot topic.Slot, out *projector.Stored) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	found, err := s.history.Held(ctx, slot)
	if err != nil {
		return err
	}
	ahead := kafka.Positions{}
	for _, h := range found {
		if h.Topic == "" {
			return errLater
		}
		next := out.Next[h.Topic]
		if h.Last >= next {
			ahead[h.Topic] = max(ahead[h.Topic], h.Last+1)
		}
		if h.Subject != (topic.Subject{}) && h.First < next {
			out.Held = append(out.Held, projector.HeldRange{
				Held: projector.Held{Topic: h.Topic, Subject: h.Subject}, First: h.First, Last: min(h.Last, next-1),
				Reason: h.Reason,
			})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead[slot] = ahead
	return nil
}

// Load brings the wanted thread states from the tables, as of the batch's first position or each as of its own.
func (s *store) Load(ctx context.Context, states *projector.States, w projector.Wanted) error {
	from, atOnce := history.Before{All: w.From[topic.Threads]}, history.AtOnce
	for t, at := range w.Since {
		if from.Each == nil {
			from.Each, atOnce = make(map[id.ThreadID]topic.Position, len(w.Since)), history.EachAtOnce
		}
		from.Each[id.ThreadID(t)] = at
	}
	for _, t := range w.Threads {
		state := thread.New(t)
		state.Next = w.AsOf(topic.Threads, topic.Subject(t))
		states.Threads[t] = state
	}
	if from.All == 0 && from.Each == nil {
		return nil // nothing can have been stored before
	}
	for some := range slices.Chunk(w.Threads, atOnce) {
		if err := s.loadThreads(ctx, some, from, states.Threads); err != nil {
			return err
		}
		s.metrics.loaded.Add(float64(len(some)))
	}
	var unsure []sent
	for i := range w.Events {
		if e := &w.Events[i]; e.Topic == topic.Threads {
			if key, ok := states.Threads[id.ThreadID(e.Subject)].Unsure(e.Body); ok {
				unsure = append(unsure, sent{id.ThreadID(e.Subject), key.Message})
			}
		}
	}
	for some := range slices.Chunk(unsure, atOnce) {
		if err := s.lookUp(ctx, some, from, states.Threads); err != nil {
			return err
		}
		s.metrics.lookedUp.Add(float64(len(some)))
	}
	return nil
}

// sent is a message that may have been accepted before.
type sent struct {
	thread  id.ThreadID
	message id.MessageID
}

func (s *store) loadThreads(
	ctx context.Context, ids []id.ThreadID, from history.Before, states map[id.ThreadID]*thread.State,
) error {
	if err := s.loadMembers(ctx, ids, from, states); err != nil {
		return err
	}
	if err := s.loadInvitations(ctx, ids, from, states); err != nil {
		return err
	}
	for _, t := range ids {
		states[t].Restore()
	}
	return s.loadMessages(ctx, ids, from, states)
}

// loadMembers rebuilds the members and their spans from what each event made of them.
func (s *store) loadMembers(
	ctx context.Context, ids []id.ThreadID, from history.Before, states map[id.ThreadID]*thread.State,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	return s.history.Changes(ctx, ids, from, func(c *history.Change) error {
		state := states[c.Thread]
		state.Kind = c.Kind
		m := state.Members[c.User]
		if m == nil {
			m = &thread.Member{}
			state.Members[c.User] = m
		}
		m.Role = c.Role
		switch {
		case c.Active && !m.Active():
			m.Spans = append(m.Spans, thread.Span{From: c.Position})
			m.BaseOrdinal, m.EndOrdinal = c.Ordinal, 0
		case !c.Active && m.Active():
			m.Spans[len(m.Spans)-1].To = c.Position
			m.EndOrdinal = c.Ordinal
		}
		return nil
	})
}

// loadInvitations finds who is invited.
func (s *store) loadInvitations(
	ctx context.Context, ids []id.ThreadID, from history.Before, states map[id.ThreadID]*thread.State,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	return s.history.Invited(ctx, ids, from, func(r *history.Invitation) error {
		states[r.Thread].Invited[r.User] = thread.Invitation{By: r.Actor, At: r.Position, TimeMS: r.Time.UnixMilli()}
		return nil
	})
}

// loadMessages finds the last ordinal, the thread's clock and the last messages within the window before it.
func (s *store) loadMessages(
	ctx context.Context, ids []id.ThreadID, from history.Before, states map[id.ThreadID]*thread.State,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	counts, earliest := map[id.ThreadID]int{}, map[id.ThreadID]int64{}
	err := s.history.Recent(ctx, ids, from, s.cfg.Recent, func(r *history.Recent) error {
		state := states[r.Thread]
		seen(state, &r.Sent)
		state.LastOrdinal, state.LastTimeMS = r.LastOrdinal, max(0, r.LastTime.UnixMilli())
		if ms := r.Time.UnixMilli(); counts[r.Thread] == 0 || ms < earliest[r.Thread] {
			earliest[r.Thread] = ms
		}
		counts[r.Thread]++
		return nil
	})
	if err != nil {
		return err
	}
	for t, n := range counts {
		if n == s.cfg.Recent {
			states[t].RestorePartly(earliest[t])
		}
	}
	return nil
}

// lookUp finds messages that may have been accepted before.
func (s *store) lookUp(
	ctx context.Context, some []sent, from history.Before, states map[id.ThreadID]*thread.State,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	threads, messages := map[id.ThreadID]bool{}, map[id.MessageID]bool{}
	since := int64(math.MaxInt64)
	for _, m := range some {
		threads[m.thread], messages[m.message] = true, true
		since = min(since, states[m.thread].LastTimeMS-thread.Window.Milliseconds())
	}
	return s.history.Sent(
		ctx, slices.Collect(maps.Keys(threads)), slices.Collect(maps.Keys(messages)), from, since,
		func(r *history.Sent) error { seen(states[r.Thread], r); return nil },
	)
}

// seen notes a message in a state's Recent. Of an id that was used again after the window, the later one counts.
func seen(state *thread.State, r *history.Sent) {
	key := thread.Key{Sender: r.Sender, Message: r.Message}
	if known, ok := state.Recent[key]; !ok || known.Position < r.Position {
		state.Recent[key] = thread.Seen{Position: r.Position, TimeMS: r.Time.UnixMilli(), Ordinal: r.Ordinal}
	}
}
