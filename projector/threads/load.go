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

// Read reads what is stored about a slot: positions, latest log times and the subjects that are held in quarantine.
func (s *store) Read(ctx context.Context, slot topic.Slot) (projector.Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	out := projector.Stored{Next: kafka.Positions{}, Marks: kafka.Marks{}, Latest: map[topic.Topic]int64{}}
	err := s.views.Together(ctx, func(q *views.Questions) {
		q.FreshnessOfSlot(slot, func(f *views.Freshness) error {
			out.Next[f.Topic], out.Latest[f.Topic] = f.Next, f.Time.UnixMilli()
			if f.Mark.Digest != 0 {
				out.Marks[f.Topic] = f.Mark
			}
			return known(f.Topic)
		})
		q.HeldInSlot(slot, func(h *views.HeldRange) error {
			out.Held = append(out.Held, projector.HeldRange{
				Held: projector.Held{Topic: h.Topic, Subject: h.Subject}, First: h.First, Last: h.Last,
				Reason: h.Reason,
			})
			return known(h.Topic)
		})
	})
	return out, err
}

// known refuses what a version that knows more topics has written.
func known(t topic.Topic) error {
	if t == "" {
		return errors.New("a topic of a later version")
	}
	return nil
}

// Load brings the wanted states in one round trip, and of the recent messages of all threads those that the events may
// repeat.
func (s *store) Load(ctx context.Context, states *projector.States, w projector.Wanted) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	for _, t := range w.Threads {
		states.Threads[t] = thread.Unloaded(t)
	}
	for _, u := range w.Users {
		states.Users[u] = user.New(u)
	}
	var unsure []views.MessageKey
	for i := range w.Events {
		if e := &w.Events[i]; e.Topic == topic.Threads {
			t := id.ThreadID(e.Subject)
			if key, ok := states.Threads[t].Unsure(e.Body); ok {
				unsure = append(unsure, views.MessageKey{Thread: t, Key: key})
			}
		}
	}
	if len(w.Threads)+len(w.Users)+len(unsure) == 0 {
		return nil
	}
	before := w.From[topic.Threads]
	for _, at := range w.Since {
		before = max(before, at) // of each thread all that is there lies before its own
	}
	latest := make(map[id.ThreadID]int64, len(w.Threads))
	// Nobody else writes what this slot's owner reads, so one moment need not be seen.
	err := s.views.Together(ctx, func(q *views.Questions) {
		if len(w.Threads) > 0 {
			askThreads(q, w.Threads, states.Threads)
			q.Latest(w.Threads, func(r *views.Latest) error { latest[r.Thread] = r.Time.UnixMilli(); return nil })
		}
		if len(unsure) > 0 {
			askSent(q, unsure, before, states.Threads)
		}
		if len(w.Users) > 0 {
			askUsers(q, w.Users, states.Users)
		}
	})
	if err != nil {
		return err
	}
	for _, t := range w.Threads {
		state := states.Threads[t]
		state.Next = w.AsOf(topic.Threads, topic.Subject(t))
		if ms, some := latest[t]; some {
			state.RestorePartly(ms)
		} else {
			state.Restore()
		}
	}
	for _, u := range w.Users {
		states.Users[u].Next = w.AsOf(topic.Users, topic.Subject(u))
	}
	s.metrics.loaded.WithLabelValues(subjectThread).Add(float64(len(w.Threads)))
	s.metrics.loaded.WithLabelValues(subjectUser).Add(float64(len(w.Users)))
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
	q.Invitations(ids, func(r *views.Invitation) error {
		states[r.Thread].Invited[r.User] = r.Invitation()
		return nil
	})
}

// askSent looks messages up that may have been accepted before: by their ids, because a busy thread has more of them
// within the window than are worth loading for the next one.
func askSent(
	q *views.Questions, keys []views.MessageKey, before topic.Position, states map[id.ThreadID]*thread.State,
) {
	q.Sent(keys, before, func(r *views.Sent) error { states[r.Thread].Recent[r.Key()] = r.Seen(); return nil })
}

func askUsers(q *views.Questions, ids []id.UserID, states map[id.UserID]*user.State) {
	q.Users(ids, func(r *views.User) error { r.Fill(states[r.ID]); return nil })
	q.Devices(ids, func(r *views.Device) error { states[r.User].Devices[r.ID] = r.Device(); return nil })
	q.Contacts(ids, func(r *views.Contact) error { states[r.User].Contacts[r.PhoneHash] = r.Name; return nil })
	q.Blocks(ids, func(r *views.Block) error { states[r.User].Blocked[r.Blocked] = true; return nil })
	q.UserThreads(ids, func(r *views.UserThread) error { states[r.User].Threads[r.Thread] = r.Joined; return nil })
	q.UserInvitations(ids, func(r *views.UserInvitation) error {
		states[r.User].Invitations[r.Thread] = r.Invitation()
		return nil
	})
}
