package replica

import (
	"context"
	"slices"
	"time"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// MessageKey names a message of a thread, to be found at positions below Before.
type MessageKey struct {
	Thread id.ThreadID
	thread.Key
	Before topic.Position
}

// Sought is the answer to a MessageKey, as of one moment of the views.
type Sought struct {
	Found bool
	thread.Seen
	Next topic.Position // how far the thread's slot was: with Next < Before the message may be missing
}

// mostSought is the most messages of one thread that are looked up by one query.
const mostSought = 64

// doubts tells whether only the views know if an event repeats a message: one that was not loaded with the thread.
func (t *threadEntry) doubts(e *event.Event, at topic.Position) bool {
	key, unsure := t.state.Unsure(e)
	return unsure && at >= t.state.Next && !t.absent[key]
}

// take applies an event of a live subject, or puts it behind those that wait for the views.
func (r *Replica) take(sub *subject, e queued, after *actions) {
	if t := sub.thread; t != nil && t.waits() {
		r.wait(t, e)
		return
	}
	r.apply(sub, e.topic, e.rec, after)
}

// waits tells whether events of the thread wait for the views to have looked a message up.
func (t *threadEntry) waits() bool { return t.warm != nil && len(t.doubted.list) > 0 }

// wait has an event of a live thread wait until the views have looked up the first of those that do.
func (r *Replica) wait(t *threadEntry, e queued) {
	if !t.doubted.add(e, &r.cfg) {
		t.drop()
		r.postpone(&t.subject)
		return
	}
	if len(t.doubted.list) > 1 {
		return
	}
	s := t.slot
	if s.doubting == nil {
		s.doubting = map[*threadEntry]struct{}{}
	}
	s.doubting[t] = struct{}{}
	r.lookUps.push(&t.subject)
}

// drop takes away what waits for the views.
func (t *threadEntry) drop() (list []queued) {
	if t.warm != nil {
		list = t.doubted.take(t.slot.memory)
	}
	delete(t.slot.doubting, t)
	return list
}

// sought is what the views are to look up for the thread: what it doubts of the first events that wait.
func (t *threadEntry) sought() (keys []MessageKey) {
	if t.gone || t.phase != live || !t.waits() {
		return nil
	}
	for _, w := range t.doubted.list[:min(mostSought, len(t.doubted.list))] {
		if w.topic != topic.Threads {
			continue
		}
		if e, err := event.Decode(w.rec.GetValue()); err == nil {
			if key, unsure := t.state.Unsure(e); unsure {
				keys = append(keys, MessageKey{t.id(), key, t.state.LoadedAt})
			}
		}
	}
	return keys
}

// deferral is when the views are asked again for a subject of which they were behind, and for how long it was put off.
type deferral struct {
	due   time.Time
	pause time.Duration
}

// runLookUps asks the views for messages of which threads do not know whether they have come before. A thread of which
// they are behind is asked for again after a pause of its own; views that fail have all wait.
func (r *Replica) runLookUps(ctx context.Context) error {
	pace := pace{every: gathering}
	deferred := map[*subject]deferral{}
	retry := time.NewTimer(retryMax)
	defer retry.Stop()
	var backoff time.Duration
	for {
		select {
		case <-r.lookUps.wake:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
		if !pace.wait(ctx) {
			return nil
		}
		failed := false
		for part := range slices.Chunk(r.toLookUp(deferred), r.cfg.Batch) {
			late, err := r.lookUp(ctx, part)
			if err != nil {
				r.lookUps.push(part...)
				failed = true
				continue
			}
			for _, sub := range part {
				if !slices.Contains(late, sub) {
					delete(deferred, sub)
					continue
				}
				pause := min(max(2*deferred[sub].pause, retryMin), retryMax)
				deferred[sub] = deferral{time.Now().Add(pause), pause}
			}
		}
		if retry.Stop(); len(deferred) > 0 {
			next := retryMax
			for _, d := range deferred {
				next = min(next, time.Until(d.due))
			}
			retry.Reset(max(0, next))
		}
		if !failed {
			backoff = 0
			continue
		}
		backoff = min(max(2*backoff, retryMin), retryMax)
		if !sleep(ctx, backoff) {
			return nil
		}
	}
}

// toLookUp takes the subjects that are queued, but for those that are deferred, and those whose pause is over.
func (r *Replica) toLookUp(deferred map[*subject]deferral) []*subject {
	now := time.Now()
	list := slices.DeleteFunc(r.lookUps.take(), func(sub *subject) bool {
		_, later := deferred[sub]
		return later
	})
	for sub, d := range deferred {
		if !d.due.After(now) {
			list = append(list, sub)
		}
	}
	return list
}

// lookUp asks the views once, and has the threads go on. It returns those of which the views are behind; with an error
// none could be looked up.
func (r *Replica) lookUp(ctx context.Context, subs []*subject) (late []*subject, err error) {
	var keys []MessageKey
	for _, sub := range subs {
		sub.slot.mu.RLock()
		keys = append(keys, sub.thread.sought()...)
		sub.slot.mu.RUnlock()
	}
	if len(keys) == 0 {
		return nil, nil
	}
	asked := r.clock.answered()
	qctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	list, err := r.store.Sent(qctx, keys)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.failed("look_up", err)
		}
		return nil, err
	}
	r.metrics.lookedUp.Add(float64(len(keys)))
	answers, at := make(map[MessageKey]Sought, len(keys)), make([]seen, 0, len(keys))
	for i, k := range keys {
		at = append(at, seen{r.SlotOf(k.Thread), topic.Threads, list[i].Next})
		answers[k] = list[i]
	}
	r.clock.take(asked, at...)
	for _, sub := range subs {
		r.in(sub.slot, func(after *actions) {
			if t := sub.thread; !r.lookedUp(t, answers, after) {
				late = append(late, sub)
			}
		})
	}
	return late, nil
}

// lookedUp takes in what the views have of what a thread was in doubt about. False: they are not where they were when
// it was loaded. The caller holds the slot's lock.
func (r *Replica) lookedUp(t *threadEntry, answers map[MessageKey]Sought, after *actions) bool {
	keys := t.sought()
	absent := map[thread.Key]bool{}
	for _, k := range keys {
		switch a, known := answers[k]; {
		case !known: // it came since, or the thread was loaded anew
		case a.Next < k.Before:
			return false
		case a.Found:
			t.state.Recent[k.Key] = a.Seen
		default:
			absent[k.Key] = true
		}
	}
	t.weigh()
	if len(keys) == 0 {
		return true
	}
	list := t.drop()
	t.absent = absent
	for _, e := range list {
		r.take(&t.subject, e, after)
	}
	t.absent = nil
	return true
}
