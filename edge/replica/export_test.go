package replica

import (
	dto "github.com/prometheus/client_model/go"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Progress takes in how far a slot's owner has sent it.
func (r *Replica) Progress(n topic.Slot, next topic.Cursor) {
	s := r.slots[n]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress(next)
}

// SetLoading makes a live thread look as if it were loaded anew, or undoes that.
func (r *Replica) SetLoading(t id.ThreadID, yes bool) {
	s := r.slotOf(topic.Subject(t))
	s.mu.Lock()
	defer s.mu.Unlock()
	if ts := s.threads[t]; yes {
		ts.phase, ts.pending = loading, &pending{bornAt: -1}
	} else {
		ts.phase, ts.pending = live, nil
	}
}

// Appointments is how many times slots are to be looked at.
func (r *Replica) Appointments() int {
	r.agenda.mu.Lock()
	defer r.agenda.mu.Unlock()
	return len(r.agenda.list)
}

// Break makes the fold of a thread panic when it notes a message, half way through it.
func (r *Replica) Break(t id.ThreadID) {
	s := r.slotOf(topic.Subject(t))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.threads[t].state.Recent = nil
}

// Titles is how many bytes of titles are kept of a user's invitations.
func (r *Replica) Titles(u id.UserID) (n int) {
	s := r.slotOf(topic.Subject(u))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.users[u].state.Invitations {
		n += len(i.Title)
	}
	return n
}

// Memory is what the budget should know of: the bytes of all backlogs, and of all windows.
func (r *Replica) Memory() (waiting, kept int64) {
	weigh := func(list []queued) {
		for _, e := range list {
			waiting += int64(e.weight())
		}
	}
	for _, s := range r.slots {
		s.mu.Lock()
		for sub := range s.waiting {
			weigh(sub.pending.backlog.list)
		}
		for _, t := range s.threads {
			kept += int64(len(t.packed))
			if t.warm != nil {
				weigh(t.doubted.list)
				kept += int64(recentWeight * len(t.state.Recent))
			}
		}
		s.mu.Unlock()
	}
	return waiting, kept
}

// Drops is how many times a backlog was counted as dropped.
func (r *Replica) Drops() float64 {
	var m dto.Metric
	_ = r.metrics.drops.WithLabelValues("backlog_full").Write(&m)
	return m.GetCounter().GetValue()
}

// Packed tells whether the state of a thread is packed.
func (r *Replica) Packed(t id.ThreadID) bool {
	s := r.slotOf(topic.Subject(t))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads[t].packed != ""
}

// SetRecent says how many messages of a window a snapshot loads at most.
func SetRecent(postgres Store, n int) { postgres.(*postgresStore).recent = n }
