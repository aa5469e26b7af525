package threads

import (
	"context"
	"errors"

	"heliograph/infra/kafka"
	"heliograph/infra/views"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// readSlot reads what is stored about a slot: positions, the latest log time of its threads and the subjects that are
// parked.
func (s *Sink) readSlot(
	ctx context.Context, slot topic.Slot,
) (next kafka.Positions, latest int64, held []projector.Held, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	next = kafka.Positions{}
	err = s.views.Together(ctx, func(q *views.Questions) {
		q.FreshnessOfSlot(slot, func(f *views.Freshness) error {
			next[f.Topic] = f.Next
			if f.Topic == topic.Threads {
				latest = f.Time.UnixMilli()
			}
			return known(f.Topic)
		})
		q.HeldInSlot(slot, func(h *views.Held) error {
			held = append(held, projector.Held{Topic: h.Topic, Subject: h.Subject})
			return known(h.Topic)
		})
	})
	if err != nil {
		return nil, 0, nil, err
	}
	return next, latest, held, nil
}

// known refuses what a version that knows more topics has written.
func known(t topic.Topic) error {
	if t == "" {
		return errors.New("a topic of a later version")
	}
	return nil
}

// load brings the states that the events touch into w: from the caches, and the rest from the tables in one round trip.
// Of a thread's recent messages it brings those that the events may repeat.
func (s *Sink) load(ctx context.Context, st *slotState, b kafka.Batch, events []projector.Event, w *writes) error {
	var threads []id.ThreadID
	var users []id.UserID
	var unsure []views.MessageKey
	for i := range events {
		switch e := &events[i]; e.Topic {
		case topic.Threads:
			t := id.ThreadID(e.Subject)
			state := w.threadStates[t]
			if state == nil {
				var ok bool
				if state, ok = st.threads.Get(t); !ok {
					state = thread.Unloaded(t)
					threads = append(threads, t)
				}
				w.threadStates[t] = state
			}
			if key, ok := state.Unsure(e.Body); ok {
				unsure = append(unsure, views.MessageKey{Thread: t, Key: key})
			}
		case topic.Users:
			u := id.UserID(e.Subject)
			if w.userStates[u] != nil {
				continue
			}
			state, ok := st.users.Get(u)
			if !ok {
				state = user.New(u)
				users = append(users, u)
			}
			w.userStates[u] = state
		}
	}
	if len(threads)+len(users)+len(unsure) == 0 {
		return nil
	}
	// Nobody else writes what this slot's owner reads, so one moment need not be seen.
	err := s.views.Together(ctx, func(q *views.Questions) {
		if len(threads) > 0 {
			askThreads(q, threads, w.threadStates)
		}
		if len(unsure) > 0 {
			askSent(q, unsure, b.From[topic.Threads], w.threadStates)
		}
		if len(users) > 0 {
			askUsers(q, users, w.userStates)
		}
	})
	if err != nil {
		return err
	}
	for _, t := range threads {
		state := w.threadStates[t]
		state.Next = b.From[topic.Threads]
		state.RestoreWithoutRecent()
	}
	for _, u := range users {
		w.userStates[u].Next = b.From[topic.Users]
	}
	s.metrics.loaded.WithLabelValues("thread").Add(float64(len(threads)))
	s.metrics.loaded.WithLabelValues("user").Add(float64(len(users)))
	s.metrics.lookedUp.Add(float64(len(unsure)))
	return nil
}

func askThreads(q *views.Questions, ids []id.ThreadID, states map[id.ThreadID]*thread.State) {
	q.Threads(ids, func(r *views.Thread) error { r.Fill(states[r.ID]); return nil })
	q.Members(ids, func(r *views.Member) error {
		m := r.Member
		states[r.Thread].Members[r.User] = &m
		return nil
	})
}

// askSent looks messages up that may have been accepted before: by their ids, because a busy thread has more of them
// within the window than are worth loading for the next one.
func askSent(
	q *views.Questions, keys []views.MessageKey, before topic.Position, states map[id.ThreadID]*thread.State,
) {
	q.Sent(keys, before, func(r *views.Sent) error {
		states[r.Thread].Recent[thread.Key{Sender: r.Sender, Message: r.Message}] = thread.Seen{
			Position: r.Position, TimeMS: r.Time.UnixMilli(), Ordinal: r.Ordinal,
		}
		return nil
	})
}

func askUsers(q *views.Questions, ids []id.UserID, states map[id.UserID]*user.State) {
	q.Users(ids, func(r *views.User) error { r.Fill(states[r.ID]); return nil })
	q.Devices(ids, func(r *views.Device) error { states[r.User].Devices[r.ID] = r.Device(); return nil })
	q.Contacts(ids, func(r *views.Contact) error { states[r.User].Contacts[r.PhoneHash] = r.Name; return nil })
	q.Blocks(ids, func(r *views.Block) error { states[r.User].Blocked[r.Blocked] = true; return nil })
	q.UserThreads(ids, func(r *views.UserThread) error { states[r.User].Threads[r.Thread] = r.Joined; return nil })
}
