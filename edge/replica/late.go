package replica

import (
	"sync"
	"time"

	"heliograph/schemas/id"
)

// lateAfter is how long a subject may wait to be live, or to be subscribed with the slot's owner, before that is said
// in the log, counted, and what it waits for is asked for again; and mostLate is the longest between two such
// reminders of a slot.
const (
	lateAfter = 5 * time.Second
	mostLate  = 40 * time.Second
)

// What a late subject waits for: the label of a metric.
const (
	waitsOwner    = "owner"    // no delivery instance says that it owns the slot
	waitsRoom     = "room"     // the owner has no room for it on the link
	waitsAnswer   = "answer"   // the owner has not answered its Subscribe
	waitsViews    = "views"    // the views have not got to where its stream begins
	waitsSnapshot = "snapshot" // the views have, but did not give its state
)

var waits = []string{waitsOwner, waitsRoom, waitsAnswer, waitsViews, waitsSnapshot}

// waitsFor tells what a subject waits for, and since when; "" for nothing. The caller holds the slot's lock.
func (r *Replica) waitsFor(sub *subject) (what string, since time.Time) {
	s := sub.slot
	if sub.phase == live {
		if _, unacked := s.unacked[sub]; !unacked {
			return "", time.Time{}
		}
		since = s.changed
	} else {
		since = sub.pending.since
	}
	switch {
	case s.owner == nil:
		what = waitsOwner
	case sub.phase == wanted && sub.pending.refused:
		what = waitsRoom
	case sub.phase == loading && sub.reachedBy(r.clock.slot(s.n)):
		what = waitsSnapshot
	case sub.phase == loading, sub.phase == wanted && sub.pending.postponed:
		what = waitsViews
	default:
		what = waitsAnswer
	}
	return what, since
}

// expect has a slot looked at when what begins to wait now would be late. The caller holds the slot's lock.
func (r *Replica) expect(s *slot) {
	if s.late == 0 {
		s.late = lateAfter
		s.lateDue = time.Now().Add(lateAfter)
		r.agenda.set(s, s.lateDue)
	}
}

// remind looks at what waits in a slot: of what is late it says so, counts it, and asks for it again. The caller holds
// the slot's lock.
func (r *Replica) remind(s *slot, now time.Time, after *actions) {
	if s.late == 0 {
		return
	}
	if s.lateDue.After(now) {
		r.agenda.set(s, s.lateDue)
		return
	}
	found := map[string]int{}
	var oldest time.Duration
	var example *subject
	var next time.Time // when the first of the others would be late
	each := func(sub *subject) {
		what, since := r.waitsFor(sub)
		if what == "" {
			return
		}
		due := since.Add(lateAfter)
		isLate := !due.After(now)
		switch {
		case what == waitsRoom:
			s.toAsk = append(s.toAsk, sub)
		case what != waitsAnswer:
		case sub.phase == live && (isLate || s.unacked[sub] == 0):
			s.unacked[sub] = 0
			s.toResume = append(s.toResume, sub)
		case sub.phase == wanted, sub.phase == asked && isLate:
			sub.pending.repeated = sub.phase == asked
			s.toAsk = append(s.toAsk, sub)
		}
		if !isLate {
			if next.IsZero() || due.Before(next) {
				next = due
			}
			return
		}
		found[what]++
		if age := now.Sub(since); example == nil || age > oldest {
			oldest, example = age, sub
		}
		if !sub.isLate {
			sub.isLate = true
			r.metrics.late.WithLabelValues(what).Inc()
		}
		if what == waitsSnapshot {
			r.loads.push(sub)
		}
	}
	s.toAsk, s.toResume = nil, nil // all that is in them waits, and is found
	for sub := range s.waiting {
		each(sub)
	}
	for sub := range s.unacked {
		each(sub)
	}
	switch {
	case example == nil && next.IsZero():
		s.late = 0
		return
	case example == nil:
		s.late, s.lateDue = lateAfter, next
		r.agenda.set(s, next)
		return
	}
	s.lateDue = now.Add(s.late)
	s.late = min(2*s.late, mostLate)
	r.agenda.set(s, s.lateDue)
	if s.owner != nil {
		s.owner.touch(s)
	} else {
		after.add(r.links.askOwned)
	}
	r.log.Warn("subjects of a slot are late to be live, what they wait for is asked for again", "slot", s.n,
		"without_owner", found[waitsOwner], "without_room", found[waitsRoom], "without_answer", found[waitsAnswer],
		"behind_views", found[waitsViews], "without_snapshot", found[waitsSnapshot],
		"oldest", oldest.Round(time.Millisecond), "subject", id.ThreadID(example.key))
}

// isLate is how many subjects of a slot are late, at most. The caller holds the slot's lock.
func (s *slot) isLate(now time.Time) (n int) {
	for sub := range s.waiting {
		if now.Sub(sub.pending.since) > lateAfter {
			n++
		}
	}
	if now.Sub(s.changed) > lateAfter {
		n += len(s.unacked)
	}
	return n
}

// openLinks is the links that there are.
type openLinks struct {
	mu   sync.Mutex
	list map[*conn]struct{}
}

func (l *openLinks) enter(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list[c] = struct{}{}
}

func (l *openLinks) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.list, c)
}

// askOwned has every instance say once more which slots it owns.
func (l *openLinks) askOwned() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.list {
		c.asks.Store(true)
		poke(c.wake)
	}
}
