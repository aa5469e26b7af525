package replica

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// agenda is the slots that must be looked at, by when. A slot of which nothing waits is not in it.
type agenda struct {
	wake chan struct{} // capacity 1: something comes sooner
	mu   sync.Mutex    // taken inside slots' locks
	list appointments
}

type appointment struct {
	at   time.Time
	slot *slot
}

// set has a slot looked at no later than at. The caller holds the slot's lock.
func (a *agenda) set(s *slot, at time.Time) {
	if !s.due.IsZero() && !at.Before(s.due) {
		return
	}
	s.due = at // what was due before is passed over when its time has come
	a.mu.Lock()
	heap.Push(&a.list, appointment{at, s})
	first := a.list[0].at.Equal(at)
	a.mu.Unlock()
	if first {
		poke(a.wake)
	}
}

// next takes out an appointment whose time has come, or says when that will be.
func (a *agenda) next() (due appointment, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) == 0 {
		return appointment{}, time.Hour
	}
	if wait = time.Until(a.list[0].at); wait > 0 {
		return appointment{}, wait
	}
	return heap.Pop(&a.list).(appointment), 0
}

type appointments []appointment

func (a appointments) Len() int           { return len(a) }
func (a appointments) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a appointments) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *appointments) Push(x any)        { *a = append(*a, x.(appointment)) }
func (a *appointments) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	*a = (*a)[:last]
	return x
}

// rest is a subject without interest, perhaps, since a time.
type rest struct {
	sub   *subject
	since time.Time
}

// keepHouse keeps the appointments.
func (r *Replica) keepHouse(ctx context.Context) error {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		due, wait := r.agenda.next()
		if due.slot != nil {
			r.tidy(due)
			continue
		}
		t.Reset(wait)
		select {
		case <-t.C:
		case <-r.agenda.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// tidy ends subscriptions of a slot that nobody has been interested in for Linger, packs what was of no use, and
// notices its silence.
func (r *Replica) tidy(due appointment) {
	s := due.slot
	r.in(s, func(after *actions) {
		if !s.due.Equal(due.at) {
			return
		}
		s.due = time.Time{}
		now := time.Now()
		for len(s.resting) > 0 {
			first := s.resting[0]
			sub := first.sub
			idle := r.began.Add(time.Duration(sub.idle))
			switch ends := idle.Add(r.cfg.Linger); {
			case sub.gone || sub.idle == 0:
				s.resting, sub.resting = s.resting[1:], false
				continue
			case first.since.Before(idle): // there was interest meanwhile
				s.resting = append(s.resting[1:], rest{sub, idle})
				continue
			case ends.After(now):
				r.agenda.set(s, ends)
			default:
				s.resting, sub.resting = s.resting[1:], false
			}
			if sub.resting {
				break
			}
			s.remove(sub)
			if u := sub.user; u != nil {
				after.add(func() { r.forget(u) })
			}
		}
		if len(s.resting) == 0 {
			s.resting = nil
		}
		r.cool(s, now)
		r.remind(s, now, after)
		r.listen(s)
	})
}

// relax notes that nobody is interested in a subject any more, if that is so. The caller holds the slot's lock.
func (r *Replica) relax(sub *subject) {
	idle := sub.thread != nil && len(sub.thread.locals) == 0 || sub.user != nil && sub.user.follower.Load() == nil
	if !idle || sub.gone {
		return
	}
	now := time.Now()
	sub.idle = max(1, int64(now.Sub(r.began)))
	if s := sub.slot; !sub.resting {
		sub.resting = true
		s.resting = append(s.resting, rest{sub, now})
		if len(s.resting) == 1 {
			r.agenda.set(s, now.Add(r.cfg.Linger))
		}
	}
}

// forget takes a user who is not followed any more out of his threads.
func (r *Replica) forget(u *userEntry) {
	u.mu.Lock()
	u.dead = true
	threads := u.threads
	u.threads = nil
	u.mu.Unlock()
	for _, t := range threads {
		r.in(t.slot, func(*actions) { r.removeLocal(t, u) })
	}
}
