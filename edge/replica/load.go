package replica

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// subjectQueue is subjects that wait for the loader. It is bounded by the number of subjects: each is in it once per
// Subscribe at most.
type subjectQueue struct {
	wake chan struct{} // capacity 1
	mu   sync.Mutex
	list []*subject
}

func newSubjectQueue() subjectQueue { return subjectQueue{wake: make(chan struct{}, 1)} }

func (q *subjectQueue) push(subs ...*subject) {
	q.mu.Lock()
	q.list = append(q.list, subs...)
	q.mu.Unlock()
	poke(q.wake)
}

func (q *subjectQueue) take() []*subject {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.list
	q.list = nil
	return l
}

// poke fills a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reached tells whether a snapshot at these positions joins on to what the stream brings. The subject is loading; the
// caller holds the slot's lock.
func (sub *subject) reached(at []topic.Cursor) bool { return sub.reachedBy(at[sub.slot.n]) }

func (sub *subject) reachedBy(at topic.Cursor) bool {
	for _, t := range sub.topics() {
		if at.At(t) < sub.pending.liveFrom.At(t) {
			return false
		}
	}
	return true
}

// runLoads makes snapshots: of all subjects for which the views are far enough, many to one transaction. And it has
// those subscribed that were postponed, once the views have said where they are.
func (r *Replica) runLoads(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	room, pace := make(chan struct{}, loaders), pace{every: gathering}
	failed := make(chan []*subject)
	var behind []*subject    // the views have not reached their live_from
	var again []*subject     // a snapshot failed
	var postponed []*subject // the views must answer first
	var backoff time.Duration
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	done := func() {}
	defer func() { done() }()
	for {
		list := slices.Concat(behind, r.loads.take())
		behind = nil
		var ready []*subject
		at, moved, said := r.clock.look()
		for _, sub := range list {
			sub.slot.mu.RLock()
			switch {
			case sub.gone || sub.phase != loading:
			case sub.reached(at):
				ready = append(ready, sub)
			default:
				behind = append(behind, sub)
			}
			sub.slot.mu.RUnlock()
		}
		postponed = r.resubscribe(append(postponed, r.postponed.take()...))
		next := func() {}
		if len(behind)+len(postponed) > 0 {
			next = r.clock.want()
		}
		done()
		done = next
		for part := range slices.Chunk(ready, r.cfg.Batch) {
			pace.began = time.Now()
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				late := r.load(ctx, part)
				<-room
				if len(late) > 0 {
					select {
					case failed <- late:
					case <-ctx.Done():
					}
				}
			})
		}
		if len(postponed) == 0 {
			said = nil
		}
		select {
		case <-r.loads.wake:
			if !pace.wait(ctx) {
				return nil
			}
		case <-r.postponed.wake:
		case <-moved:
		case <-said:
		case subs := <-failed:
			if len(again) == 0 { // else those before them must not wait for longer
				backoff = min(max(2*backoff, retryMin), retryMax)
				retry.Reset(backoff)
			}
			again = append(again, subs...)
		case <-retry.C:
			r.loads.push(again...)
			if len(again) == 0 {
				backoff = 0
			}
			again = nil
			retry.Reset(max(retryMax, 2*backoff))
		case <-ctx.Done():
			return nil
		}
	}
}

// resubscribe has subjects asked for that were postponed, and returns those for which it is too early.
func (r *Replica) resubscribe(subs []*subject) (early []*subject) {
	answered := r.clock.answered()
	for _, sub := range subs {
		s := sub.slot
		s.mu.Lock()
		switch {
		case sub.gone || sub.pending == nil || !sub.pending.postponed:
		case answered <= sub.pending.asked+1: // the first answer may be of a question from before
			early = append(early, sub)
		default:
			r.ask(s, sub)
		}
		s.mu.Unlock()
	}
	return early
}

// load makes one snapshot and lets its subjects turn live. It returns those that must be tried again.
func (r *Replica) load(ctx context.Context, subs []*subject) (late []*subject) {
	var threads []id.ThreadID
	var users []id.UserID
	for _, sub := range subs {
		if sub.thread != nil {
			threads = append(threads, sub.thread.id())
		} else {
			users = append(users, sub.user.id)
		}
	}
	began, asked := time.Now(), r.clock.answered()
	qctx, cancel := context.WithTimeout(ctx, 2*r.cfg.Wait)
	snap, err := r.store.Snapshot(qctx, threads, users)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.failed("snapshot", err)
		}
		return subs
	}
	r.metrics.snapshotSeconds.Observe(time.Since(began).Seconds())
	r.metrics.snapshotSubjects.Observe(float64(len(subs)))
	r.clock.advance(asked, snap.At)
	for _, sub := range subs {
		r.in(sub.slot, func(after *actions) {
			switch {
			case sub.gone || sub.phase != loading:
			case !sub.reached(snap.At):
				// subscribed anew meanwhile, or the views went back: it waits until the clock has reached it
				r.loads.push(sub)
			case sub.thread != nil:
				r.threadLoaded(sub.thread, snap)
			default:
				r.userLoaded(sub.user, snap, after)
			}
		})
	}
	return nil
}

// born makes a thread live that is loading, and known to have no event before bornAt: it needs no snapshot. The caller
// holds the slot's lock.
func (r *Replica) born(t *threadEntry) {
	r.hold(t, NewThreadState(t.id()))
	t.state.Next = t.pending.bornAt
	at := t.pending.liveFrom
	at.Set(topic.Threads, t.pending.bornAt)
	r.turnLive(&t.subject, at, nil)
}

// threadLoaded makes a thread live from a snapshot. The caller holds the slot's lock.
func (r *Replica) threadLoaded(t *threadEntry, snap *Snapshot) {
	at := snap.At[t.slot.n]
	var old *ThreadState
	if t.loaded() {
		r.thaw(t)
		old = t.state
	}
	now := snap.Threads[t.id()]
	if now == nil {
		now = NewThreadState(t.id())
	}
	now.restore(at.At(topic.Threads))
	t.receipts = at.At(topic.Receipts)
	r.quarantinedBy(&t.subject, snap)
	switch {
	case old == nil:
		r.hold(t, now)
		for _, u := range t.locals {
			t.missed(u, -1)
		}
	case old.Next >= now.Next: // nothing was missed but receipts
		for u, w := range now.Marks {
			t.watermark(u, id.DeviceID{}, 0, w)
		}
	default:
		loaded := now.Marks
		now.Marks = old.Marks
		for u, m := range old.Sent {
			if now.Sent[u].Position < m.Position {
				now.Sent[u] = m
			}
		}
		r.hold(t, now)
		for u, w := range loaded {
			t.watermark(u, id.DeviceID{}, 0, w)
		}
		if now.last() > old.last() {
			for _, u := range t.locals {
				t.missed(u, old.last())
			}
		}
	}
	r.turnLive(&t.subject, at, nil)
}

// userLoaded makes a user live from a snapshot. The caller holds the slot's lock.
func (r *Replica) userLoaded(u *userEntry, snap *Snapshot, after *actions) {
	at := snap.At[u.slot.n]
	now := snap.Users[u.id]
	if now == nil {
		now = slimUser(u.id)
	}
	now.Next = at.At(topic.Users)
	r.quarantinedBy(&u.subject, snap)
	if u.state == nil || now.Next > u.state.Next {
		before := u.state
		u.state = now
		u.invitedSince(before)
		for d, dev := range now.Devices {
			if dev.Revoked {
				u.slot.note(revoked(d), u)
			}
		}
		for t := range now.Threads {
			after.add(func() { r.join(u, t, -1) })
		}
	}
	r.turnLive(&u.subject, at, after)
}

// turnLive makes a subject live whose state stands at the given positions, and applies what came meanwhile. The caller
// holds the slot's lock.
func (r *Replica) turnLive(sub *subject, at topic.Cursor, after *actions) {
	list := sub.pending.backlog.take(r.cfg.Budget)
	sub.slot.turnedLive(sub, at)
	if t := sub.thread; t != nil {
		if sub.noRoom {
			sub.slot.note(late{t.id(), nil}, t.locals...)
		}
		t.drop() // the snapshot has it, or the backlog
	}
	sub.noRoom = false
	slices.SortStableFunc(list, func(a, b queued) int {
		return cmp.Or(
			cmp.Compare(a.topic.Number(), b.topic.Number()), cmp.Compare(a.rec.GetPosition(), b.rec.GetPosition()),
		)
	})
	for _, e := range list {
		if topic.Position(e.rec.GetPosition()) >= at.At(e.topic) { // else the state has it, even if this version cannot
			r.take(sub, e, after)
		}
	}
	if t := sub.thread; t != nil && sub.stopped && !sub.isQuarantined(topic.Threads) {
		sub.slot.note(goesOn(t.id()), t.locals...)
	}
	sub.stopped = false
	closed(&sub.news)
}
