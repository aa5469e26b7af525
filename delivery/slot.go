package delivery

import (
	"slices"
	"sync"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// eventsBytes and eventsRecords bound one Events frame.
const (
	eventsBytes   = 1 << 20
	eventsRecords = 4096
)

// slot is an owned slot, from the consumer's Open until its Close.
type slot struct {
	id      topic.Slot
	metrics *metrics

	mu       sync.Mutex // guards what follows and all linkSlots of this slot
	ring     ring
	interest map[topic.Subject][]*linkSlot
	links    map[*conn]*linkSlot
	touched  []*linkSlot // scratch of apply
	gone     bool
}

// linkSlot is what a link has to do with a slot. It is guarded by the slot's lock.
type linkSlot struct {
	conn     *conn
	slot     *slot
	subjects map[topic.Subject]struct{}
	sent     topic.Cursor             // everything before it is in the link's queue, as far as it is subscribed
	held     bool                     // a subscription catches up: no live events, no progress
	dirty    bool                     // sent moved since the last Progress
	batch    [topics][]*linkv1.Record // scratch of apply
	touched  bool                     // in slot.touched

	// Guarded by conn.mu.
	requests []request
	busy     bool
}

func newSlot(id topic.Slot, r ring, m *metrics) *slot {
	return &slot{
		id:       id,
		metrics:  m,
		ring:     r,
		interest: make(map[topic.Subject][]*linkSlot),
		links:    make(map[*conn]*linkSlot),
	}
}

// join gives a link its part of the slot.
func (s *slot) join(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	ls := &linkSlot{conn: c, slot: s, subjects: make(map[topic.Subject]struct{}), sent: s.ring.next()}
	s.links[c] = ls
	ls.progress()
}

// part takes a link's interest away.
func (s *slot) part(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ls := s.links[c]
	if ls == nil {
		return
	}
	for subject := range ls.subjects {
		s.drop(ls, subject)
	}
	ls.subjects = nil // a catch-up that is under way registers nothing any more
	delete(s.links, c)
}

// of returns a link's part, nil once the slot or the link is gone.
func (s *slot) of(c *conn) *linkSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	return s.links[c]
}

// close voids all interest.
func (s *slot) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	for _, ls := range s.links {
		s.metrics.subjects.Sub(float64(len(ls.subjects)))
		ls.conn.subjects.Add(-int64(len(ls.subjects)))
		ls.subjects = nil
	}
	s.interest, s.links, s.ring = nil, nil, ring{}
}

// want adds interest; the caller holds mu.
func (s *slot) want(ls *linkSlot, subject topic.Subject) {
	if _, ok := ls.subjects[subject]; ok {
		return
	}
	ls.subjects[subject] = struct{}{}
	s.interest[subject] = append(s.interest[subject], ls)
	ls.conn.subjects.Add(1)
	s.metrics.subjects.Inc()
}

// drop takes interest back; the caller holds mu.
func (s *slot) drop(ls *linkSlot, subject topic.Subject) {
	if _, ok := ls.subjects[subject]; !ok {
		return
	}
	delete(ls.subjects, subject)
	rest := slices.DeleteFunc(s.interest[subject], func(o *linkSlot) bool { return o == ls })
	if len(rest) == 0 {
		delete(s.interest, subject)
	} else {
		s.interest[subject] = rest
	}
	ls.conn.subjects.Add(-1)
	s.metrics.subjects.Dec()
}

// apply takes a batch in and puts its events into the queues of the links that want them. The slot's consumer goroutine
// only.
func (s *slot) apply(b kafka.Batch) {
	now := time.Now()
	var newest time.Time
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	for i := range b.Records {
		r := &b.Records[i]
		t := index(r.Topic)
		s.metrics.in[t].Inc()
		e := s.ring.add(r, now)
		if !e.about {
			continue
		}
		for _, ls := range s.interest[e.subject] {
			if ls.held {
				continue
			}
			if !ls.touched {
				ls.touched = true
				s.touched = append(s.touched, ls)
			}
			ls.batch[t] = append(ls.batch[t], e.record())
		}
		if r.LogTime.After(newest) {
			newest = r.LogTime
		}
	}
	for t, p := range b.To {
		s.ring.logs[index(t)].next = p
	}
	next := s.ring.next()
	for _, ls := range s.links {
		if !ls.held && ls.sent != next {
			ls.sent, ls.dirty = next, true
		}
	}
	for _, ls := range s.touched {
		for _, m := range frames(s.id, 0, ls.batch) {
			ls.send(m)
		}
		for t := range ls.batch {
			clear(ls.batch[t])
			ls.batch[t] = ls.batch[t][:0]
			if cap(ls.batch[t]) > eventsRecords {
				ls.batch[t] = nil
			}
		}
		ls.touched = false
		ls.progress()
	}
	clear(s.touched)
	s.touched = s.touched[:0]
	s.ring.evict(now)
	if !newest.IsZero() {
		s.metrics.latency.Observe(max(0, now.Sub(newest).Seconds()))
	}
}

// frames cuts records into Events frames. They share nothing with the slices that they are made of.
func frames(s topic.Slot, subscription uint64, recs [topics][]*linkv1.Record) []*linkv1.ToEdge {
	var out []*linkv1.ToEdge
	for t, all := range recs {
		for len(all) > 0 {
			n, bytes := 0, 0
			for n < len(all) && n < eventsRecords && (n == 0 || bytes < eventsBytes) {
				bytes += len(all[n].GetKey()) + len(all[n].GetValue())
				n++
			}
			out = append(out, linkv1.ToEdge_builder{Events: linkv1.Events_builder{
				Topic: topic.Folded[t].Number(), Slot: int32(s), Records: slices.Clone(all[:n]),
				Subscription: subscription,
			}.Build()}.Build())
			all = all[n:]
		}
	}
	return out
}

// send puts a frame into the link's queue; a link that has no room ends, and gets nothing that would follow. The caller
// holds the slot's lock.
func (ls *linkSlot) send(m *linkv1.ToEdge) {
	if ls.conn.lost.Load() {
		return
	}
	if err := ls.conn.end.Send(m); err != nil {
		ls.conn.failSend(err)
		return
	}
	ls.count(m)
}

// count counts the events of a frame that was queued.
func (ls *linkSlot) count(m *linkv1.ToEdge) {
	if e := m.GetEvents(); e != nil {
		t, err := topic.FromNumber(e.GetTopic())
		if err != nil {
			panic("delivery: " + err.Error()) // frames has named it
		}
		ls.slot.metrics.out[index(t)].Add(float64(len(e.GetRecords())))
	}
}

// progress tells the link how far the slot has been read. The caller holds the slot's lock.
func (ls *linkSlot) progress() {
	ls.dirty = false
	ls.send(linkv1.ToEdge_builder{Progress: linkv1.Progress_builder{Slots: []*linkv1.SlotProgress{
		linkv1.SlotProgress_builder{Slot: int32(ls.slot.id), Next: link.EncodeCursor(ls.sent)}.Build(),
	}}.Build()}.Build())
}

// tick sends what progress is outstanding, with all the progress of every link, and lets old records go.
func (s *slot) tick(now time.Time, all bool) (bytes int, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ls := range s.links {
		if !ls.held && (all || ls.dirty) {
			ls.progress()
		}
	}
	if s.gone {
		return 0, 0
	}
	s.ring.evict(now)
	return s.ring.bytes, s.ring.age(now)
}
