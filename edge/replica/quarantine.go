package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// askQuarantine is how often the views are asked, on average, whether what is in quarantine here has left theirs.
const askQuarantine = 5 * time.Second

// quarantined is the subjects of which a topic is in quarantine here, with the places that the views must have passed
// before they may be opened again: in each such topic, that of the event that could not be applied, 0 where the views
// said so.
type quarantined struct {
	wake     chan struct{} // capacity 1: it is not empty
	again    chan struct{} // capacity 1: hurried has grown
	mu       sync.Mutex    // taken inside slots' locks; guards what follows
	subjects map[*subject]topic.Cursor
	// those that an operator has released, until when the views are asked more often
	hurried map[topic.Subject]time.Time
}

func newQuarantined() quarantined {
	return quarantined{
		wake: make(chan struct{}, 1), again: make(chan struct{}, 1), subjects: map[*subject]topic.Cursor{},
		hurried: map[topic.Subject]time.Time{},
	}
}

func (q *quarantined) enter(sub *subject, t topic.Topic, next topic.Position) {
	sub.quarantined |= 1 << t.Number()
	q.mu.Lock()
	at := q.subjects[sub]
	at.Raise(t, next)
	q.subjects[sub] = at
	q.mu.Unlock()
	poke(q.wake)
}

func (q *quarantined) leave(sub *subject) {
	q.mu.Lock()
	delete(q.subjects, sub)
	q.mu.Unlock()
}

func (q *quarantined) all() []*subject {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]*subject, 0, len(q.subjects))
	for sub := range q.subjects {
		out = append(out, sub)
	}
	return out
}

// passed tells whether the views have got past what stopped the subject.
func (q *quarantined) passed(sub *subject, at topic.Cursor) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	need, in := q.subjects[sub]
	return in && at.Covers(need)
}

// isQuarantined tells whether the subject's events of a topic are dropped. The caller holds the slot's lock.
func (sub *subject) isQuarantined(t topic.Topic) bool { return sub.quarantined&(1<<t.Number()) != 0 }

// quarantine stops a subject's events of one topic, as the projectors do.
func (r *Replica) quarantine(sub *subject, t topic.Topic, rec *linkv1.Record, err error) {
	r.quarantined.enter(sub, t, topic.Position(rec.GetPosition())+1)
	r.metrics.quarantined.Inc()
	r.log.Error("an event cannot be applied, its subject is in quarantine",
		"topic", t, "slot", sub.slot.n, "position", rec.GetPosition(), "subject", id.ThreadID(sub.key), "err", err)
}

// quarantinedBy takes over what the views have in quarantine.
func (r *Replica) quarantinedBy(sub *subject, snap *Snapshot) {
	for _, t := range topic.Folded {
		if snap.Quarantined[Quarantined{t.Number(), sub.key}] {
			r.quarantined.enter(sub, t, 0)
		}
	}
}

// watchQuarantine opens subjects again that have left the quarantine of the views, or never were in it: a projector of
// a newer version applies what an older one could not, and an operator drops what stops a subject. It asks only while
// something is in quarantine, and often about what an operator has just released.
func (r *Replica) watchQuarantine(ctx context.Context) error {
	for {
		select {
		case <-r.quarantined.wake:
		case <-ctx.Done():
			return nil
		}
		var h rhythm
		for subs := r.quarantined.all(); len(subs) > 0; subs = r.quarantined.all() {
			t := time.NewTimer(h.next(len(r.quarantined.soon(time.Now())) > 0))
			select {
			case <-t.C:
			case <-r.quarantined.again:
				h.delay = 0
			case <-ctx.Done():
			}
			t.Stop()
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was about what is asked again
			}
			if subs = r.quarantined.soon(time.Now()); h.due() {
				subs = r.quarantined.all()
			}
			for part := range slices.Chunk(subs, r.cfg.Batch) {
				if !r.askReleased(ctx, part) {
					break // the views do not answer: that is counted, and asked again
				}
			}
		}
	}
}

// askReleased asks the views about subjects and opens those that may be. False: they did not answer.
func (r *Replica) askReleased(ctx context.Context, subs []*subject) bool {
	var threads []id.ThreadID
	var users []id.UserID
	subs = slices.DeleteFunc(subs, func(sub *subject) bool {
		sub.slot.mu.RLock()
		defer sub.slot.mu.RUnlock()
		if sub.gone {
			r.quarantined.leave(sub)
		}
		return sub.gone
	})
	for _, sub := range subs {
		if sub.thread != nil {
			threads = append(threads, sub.thread.id())
		} else {
			users = append(users, sub.user.id)
		}
	}
	if len(subs) == 0 {
		return true
	}
	qctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	held, at, err := r.store.Quarantine(qctx, threads, users)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.failed("quarantine", err)
		}
		return false
	}
	for _, sub := range subs {
		isHeld := slices.ContainsFunc(topic.Folded, func(t topic.Topic) bool {
			return held[Quarantined{t.Number(), sub.key}]
		})
		if !isHeld && r.quarantined.passed(sub, at[sub.slot.n]) {
			r.in(sub.slot, func(*actions) { r.reopen(sub) })
		}
	}
	return true
}

// reopen has a subject that left quarantine loaded anew: what its state lacks is in the next snapshot, wherever that
// stands. The caller holds the slot's lock.
func (r *Replica) reopen(sub *subject) {
	if sub.gone || sub.phase != live { // without a use, or on its way to a snapshot
		return
	}
	r.quarantined.leave(sub)
	sub.stopped = sub.stopped || sub.isQuarantined(topic.Threads)
	sub.quarantined = 0
	switch {
	case sub.thread != nil:
		r.thaw(sub.thread)
		sub.thread.state.Next = 0
	default:
		sub.user.state.Next = 0
	}
	r.ask(sub.slot, sub)
	r.metrics.released.Inc()
	r.log.Info("a subject has left quarantine and is loaded anew", "subject", id.ThreadID(sub.key), "slot", sub.slot.n)
}
