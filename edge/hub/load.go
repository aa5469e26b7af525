package hub

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// loadQueue is the subjects that wait for a snapshot. It is bounded by the number of subjects: each is in it once per
// Subscribe at most.
type loadQueue struct {
	wake chan struct{} // capacity 1
	mu   sync.Mutex
	list []*subject
}

func (q *loadQueue) push(subs ...*subject) {
	q.mu.Lock()
	q.list = append(q.list, subs...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *loadQueue) take() []*subject {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.list
	q.list = nil
	return l
}

// reached tells whether a snapshot at these positions joins on to what the stream brings. The caller holds the slot's
// lock.
func (sub *subject) reached(at []topic.Cursor) bool {
	for _, t := range sub.topics() {
		if at[sub.slot.n].At(t) < sub.liveFrom.At(t) {
			return false
		}
	}
	return true
}

// runLoads makes snapshots: of all subjects for which the views are far enough, many to one transaction.
func (h *Hub) runLoads(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	room, pace := make(chan struct{}, h.cfg.Loaders), pace{every: h.cfg.Gather}
	failed := make(chan []*subject)
	var behind []*subject // the views have not reached their live_from
	var again []*subject  // a snapshot failed
	var backoff time.Duration
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	done := func() {}
	defer func() { done() }()
	for {
		list := slices.Concat(behind, h.loads.take())
		behind = nil
		var ready []*subject
		at, moved := h.views.look()
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
		next := func() {}
		if len(behind) > 0 {
			next = h.views.want()
		}
		done()
		done = next
		for part := range slices.Chunk(ready, h.cfg.Batch) {
			pace.began = time.Now()
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				late := h.load(ctx, part)
				<-room
				if len(late) > 0 {
					select {
					case failed <- late:
					case <-ctx.Done():
					}
				}
			})
		}
		select {
		case <-h.loads.wake:
			if !pace.wait(ctx) {
				return nil
			}
		case <-moved:
		case subs := <-failed:
			again = append(again, subs...)
			backoff = min(max(2*backoff, h.cfg.RetryMin), h.cfg.RetryMax)
			retry.Reset(backoff)
		case <-retry.C:
			h.loads.push(again...)
			if len(again) == 0 {
				backoff = 0
			}
			again = nil
			retry.Reset(max(h.cfg.RetryMax, 2*backoff))
		case <-ctx.Done():
			return nil
		}
	}
}

// load makes one snapshot and lets its subjects turn live. It returns those that must be tried again.
func (h *Hub) load(ctx context.Context, subs []*subject) (late []*subject) {
	var threads []id.ThreadID
	var users []id.UserID
	for _, sub := range subs {
		if sub.thread != nil {
			threads = append(threads, sub.thread.id)
		} else {
			users = append(users, sub.user.id)
		}
	}
	began, asked := time.Now(), h.views.answered()
	qctx, cancel := context.WithTimeout(ctx, 2*h.cfg.Wait)
	snap, err := h.store.snapshot(qctx, threads, users)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			h.failed("snapshot", err)
		}
		return subs
	}
	h.metrics.snapshotSeconds.Observe(time.Since(began).Seconds())
	h.metrics.snapshotSubjects.Observe(float64(len(subs)))
	h.views.advance(asked, snap.at)
	for _, sub := range subs {
		var after actions
		s := sub.slot
		s.mu.Lock()
		switch {
		case sub.gone || sub.phase != loading:
		case !sub.reached(snap.at):
			// subscribed anew meanwhile, or the views went back: it waits until the clock has reached it
			h.loads.push(sub)
		case sub.thread != nil:
			h.threadLoaded(sub.thread, snap, &after)
		default:
			h.userLoaded(sub.user, snap, &after)
		}
		s.mu.Unlock()
		after.run()
	}
	return nil
}

// born makes a thread live that is known to have no event before bornAt and so needs no snapshot. The caller holds the
// slot's lock.
func (h *Hub) born(t *threadSub, after *actions) {
	t.state = newThreadState(t.id)
	t.state.Next = t.bornAt
	at := t.liveFrom
	at.Set(topic.Threads, t.bornAt)
	h.turnLive(&t.subject, at, after)
}

// threadLoaded makes a thread live from a snapshot. The caller holds the slot's lock.
func (h *Hub) threadLoaded(t *threadSub, snap *snapshot, after *actions) {
	at := snap.at[t.slot.n]
	old := t.state
	now := snap.threads[t.id]
	if now == nil {
		now = newThreadState(t.id)
	}
	now.Next = at.At(topic.Threads)
	now.Restore()
	t.poisonedBy(snap)
	switch {
	case old == nil:
		t.state = now
		for _, u := range t.locals {
			h.missed(t, u, 0)
		}
	case old.Next >= now.Next: // nothing was missed but receipts
		for u, w := range now.watermarks {
			h.watermark(t, u, id.DeviceID{}, w)
		}
	default:
		loaded := now.watermarks
		now.watermarks = old.watermarks
		for u, m := range old.sent {
			if now.sent[u].position < m.position {
				now.sent[u] = m
			}
		}
		t.state = now
		for u, w := range loaded {
			h.watermark(t, u, id.DeviceID{}, w)
		}
		if now.last() > old.last() {
			for _, u := range t.locals {
				h.missed(t, u, old.last())
			}
		}
	}
	h.turnLive(&t.subject, at, after)
}

// userLoaded makes a user live from a snapshot. The caller holds the slot's lock.
func (h *Hub) userLoaded(u *userSub, snap *snapshot, after *actions) {
	at := snap.at[u.slot.n]
	now := snap.users[u.id]
	if now == nil {
		now = slimUser(u.id)
	}
	now.Next = at.At(topic.Users)
	u.poisonedBy(snap)
	if u.state == nil || now.Next > u.state.Next {
		u.state = now
		for _, c := range u.sessions() {
			if d := now.Devices[c.device]; d != nil && d.Revoked {
				h.revoke(c, after)
			}
		}
		for t := range now.Threads {
			after.add(func() { h.join(u, t, -1) })
		}
	}
	h.turnLive(&u.subject, at, after)
}

func (sub *subject) poisonedBy(snap *snapshot) {
	for _, t := range topic.Folded {
		if snap.poisoned[poison{t.Number(), sub.key}] {
			sub.poisoned |= 1 << t.Number()
		}
	}
}

// turnLive makes a subject live whose state stands at the given positions, and applies what came meanwhile. The caller
// holds the slot's lock.
func (h *Hub) turnLive(sub *subject, at topic.Cursor, after *actions) {
	sub.slot.turnedLive(sub, at)
	list := sub.held
	sub.held = nil
	slices.SortStableFunc(list, func(a, b held) int {
		return cmp.Or(
			cmp.Compare(a.topic.Number(), b.topic.Number()), cmp.Compare(a.rec.GetPosition(), b.rec.GetPosition()),
		)
	})
	for _, e := range list {
		h.apply(sub, e.topic, e.rec, after)
	}
	sub.tell()
}

// slimUser is the state of a user as far as the hub needs it: without contacts and blocks.
func slimUser(u id.UserID) *user.State {
	s := user.New(u)
	s.Contacts, s.Blocked = nil, nil
	return s
}
