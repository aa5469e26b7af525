package replica

import (
	"context"
	"math/rand/v2"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// Decisions is what operators have decided of what is in quarantine: kafka.Decisions, which tells of each by
// Replica.Released.
type Decisions interface {
	// All returns once everything was told that was decided when it was called.
	All(ctx context.Context) error
}

const (
	// hurryFor is how long the views are asked more often about a subject that was released, and hurryMin and hurryMax
	// how long after another: the projector takes a moment to drain it.
	hurryFor           = 10 * time.Second
	hurryMin, hurryMax = 20 * time.Millisecond, 250 * time.Millisecond
)

// readDecisions returns once all is known that was decided of quarantine so far; false when ctx ended first. Without it
// nothing is taken in: what was dropped must not be folded.
func (r *Replica) readDecisions(ctx context.Context) bool {
	if r.cfg.Decisions == nil {
		return true
	}
	for back := (run.Backoff{Min: retryMin, Max: retryMax}); ; {
		err := r.cfg.Decisions.All(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.metrics.errors.WithLabelValues("decisions").Inc()
		r.log.Warn("cannot read what was decided of quarantine", "err", err)
		if back.Wait(ctx) != nil {
			return false
		}
	}
}

// Released tells that an operator has decided something of an event in quarantine. What is dropped is passed over from
// now on. A subject that stands still here is opened again as soon as the views have drained it. Any goroutine may call
// it, before Run too.
func (r *Replica) Released(d kafka.Release) {
	s, err := r.slotNumber(int32(d.Slot))
	if err != nil {
		return // of a log with more slots
	}
	r.in(s, func(*actions) {
		if d.Dropped {
			s.releases = s.releases.With(d)
		}
		var sub *subject
		if d.Topic == topic.Users {
			if u := s.users[id.UserID(d.Subject)]; u != nil {
				sub = &u.subject
			}
		} else if t := s.threads[id.ThreadID(d.Subject)]; t != nil {
			sub = &t.subject
		}
		if sub == nil {
			return
		}
		if d.Dropped && sub.phase == live && !sub.isQuarantined(d.Topic) && sub.has(d.Topic, d.Position) {
			// It may be in the state, of a version that can apply it: that is not what the log means any more.
			r.quarantined.watch(sub)
		}
		r.quarantined.hurry(sub.key, time.Now().Add(hurryFor))
	})
}

// passesOver tells whether an operator has dropped the event. The caller holds the slot's lock.
func (sub *subject) passesOver(t topic.Topic, rec *linkv1.Record) bool {
	return sub.slot.releases.Drops(t, sub.key, topic.Position(rec.GetPosition()))
}

// watch has a subject opened anew once the views have nothing of it in quarantine.
func (q *quarantined) watch(sub *subject) {
	q.mu.Lock()
	if _, in := q.subjects[sub]; !in {
		q.subjects[sub] = topic.Cursor{}
	}
	q.mu.Unlock()
	poke(q.wake)
}

// hurry has the views asked about a subject more often until then.
func (q *quarantined) hurry(s topic.Subject, until time.Time) {
	q.mu.Lock()
	q.hurried[s] = until
	q.mu.Unlock()
	poke(q.again)
}

// soon returns those in quarantine of which the views are asked more often.
func (q *quarantined) soon(now time.Time) (out []*subject) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s, until := range q.hurried {
		if now.After(until) {
			delete(q.hurried, s)
		}
	}
	if len(q.hurried) == 0 {
		return nil
	}
	for sub := range q.subjects {
		if _, ok := q.hurried[sub.key]; ok {
			out = append(out, sub)
		}
	}
	return out
}

// rhythm is when the views are asked about quarantine.
type rhythm struct {
	all   time.Time // when next about everything
	delay time.Duration
}

// next is how long to wait for the next question.
func (h *rhythm) next(hurried bool) time.Duration {
	now := time.Now()
	if h.all.IsZero() {
		h.all = now.Add(askQuarantine/2 + rand.N(askQuarantine)) // not all edges at one time
	}
	if !hurried {
		h.delay = 0
		return h.all.Sub(now)
	}
	h.delay = min(max(hurryMin, 2*h.delay), hurryMax)
	return min(h.delay, h.all.Sub(now))
}

// due tells whether it is time to ask about everything.
func (h *rhythm) due() bool {
	if time.Now().Before(h.all) {
		return false
	}
	h.all = time.Time{}
	return true
}
