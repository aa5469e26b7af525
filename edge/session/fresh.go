package session

import (
	"context"
	"time"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// A read is answered from views that may be a moment behind what the connection was told by then (wire 14.1): by
// pushes, of which this edge has taken in all, and by acks, which may be ahead of that. So it waits for the views
// first.

// viewWait is how long a read waits for a view that does not know yet what this edge does.
const viewWait = 2 * time.Second

// maxAcked bounds Session.acked and told. What an ack told matters until this edge has taken it in, a moment later.
const maxAcked = 64

// acknowledged notes that the device is told of something in the log. Any goroutine.
func (s *Session) acknowledged(t topic.Topic, slot topic.Slot, at topic.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked == nil {
		s.acked = replica.Needs{}
	}
	note(s.acked, t, slot, at)
}

// note adds a position to what is bounded by maxAcked, in place of any other when it is full.
func note(n replica.Needs, t topic.Topic, slot topic.Slot, at topic.Position) {
	if _, known := n[replica.Part{Topic: t, Slot: slot}]; !known && len(n) >= maxAcked {
		for any := range n {
			delete(n, any)
			break
		}
	}
	n.Add(t, slot, at)
}

// ackedIn adds to n what acks told of a topic of a slot.
func (s *Session) ackedIn(t topic.Topic, slot topic.Slot, n replica.Needs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.acked[replica.Part{Topic: t, Slot: slot}]; known {
		n.Add(t, slot, at)
	}
}

// past waits until the views have got past what is needed, or says that they have not.
func (s *Session) past(ctx context.Context, n replica.Needs) error {
	limited, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	switch err := s.srv.replica.Past(limited, n); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &wire.Error{
		Code: wirev1.Code_CODE_UNAVAILABLE, Message: "the views have not got as far as this connection was told",
		RetryAfter: viewWait / 2,
	}
}

// freshThread waits until the views have what the connection was told of a thread, before a position unless that is 0.
func (s *Session) freshThread(ctx context.Context, t id.ThreadID, before topic.Position) error {
	n := replica.Needs{}
	slot := topic.SlotOf(topic.Subject(t), s.srv.cfg.Partitions)
	if v, known := s.srv.replica.View(t); known && v.Roster.WasMember(s.user) { // strangers wait for nothing
		s.srv.replica.TakenIn(t, n)
	}
	s.ackedIn(topic.Threads, slot, n)
	part := replica.Part{Topic: topic.Threads, Slot: slot}
	if at, needed := n[part]; needed && before > 0 {
		n[part] = min(at, before-1)
	}
	return s.past(ctx, n)
}

// freshList waits until the views have what the connection was told of any of its user's threads.
func (s *Session) freshList(ctx context.Context) error {
	n := replica.Needs{}
	s.srv.replica.TakenInBy(s.user, true, n)
	s.mu.Lock()
	for k, at := range s.acked {
		n.Add(k.Topic, k.Slot, at)
	}
	s.mu.Unlock()
	return s.past(ctx, n)
}

// freshUser waits until the views have what the connection was told of its own user.
func (s *Session) freshUser(ctx context.Context) error {
	n := replica.Needs{}
	s.srv.replica.TakenInBy(s.user, false, n)
	s.ackedIn(topic.Users, topic.SlotOf(topic.Subject(s.user), s.srv.cfg.Partitions), n)
	return s.past(ctx, n)
}

// devices lists the user's devices.
func (s *Session) devices(ctx context.Context) (*wirev1.Devices, error) {
	if err := s.freshUser(ctx); err != nil {
		return nil, err
	}
	return s.asking.ListDevices(ctx, s.user)
}

// profiles returns users by id. One that the view does not have may have registered a moment ago, as a push has told:
// then it is asked again once the view is as far as this edge.
func (s *Session) profiles(ctx context.Context, ids [][]byte) (*wirev1.Users, error) {
	if err := s.freshUser(ctx); err != nil {
		return nil, err
	}
	got, err := s.asking.GetUsers(ctx, ids)
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool, len(got.GetUsers()))
	for _, u := range got.GetUsers() {
		found[string(u.GetUserId())] = true
	}
	n := replica.Needs{}
	for _, b := range ids {
		u, err := id.From[id.UserID](b)
		if err != nil || found[string(b)] {
			continue
		}
		slot := topic.SlotOf(topic.Subject(u), s.srv.cfg.Partitions)
		if at, known := s.srv.replica.Cursor(slot); known {
			n.Add(topic.Users, slot, at.At(topic.Users)-1)
		}
	}
	if len(n) == 0 {
		return got, nil
	}
	if err := s.past(ctx, n); err != nil {
		return nil, err
	}
	return s.asking.GetUsers(ctx, ids)
}

// raise brings members' watermarks up to what this edge has taken in: receipts are not waited for.
func (s *Session) raise(t id.ThreadID, members []*wirev1.Member) {
	for _, m := range members {
		w := m.GetWatermark()
		u, err := id.From[id.UserID](w.GetUserId())
		if err != nil {
			continue
		}
		now := s.srv.replica.Watermark(t, u)
		w.SetDeliveredPosition(max(w.GetDeliveredPosition(), int64(now.DeliveredPosition)))
		w.SetDeliveredOrdinal(max(w.GetDeliveredOrdinal(), now.DeliveredOrdinal))
		w.SetReadPosition(max(w.GetReadPosition(), int64(now.ReadPosition)))
		w.SetReadOrdinal(max(w.GetReadOrdinal(), now.ReadOrdinal))
	}
}
