package replica

import (
	"context"
	"slices"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Delivered returns the delivered watermark of each device in each thread by the views, -1 where there is none. It may
// be behind.
func (r *Replica) Delivered(ctx context.Context, keys []DeviceThread) ([]topic.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	at, err := r.delivered.get(ctx, keys)
	if err != nil {
		return nil, Unavailable(err)
	}
	return at, nil
}

// Unread counts, for a device that is shown nothing from before its floor, the messages that each of glances leaves
// unread. The views must have reached those glances' ends (Reach).
func (r *Replica) Unread(ctx context.Context, glances []*Glance, floor user.Floor) ([]Counted, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	keys := make([]Unread, len(glances))
	for i, g := range glances {
		from, ms := floor.In(g.Slot)
		keys[i] = Unread{
			User: g.User, Thread: g.Thread, Unread: g.Member.Unread(g.LastOrdinal, g.Own),
			First: g.Member.Spans[0].From, FloorMS: ms, From: from,
		}
	}
	out, err := r.unread.get(ctx, keys)
	if err != nil {
		return nil, Unavailable(err)
	}
	return out, nil
}

// Rejected returns what the views have of rejected messages that a device of a followed user has sent, oldest first in
// each thread: all those of which this edge has come to know before, and for which it has told Follower.Rejected.
func (r *Replica) Rejected(ctx context.Context, u id.UserID, d id.DeviceID) ([]Rejected, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	n := Needs{}
	for _, t := range r.threadsOf(u) {
		t.slot.mu.RLock()
		n.Add(topic.Threads, t.slot.n, t.slot.rejected-1)
		t.slot.mu.RUnlock()
	}
	if err := r.Past(ctx, n); err != nil {
		return nil, err
	}
	found, err := r.rejected.get(ctx, []DeviceKey{{u, d}})
	if err != nil {
		return nil, Unavailable(err)
	}
	return found[0], nil
}

// threadsOf returns the threads of a user who is followed here.
func (r *Replica) threadsOf(u id.UserID) []*threadEntry {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	us := s.users[u]
	s.mu.RUnlock()
	if us == nil {
		return nil
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	return slices.Clone(us.threads)
}

// Tails reads ranges, each of which the views have reached by then: it waits until they have, and does so again when
// they went back meanwhile. What is read before would be taken for all that there is, and what is after it would never
// be sent.
func (r *Replica) Tails(ctx context.Context, ranges []Range) ([]Tail, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	for {
		tails, err := r.tails.get(ctx, ranges)
		if err != nil {
			return nil, Unavailable(err)
		}
		need := map[topic.Slot]topic.Position{}
		for i, t := range tails {
			if t.Next <= ranges[i].UpTo {
				s := topic.SlotOf(topic.Subject(ranges[i].Thread), len(r.slots))
				need[s] = max(need[s], ranges[i].UpTo)
			}
		}
		if len(need) == 0 {
			return tails, nil
		}
		if err := r.reach(ctx, need); err != nil {
			return nil, Unavailable(err)
		}
	}
}

// Reach waits until the views have the threads' events of these positions.
func (r *Replica) Reach(ctx context.Context, need map[topic.Slot]topic.Position) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	if err := r.reach(ctx, need); err != nil {
		return Unavailable(err)
	}
	return nil
}

// Needs is positions that the views must have got past, by topic and slot.
type Needs map[Part]topic.Position

// Part is a topic of a slot.
type Part struct {
	Topic topic.Topic
	Slot  topic.Slot
}

// Add needs one more position; one below 0 is none.
func (n Needs) Add(t topic.Topic, s topic.Slot, p topic.Position) {
	k := Part{t, s}
	if had, known := n[k]; p >= 0 && (!known || p > had) {
		n[k] = p
	}
}

// Past waits until the views have got past all of these positions.
func (r *Replica) Past(ctx context.Context, n Needs) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	err := r.clock.wait(ctx, func(at []topic.Cursor) bool {
		for k, p := range n {
			if at[k.Slot].At(k.Topic) <= p {
				return false
			}
		}
		return true
	})
	if err != nil {
		return Unavailable(err)
	}
	return nil
}

// TakenIn adds to n what a thread that is followed here has taken in, of which devices may have been told. No I/O.
func (r *Replica) TakenIn(t id.ThreadID, n Needs) {
	s := r.slotOf(topic.Subject(t))
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ts := s.threads[t]; ts != nil && ts.loaded() {
		n.Add(topic.Threads, s.n, ts.next()-1)
	}
}

// TakenInBy adds to n what a user who is followed here, and, if threads says so, his threads have taken in. No I/O.
func (r *Replica) TakenInBy(u id.UserID, threads bool, n Needs) {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	us := s.users[u]
	if us == nil || us.state == nil {
		s.mu.RUnlock()
		return
	}
	n.Add(topic.Users, s.n, us.state.Next-1)
	s.mu.RUnlock()
	if !threads {
		return
	}
	for _, t := range r.threadsOf(u) {
		t.slot.mu.RLock()
		if t.loaded() {
			n.Add(topic.Threads, t.slot.n, t.next()-1)
		}
		t.slot.mu.RUnlock()
	}
}

// WaitViews waits until this edge has read a topic of a subject's slot beyond a position, and then until the views have
// got as far as it has, which it returns. Who asks them thereafter finds what was in the log before it was read here.
func (r *Replica) WaitViews(
	ctx context.Context, t topic.Topic, of topic.Subject, beyond topic.Position,
) (topic.Position, error) {
	n := topic.SlotOf(of, len(r.slots))
	if err := r.WaitFor(ctx, n, t, beyond); err != nil {
		return 0, err
	}
	cursor, _ := r.Cursor(n)
	upTo := cursor.At(t)
	return upTo, r.clock.wait(ctx, func(at []topic.Cursor) bool { return at[n].At(t) >= upTo })
}

func (r *Replica) reach(ctx context.Context, need map[topic.Slot]topic.Position) error {
	return r.clock.wait(ctx, func(at []topic.Cursor) bool {
		for s, p := range need {
			if at[s].At(topic.Threads) <= p {
				return false
			}
		}
		return true
	})
}

// readTails is a load of tails.
func (r *Replica) readTails(ctx context.Context, ranges []Range) ([]Tail, error) {
	asked := r.clock.answered()
	tails, err := r.store.Tails(ctx, ranges)
	if err != nil || len(tails) != len(ranges) {
		return tails, err
	}
	found := make([]seen, len(tails))
	for i, t := range tails {
		found[i] = seen{topic.SlotOf(topic.Subject(ranges[i].Thread), len(r.slots)), topic.Threads, t.Next}
	}
	r.clock.take(asked, found...)
	return tails, nil
}
