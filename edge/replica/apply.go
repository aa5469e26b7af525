package replica

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// events takes in the events of one topic of a slot. It runs on the link's reader.
func (r *Replica) events(s *slot, c *conn, t topic.Topic, records []*linkv1.Record) {
	r.in(s, func(after *actions) {
		if s.owner == c {
			for _, rec := range records {
				r.event(s, t, rec, after)
			}
		}
	})
	s.settle()
	if n := len(records); n > 0 {
		r.metrics.eventAge.Observe(max(0, float64(time.Now().UnixMilli()-records[n-1].GetLogTimeMs())/1000))
	}
}

func (r *Replica) event(s *slot, t topic.Topic, rec *linkv1.Record, after *actions) {
	key, err := event.ParseKey(t, rec.GetKey())
	if err != nil {
		r.metrics.drops.WithLabelValues(dropKey).Inc()
		return
	}
	var sub *subject
	switch t {
	case topic.Threads, topic.Receipts:
		if ts := s.threads[id.ThreadID(key.Subject)]; ts != nil {
			sub = &ts.subject
		}
	case topic.Users:
		if us := s.users[id.UserID(key.Subject)]; us != nil {
			sub = &us.subject
		}
	}
	if sub == nil {
		return
	}
	switch sub.phase {
	case live:
		if _, waits := s.unacked[sub]; waits { // meant for a subscription that is void
			return
		}
		r.take(sub, queued{t, rec}, after)
	case loading:
		if !sub.pending.backlog.add(queued{t, rec}, &r.cfg) {
			r.postpone(sub)
		}
	}
}

// postpone drops what waits for a subject to go on, because there is no room for more. The events are in the log: it is
// subscribed anew from where the views are, as soon as they have said where. The caller holds the slot's lock.
func (r *Replica) postpone(sub *subject) {
	r.metrics.drops.WithLabelValues(dropBacklog).Inc()
	if sub.phase == live {
		sub.pending = &pending{since: time.Now(), bornAt: -1}
		sub.slot.waiting[sub] = struct{}{}
		r.expect(sub.slot)
	}
	p := sub.pending
	sub.phase, sub.tooMany = wanted, true
	p.backlog.take(r.cfg.Budget)
	p.postponed, p.asked = true, r.clock.answered()
	r.postponed.push(sub)
}

// apply folds one event into a live subject. A panic of a fold is the subject's end, not the slot's.
func (r *Replica) apply(sub *subject, t topic.Topic, rec *linkv1.Record, after *actions) {
	if sub.passesOver(t, rec) {
		r.metrics.drops.WithLabelValues("dropped_by_operator").Inc()
		return
	}
	if sub.isQuarantined(t) {
		r.metrics.drops.WithLabelValues(dropQuarantined).Inc()
		return
	}
	defer func() {
		if p := recover(); p != nil {
			r.quarantine(sub, t, rec, fmt.Errorf("panic: %v", p))
		}
	}()
	e, err := event.Decode(rec.GetValue())
	switch {
	case errors.Is(err, event.ErrIgnorable):
		return
	case err != nil && sub.has(t, topic.Position(rec.GetPosition())):
		return // the ring brings it late: a snapshot from a version that reads it was there first
	case err != nil: // a newer version's too: its subject takes nothing more here until one that reads it has come
		r.quarantine(sub, t, rec, err)
		return
	}
	if sub.thread != nil {
		r.thaw(sub.thread)
	}
	switch t {
	case topic.Threads:
		if sub.thread.doubts(e, topic.Position(rec.GetPosition())) {
			r.wait(sub.thread, queued{t, rec})
			return
		}
		r.threadEvent(sub.thread, e, rec)
	case topic.Receipts:
		r.receiptEvent(sub.thread, e, rec)
	case topic.Users:
		r.userEvent(sub.user, e, rec, after)
	}
	closed(&sub.news)
}

// has tells whether the subject's state has what is at a position, of which this version may not know what it is. The
// subject is live; the caller holds the slot's lock.
func (sub *subject) has(t topic.Topic, at topic.Position) bool {
	switch t {
	case topic.Threads:
		return at < sub.thread.next()
	case topic.Receipts:
		return at < sub.thread.receipts
	default:
		return at < sub.user.state.Next
	}
}

func (r *Replica) threadEvent(t *threadEntry, e *event.Event, rec *linkv1.Record) {
	at := topic.Position(rec.GetPosition())
	v := t.state.Apply(e, at, rec.GetLogTimeMs())
	t.weigh()
	if v.Outcome != thread.Stale && !e.HasMessageSent() {
		t.slot.judged(t.id(), at, v)
	}
	switch v.Outcome {
	case thread.Accepted:
	case thread.Rejected:
		r.metrics.verdicts.WithLabelValues(string(v.Reason)).Inc()
		if e.HasMessageSent() {
			t.slot.rejected = at + 1
			t.slot.note(&Rejected{
				Thread: t.id(), Position: at, User: e.User, Device: e.Device,
				Message: e.GetMessageSent().GetMessageId(), Reason: v.Reason,
			})
		}
		return
	case thread.Duplicate:
		r.metrics.verdicts.WithLabelValues(verdictDuplicate).Inc()
		return
	default:
		return
	}
	if e.HasMessageSent() {
		t.state.Sent[t.state.LastSender] = Sent{at, v.Ordinal}
	}
	if len(v.Members) > 0 {
		t.renew()
	}
	if len(t.locals) == 0 {
		return
	}
	told := &Event{
		Thread: t.id(), Slot: t.slot.n, Row: Row{at, v.Ordinal, rec.GetLogTimeMs(), rec.GetValue()},
		Author: e.User, Device: e.Device,
	}
	if len(v.Members) == 0 {
		if len(t.listeners()) > 0 {
			t.slot.note(told, t.audience...)
		}
		return
	}
	var others []*userEntry // some come and some go with this event
	for _, u := range t.locals {
		m := t.state.Members[u.id]
		switch {
		case !m.Sees(at):
		case m.Spans[len(m.Spans)-1].From == at:
			now := t.glance(u.id)
			t.slot.note(joined{told, &now}, u)
		default:
			others = append(others, u)
		}
	}
	if len(others) > 0 {
		t.slot.note(told, others...)
	}
}

// listeners returns the locals who are members. Each sees what is accepted from now on.
func (t *threadEntry) listeners() []*userEntry {
	if t.audience == nil {
		t.audience = make([]*userEntry, 0, len(t.locals))
		for _, u := range t.locals {
			if t.state.IsMember(u.id) {
				t.audience = append(t.audience, u)
			}
		}
	}
	return t.audience
}

func (r *Replica) receiptEvent(t *threadEntry, e *event.Event, rec *linkv1.Record) {
	k, err := event.ParseKey(topic.Receipts, rec.GetKey())
	if err != nil {
		r.metrics.drops.WithLabelValues(dropKey).Inc()
		return
	}
	if u, w, ok := thread.Receipt(k, e); ok {
		t.watermark(u, k.Device, topic.Position(rec.GetPosition()), w)
	}
}

// watermark merges a watermark of a user's device and tells those whom it concerns: himself, for his other devices, and
// members with a message that it covers and the one before did not.
func (t *threadEntry) watermark(u id.UserID, d id.DeviceID, at topic.Position, w thread.Watermark) {
	before := t.state.Marks[u]
	now := before.Merge(w)
	grown := now != before
	if grown {
		t.state.Marks[u] = now
		t.marks = nil
	}
	if t.state.Members[u] == nil {
		return
	}
	var to []*userEntry
	for _, l := range t.locals {
		if l.id != u {
			if s, ok := t.state.Sent[l.id]; !grown || !ok || !s.concerns(before, now) || !t.state.IsMember(l.id) {
				continue
			}
		}
		to = append(to, l)
	}
	if len(to) == 0 {
		return
	}
	r := &Receipt{Thread: t.id(), Device: d, At: at, Said: w, User: u}
	if grown {
		r.Marks = []Mark{{u, now}}
	}
	t.slot.note(r, to...)
}

func (r *Replica) userEvent(u *userEntry, e *event.Event, rec *linkv1.Record, after *actions) {
	at := topic.Position(rec.GetPosition())
	if at < u.state.Next {
		return
	}
	switch e.WhichBody() {
	case eventv1.Event_UserRegistered_case,
		eventv1.Event_DeviceLinked_case,
		eventv1.Event_DeviceRevoked_case,
		eventv1.Event_ThreadJoined_case,
		eventv1.Event_ThreadLeft_case,
		eventv1.Event_MayAddChanged_case,
		eventv1.Event_ThreadInvited_case,
		eventv1.Event_ThreadInvitationEnded_case:
	default: // of no concern here
		u.state.Next = at + 1
		return
	}
	v := u.state.Apply(e, at, rec.GetLogTimeMs())
	if v.Outcome != user.Accepted {
		return
	}
	for _, d := range v.Revoked {
		u.slot.note(revoked(d), u)
	}
	if !v.Invitation.IsZero() {
		u.invited(v.Invitation)
	}
	if e.HasThreadJoined() {
		since := topic.Position(-1)
		if j := e.GetThreadJoined(); j.GetNewThread() {
			since = topic.Position(j.GetSincePosition())
		}
		after.add(func() { r.join(u, v.Thread, since) })
	}
}

// join makes a followed user's thread one that is followed. bornAt is a position before which the thread has no event,
// or -1.
func (r *Replica) join(u *userEntry, t id.ThreadID, bornAt topic.Position) {
	s := r.slotOf(topic.Subject(t))
	r.in(s, func(*actions) {
		ts := s.threads[t]
		if ts == nil {
			ts = r.addThread(s, t)
		}
		r.addLocal(ts, u, bornAt)
	})
}

// addLocal makes a user local to a thread. The caller holds the lock of the thread's slot.
func (r *Replica) addLocal(t *threadEntry, u *userEntry, bornAt topic.Position) {
	had := slices.Contains(t.locals, u)
	u.mu.Lock()
	if u.dead {
		u.mu.Unlock()
		r.relax(&t.subject)
		return
	}
	if !had {
		u.threads = append(u.threads, t)
	}
	u.mu.Unlock()
	if !had {
		t.locals = append(t.locals, u)
		t.renew()
		t.idle = 0
		if t.noRoom {
			t.slot.note(late{t.id(), ErrNoRoom}, u)
		}
	}
	if bornAt >= 0 && !t.loaded() {
		t.pending.bornAt = bornAt
		if t.phase == loading && t.pending.liveFrom.At(topic.Threads) <= bornAt {
			r.born(t)
			return
		}
	}
	if !had && t.loaded() {
		r.thaw(t)
		t.missed(u, -1)
	}
}

// removeLocal is the opposite of addLocal, which must not come after it. The caller holds the lock of the thread's
// slot.
func (r *Replica) removeLocal(t *threadEntry, u *userEntry) {
	if i := slices.Index(t.locals, u); i >= 0 {
		last := len(t.locals) - 1
		t.locals[i], t.locals[last] = t.locals[last], nil
		t.locals = t.locals[:last]
		t.renew()
	}
	r.relax(&t.subject)
}

// missed tells a user to catch up with a thread when it has events after a position, -1 for all, that he sees and was
// not told of.
func (t *threadEntry) missed(u *userEntry, after topic.Position) {
	m := t.state.Members[u.id]
	if m == nil {
		return
	}
	for _, sp := range m.Spans {
		if sp.From <= t.state.LastPosition && (sp.To == 0 || sp.To > after) {
			t.slot.note(missed{t.id(), after, t.state.LastPosition}, u)
			return
		}
	}
}
