package hub

import (
	"errors"
	"fmt"
	"time"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// events takes in the events of one topic of a slot. It runs on the link's reader.
func (h *Hub) events(s *slot, c *conn, t topic.Topic, records []*linkv1.Record) {
	var after actions
	s.mu.Lock()
	if s.owner == c {
		for _, r := range records {
			h.event(s, t, r, &after)
		}
	}
	s.mu.Unlock()
	after.run()
	if n := len(records); n > 0 {
		h.metrics.eventAge.Observe(max(0, float64(time.Now().UnixMilli()-records[n-1].GetLogTimeMs())/1000))
	}
}

func (h *Hub) event(s *slot, t topic.Topic, r *linkv1.Record, after *actions) {
	key := r.GetKey()
	if len(key) < id.Size {
		h.metrics.drops.WithLabelValues("malformed_key").Inc()
		return
	}
	var sub *subject
	switch t {
	case topic.Threads, topic.Receipts:
		if ts := s.threads[id.ThreadID(key[:id.Size])]; ts != nil {
			sub = &ts.subject
		}
	case topic.Users:
		if us := s.users[id.UserID(key[:id.Size])]; us != nil {
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
		h.apply(sub, t, r, after)
	case loading:
		if len(sub.held) >= h.cfg.SubjectBuffer {
			// The events are in the log: it is subscribed anew from where the views are, as soon as they have said
			// where.
			h.metrics.drops.WithLabelValues("subject_buffer_full").Inc()
			sub.phase, sub.held, sub.tooMany, sub.parkedAt = wanted, nil, true, h.views.answered()
			s.parked = append(s.parked, sub)
			return
		}
		sub.held = append(sub.held, held{t, r})
	}
}

// apply folds one event into a live subject. A panic of a fold is the subject's end, not the slot's.
func (h *Hub) apply(sub *subject, t topic.Topic, r *linkv1.Record, after *actions) {
	if sub.isPoisoned(t) {
		h.metrics.drops.WithLabelValues("poisoned").Inc()
		return
	}
	defer func() {
		if p := recover(); p != nil {
			h.poison(sub, t, r, fmt.Errorf("panic: %v", p))
		}
	}()
	e, err := event.Decode(r.GetValue())
	switch {
	case errors.Is(err, event.ErrIgnorable):
		return
	case err != nil: // a newer version's too: its subject takes nothing more here until one that reads it has come
		h.poison(sub, t, r, err)
		return
	}
	switch t {
	case topic.Threads:
		h.threadEvent(sub.thread, e, r, after)
	case topic.Receipts:
		h.receiptEvent(sub.thread, e, r)
	case topic.Users:
		h.userEvent(sub.user, e, r, after)
	}
}

// poison stops a subject's events of one topic, as the projectors do.
func (h *Hub) poison(sub *subject, t topic.Topic, r *linkv1.Record, err error) {
	sub.poisoned |= 1 << t.Number()
	h.metrics.poisoned.Inc()
	h.log.Error(
		"an event cannot be applied, its subject is parked", "topic", t, "slot", sub.slot.n, "position",
		r.GetPosition(), "err", err,
	)
}

func (h *Hub) threadEvent(t *threadSub, e *event.Event, r *linkv1.Record, after *actions) {
	at := topic.Position(r.GetPosition())
	v := t.state.Apply(e, at, r.GetLogTimeMs())
	switch v.Outcome {
	case thread.Accepted:
	case thread.Rejected:
		h.metrics.verdicts.WithLabelValues(string(v.Reason)).Inc()
		h.rejected(t, e, at, v.Reason, after)
		return
	case thread.Duplicate:
		h.metrics.verdicts.WithLabelValues("duplicate").Inc()
		return
	default:
		return
	}
	if e.HasMessageSent() {
		t.state.sent[t.state.LastSender] = sentAt{at, v.Ordinal}
	}
	if len(t.locals) == 0 {
		return
	}
	device := string(e.GetDeviceId())
	frame := eventFrame(t.id, row{at, v.Ordinal, r.GetLogTimeMs(), r.GetValue()})
	for _, u := range t.locals {
		m := t.state.Members[u.id]
		if !m.Sees(at) {
			continue
		}
		var changed []byte // of someone who is new
		if m.Spans[len(m.Spans)-1].From == at {
			changed = changedFrame(t.summary(u.id, 0))
		}
		for _, c := range u.sessions() {
			if r.GetLogTimeMs() < c.floor.Load() {
				continue
			}
			if changed != nil {
				h.push(c, push{t.id, at, changed, false})
			}
			h.push(c, push{t.id, at, frame, string(c.device[:]) == device})
		}
	}
}

// rejected tells the device that sent a message which the fold does not accept, when it is connected here.
func (h *Hub) rejected(t *threadSub, e *event.Event, at topic.Position, reason thread.Reason, after *actions) {
	if !e.HasMessageSent() {
		return
	}
	u, d := e.User, e.Device
	p := push{t.id, never, rejectedFrame(t.id, e.GetMessageSent().GetMessageId(), at, reason), false}
	after.add(func() {
		s := h.slotOf(topic.Subject(u))
		s.mu.RLock()
		us := s.users[u]
		s.mu.RUnlock()
		if us == nil {
			return
		}
		for _, c := range us.sessions() {
			if c.device == d {
				h.push(c, p)
			}
		}
	})
}

func (h *Hub) receiptEvent(t *threadSub, e *event.Event, r *linkv1.Record) {
	k, err := event.ParseKey(topic.Receipts, r.GetKey())
	if err != nil {
		h.metrics.drops.WithLabelValues("malformed_key").Inc()
		return
	}
	if u, w, ok := thread.Receipt(k, e); ok {
		h.watermark(t, u, k.Device, w)
	}
}

// watermark merges a watermark of a user's device and tells those whom it concerns: the user's other devices, and
// members with a message that it covers and the one before did not. The caller holds the slot's lock.
func (h *Hub) watermark(t *threadSub, u id.UserID, d id.DeviceID, w thread.Watermark) {
	before := t.state.watermarks[u]
	now := before.Merge(w)
	if now == before {
		return
	}
	t.state.watermarks[u] = now
	t.all = nil
	if t.state.Members[u] == nil {
		return
	}
	var frame []*memberMark
	for _, l := range t.locals {
		if l.id != u {
			if s, ok := t.state.sent[l.id]; !ok || !s.concerns(before, now) || !t.state.IsMember(l.id) {
				continue
			}
		}
		for _, c := range l.sessions() {
			if l.id == u && c.device == d {
				continue
			}
			if frame == nil {
				frame = []*memberMark{markOf(u, now)}
			}
			h.receipts(c, t.id, frame)
		}
	}
}

func (h *Hub) userEvent(u *userSub, e *event.Event, r *linkv1.Record, after *actions) {
	at := topic.Position(r.GetPosition())
	if at < u.state.Next {
		return
	}
	switch e.WhichBody() {
	case eventv1.Event_UserRegistered_case,
		eventv1.Event_DeviceLinked_case,
		eventv1.Event_DeviceRevoked_case,
		eventv1.Event_ThreadJoined_case,
		eventv1.Event_ThreadLeft_case:
	default: // of no concern here
		u.state.Next = at + 1
		return
	}
	v := u.state.Apply(e, at, r.GetLogTimeMs())
	if v.Outcome != user.Accepted {
		return
	}
	for _, d := range v.Revoked {
		for _, c := range u.sessions() {
			if c.device == d {
				h.revoke(c, after)
			}
		}
	}
	if e.HasThreadJoined() {
		since := topic.Position(-1)
		if j := e.GetThreadJoined(); j.GetNewThread() {
			since = topic.Position(j.GetSincePosition())
		}
		after.add(func() { h.join(u, v.Thread, since) })
	}
	u.tell()
}

// join gives a user of this edge an interest in a thread. bornAt is a position before which the thread has no event, or
// -1.
func (h *Hub) join(u *userSub, t id.ThreadID, bornAt topic.Position) {
	var after actions
	s := h.slotOf(topic.Subject(t))
	s.mu.Lock()
	ts := s.threads[t]
	if ts == nil {
		ts = s.addThread(t)
	}
	h.addLocal(ts, u, bornAt, &after)
	s.mu.Unlock()
	after.run()
}

// addLocal makes a user local to a thread. The caller holds the lock of the thread's slot.
func (h *Hub) addLocal(t *threadSub, u *userSub, bornAt topic.Position, after *actions) {
	s := t.slot
	u.mu.Lock()
	if u.dead {
		u.mu.Unlock()
		s.idleSince(&t.subject, len(t.locals) == 0)
		return
	}
	_, had := u.threads[t.id]
	u.threads[t.id] = t
	u.mu.Unlock()
	if !had {
		t.locals = append(t.locals, u)
		delete(s.idle, &t.subject)
	}
	if bornAt >= 0 && t.state == nil {
		t.bornAt = bornAt
		if t.phase == loading && t.liveFrom.At(topic.Threads) <= bornAt {
			h.born(t, after)
			return
		}
	}
	if !had && t.state != nil {
		h.missed(t, u, 0)
	}
}

// missed makes a user's sessions catch up with a thread when it has events after a position that he sees and that were
// not pushed to them. The caller holds the slot's lock.
func (h *Hub) missed(t *threadSub, u *userSub, after topic.Position) {
	m := t.state.Members[u.id]
	if m == nil {
		return
	}
	for _, sp := range m.Spans {
		if sp.From <= t.state.LastPosition && (sp.To == 0 || sp.To > after) {
			for _, c := range u.sessions() {
				h.catchUp(c, t.id)
			}
			return
		}
	}
}

// idleSince notes that nobody is interested in a subject any more.
func (s *slot) idleSince(sub *subject, yes bool) {
	if yes && !sub.gone {
		if _, noted := s.idle[sub]; !noted {
			s.idle[sub] = time.Now()
		}
	}
}

func codeOf(r thread.Reason) wirev1.Code {
	switch r {
	case thread.NotMember, thread.Missing:
		return wirev1.Code_CODE_NOT_A_MEMBER
	case thread.NotAdmin:
		return wirev1.Code_CODE_NOT_ALLOWED
	case thread.Full:
		return wirev1.Code_CODE_GROUP_FULL
	}
	return wirev1.Code_CODE_INVALID
}
