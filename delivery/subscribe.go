package delivery

import (
	"context"
	"errors"
	"maps"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// subscribe answers one Subscribe: what the ring (or, for an older cursor, the log) has of the subjects since the
// cursor, then live events. The goroutine of the link's slot only.
//
// The link is held in this slot from the first look at the ring until all is sent: apply skips it, so that no event and
// no progress overtakes the catch-up. What it missed meanwhile is taken from the ring by release.
func (ls *linkSlot) subscribe(ctx context.Context, r request) error {
	s := ls.slot
	want := make(map[topic.Subject]struct{}, len(r.subjects))
	for _, subject := range r.subjects {
		want[subject] = struct{}{}
	}
	s.mu.Lock()
	if s.gone || ls.subjects == nil {
		s.mu.Unlock()
		return ls.conn.notOwner(ctx, s.id, r)
	}
	refused, taken := ls.reserve(want)
	defer ls.conn.subjects.Add(-taken) // by then want has counted them
	ls.held = true
	cur, served := s.ring.start(), servedFresh
	if r.from != nil {
		old := false
		served = servedRing
		for t, p := range r.from {
			old = old || p < cur[t]
			cur[t] = max(cur[t], p)
		}
		if old {
			start := s.ring.start()
			s.mu.Unlock()
			reach := ls.conn.svc.past.reachable(ctx, s.id, *r.from, start)
			s.mu.Lock()
			if s.gone {
				s.mu.Unlock()
				return ls.conn.notOwner(ctx, s.id, r)
			}
			served = servedLog
			for t, p := range r.from {
				switch start = s.ring.start(); {
				case p >= start[t] || reach[t]:
					cur[t] = p
				default:
					cur[t], served = start[t], servedSnapshot
				}
			}
		}
	}
	s.metrics.subscribe.WithLabelValues(served).Inc()

	// mu is held here and at the head of each round.
	out := []*linkv1.ToEdge{linkv1.ToEdge_builder{Subscribed: linkv1.Subscribed_builder{
		Id: r.id, Slot: int32(s.id), LiveFrom: link.EncodeCursor(cur), Refused: refused, Reason: reasonOf(refused),
	}.Build()}.Build()}
	for {
		if s.gone || ls.subjects == nil {
			s.mu.Unlock()
			return nil // the slot (Owned has said so) or the link is gone: what was sent is void
		}
		if t, behind := s.ring.behind(cur, ls.sent); behind {
			upTo := min(s.ring.logs[t].start, ls.sent[t])
			s.mu.Unlock()
			if err := ls.sendWait(ctx, out); err != nil {
				return err
			}
			out = nil
			if err := ls.sendPast(ctx, r.id, t, cur[t], upTo, want); err != nil {
				return err
			}
			cur[t] = upTo
			s.mu.Lock()
			continue
		}
		recs, reached := s.ring.collect(cur, ls.sent, want)
		out = append(out, frames(s.id, r.id, recs)...)
		rest, err := ls.sendNow(out)
		out = nil
		if err == nil && len(rest) > 0 {
			s.mu.Unlock()
			err = ls.sendWait(ctx, rest)
			s.mu.Lock()
		}
		if err != nil {
			s.mu.Unlock()
			return err
		}
		cur = reached
		if s.gone || ls.subjects == nil {
			continue
		}
		if cur.Covers(ls.sent) {
			break
		}
		s.mu.Unlock() // others get their turn between two pieces of the ring
		s.mu.Lock()
	}
	for subject := range want {
		s.want(ls, subject)
	}
	defer s.mu.Unlock()
	return ls.release(ctx)
}

// reserve takes room on the link for those of the subjects that it does not have yet. Those for which there is none it
// returns, and takes out of want. The caller holds mu.
func (ls *linkSlot) reserve(want map[topic.Subject]struct{}) (refused [][]byte, taken int64) {
	c := ls.conn
	for subject := range want {
		if _, has := ls.subjects[subject]; has {
			continue
		}
		if c.subjects.Add(1) > int64(c.svc.cfg.MaxSubjects) && c.refusals {
			c.subjects.Add(-1)
			refused = append(refused, subject[:])
			delete(want, subject)
			continue
		}
		taken++
	}
	if len(refused) > 0 {
		ls.slot.metrics.refused.Add(float64(len(refused)))
	}
	return refused, taken
}

func reasonOf(refused [][]byte) linkv1.Refusal {
	if len(refused) > 0 {
		return linkv1.Refusal_REFUSAL_FULL
	}
	return linkv1.Refusal_REFUSAL_UNSPECIFIED
}

// releaseReads is how often release may read the log for what has left the ring meanwhile: each time less, unless the
// link cannot keep up.
const releaseReads = 8

// release sends what the link missed while it was held, and makes it live again. The caller holds mu; it is given back
// meanwhile.
func (ls *linkSlot) release(ctx context.Context) error {
	s := ls.slot
	for reads := 0; ; {
		if s.gone || ls.subjects == nil {
			return nil
		}
		if ls.sent == s.ring.next() {
			ls.held = false
			ls.progress()
			return nil
		}
		if t, behind := s.ring.behind(ls.sent, s.ring.next()); behind {
			if reads++; reads > releaseReads {
				return &linkError{reasonBehind, errors.New("the ring went on before the link had caught up")}
			}
			from, upTo, all := ls.sent[t], s.ring.logs[t].start, maps.Clone(ls.subjects)
			s.mu.Unlock()
			err := ls.sendPast(ctx, 0, t, from, upTo, all)
			s.mu.Lock()
			if err != nil {
				return err
			}
			ls.sent[t] = upTo
			continue
		}
		recs, reached := s.ring.collect(ls.sent, s.ring.next(), ls.subjects)
		rest, err := ls.sendNow(frames(s.id, 0, recs))
		if err == nil && len(rest) > 0 {
			s.mu.Unlock()
			err = ls.sendWait(ctx, rest)
			s.mu.Lock()
		}
		if err != nil {
			return err
		}
		ls.sent = reached
	}
}

// sendPast sends what the log has of the subjects in [from, to) of a topic; no lock is held.
func (ls *linkSlot) sendPast(
	ctx context.Context, id uint64, t int, from, to topic.Position, want map[topic.Subject]struct{},
) error {
	s := ls.slot
	return ls.conn.svc.past.read(ctx, s.id, t, from, to, want, func(recs []*linkv1.Record) error {
		var one [topics][]*linkv1.Record
		one[t] = recs
		return ls.sendWait(ctx, frames(s.id, id, one))
	})
}

// unsubscribe takes interest back.
func (ls *linkSlot) unsubscribe(subjects []topic.Subject) {
	ls.slot.mu.Lock()
	defer ls.slot.mu.Unlock()
	if ls.slot.gone {
		return
	}
	for _, subject := range subjects {
		ls.slot.drop(ls, subject)
	}
}

// errLost is why nothing is sent on a link any more that is about to end.
var errLost = errors.New("delivery: a frame before was not sent")

// sendNow queues as many frames as there is room for and returns the others.
func (ls *linkSlot) sendNow(ms []*linkv1.ToEdge) (rest []*linkv1.ToEdge, err error) {
	for i, m := range ms {
		if ls.conn.lost.Load() {
			return nil, errLost
		}
		if err := ls.conn.end.Send(m); err != nil {
			if errors.Is(err, link.ErrFull) {
				return ms[i:], nil
			}
			return nil, err
		}
		ls.count(m)
	}
	return nil, nil
}

// sendWait queues frames, waiting for room: no lock is held.
func (ls *linkSlot) sendWait(ctx context.Context, ms []*linkv1.ToEdge) error {
	for _, m := range ms {
		if ls.conn.lost.Load() {
			return errLost
		}
		if err := ls.conn.end.SendWait(ctx, m); err != nil {
			ls.conn.failSend(err)
			return err
		}
		ls.count(m)
	}
	return nil
}

// behind tells whether something of [cur, to) has left the ring, and in which topic.
func (r *ring) behind(cur, to topic.Cursor) (t int, ok bool) {
	for t := range r.logs {
		if cur[t] < min(r.logs[t].start, to[t]) {
			return t, true
		}
	}
	return 0, false
}
