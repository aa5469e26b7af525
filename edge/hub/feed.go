package hub

import (
	"context"
	"slices"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// lack is what a session lacks of one thread.
type lack struct {
	thread  id.ThreadID
	slot    topic.Slot
	target  topic.Position // the last that the member sees; -1: none
	cursor  topic.Position
	member  thread.Member
	changed []byte
}

// feed sends what the session lacks of the threads, up to targets that it writes down.
func (h *Hub) feed(ctx context.Context, c *client, list []id.ThreadID, receipts bool, send func([]byte) error) error {
	lacks, err := h.capture(ctx, c, list)
	if err != nil {
		return err
	}
	if receipts {
		if err := h.feedReceipts(ctx, c, list); err != nil {
			return err
		}
	}
	if lacks, err = h.compare(ctx, c, lacks); err != nil {
		return err
	}
	for _, l := range lacks {
		if err := send(l.changed); err != nil {
			return err
		}
	}
	const ahead = 16 // threads whose first pages are read together
	var last []lack  // those that need the history: if it does not answer, the others have been served
	for part := range slices.Chunk(lacks, ahead) {
		ranges := make([]tailRange, len(part))
		for i, l := range part {
			ranges[i] = h.rest(c, l, l.cursor)
		}
		tails, err := h.ask(ctx, ranges)
		if err != nil {
			return err
		}
		for i, l := range part {
			if l.trimmed(tails[i], l.cursor, c.floor.Load()) >= 0 {
				last = append(last, l)
				continue
			}
			if err := h.feedThread(ctx, c, l, tails[i], send); err != nil {
				return err
			}
		}
	}
	for _, l := range last {
		tails, err := h.ask(ctx, []tailRange{h.rest(c, l, l.cursor)})
		if err != nil {
			return err
		}
		if err := h.feedThread(ctx, c, l, tails[0], send); err != nil {
			return err
		}
	}
	return nil
}

// feedThread sends what the session lacks of one thread, of which the first tail was read.
func (h *Hub) feedThread(ctx context.Context, c *client, l lack, t tail, send func([]byte) error) error {
	pass := func(rows []row) error {
		for _, r := range rows {
			if !l.member.Sees(r.position) {
				continue
			}
			if err := send(eventFrame(l.thread, r)); err != nil {
				return err
			}
		}
		return nil
	}
	for after := l.cursor; ; {
		rows, upTo := t.rows, l.trimmed(t, after, c.floor.Load())
		if upTo >= 0 { // what is left of the tail up to there may lack anything
			var err error
			if rows, err = h.askHistory(ctx, l, after, upTo, c.floor.Load()); err != nil {
				return err
			}
			h.metrics.older.Add(float64(len(rows)))
		}
		if err := pass(rows); err != nil {
			return err
		}
		switch {
		case h.full(rows):
			after = rows[len(rows)-1].position
		case upTo >= 0:
			after = upTo
		default:
			return nil
		}
		if after >= l.target {
			return nil
		}
		next, err := h.ask(ctx, []tailRange{h.rest(c, l, after)})
		if err != nil {
			return err
		}
		t = next[0]
	}
}

// full tells whether there may be more than a page of events has.
func (h *Hub) full(page []row) bool {
	bytes := 0
	for _, r := range page {
		bytes += len(r.event)
	}
	return len(page) >= h.cfg.Page || bytes >= h.cfg.PageBytes
}

// trimmed returns up to where the tail may lack events after a position that the device may see; -1: it lacks none.
func (l *lack) trimmed(t tail, after topic.Position, floorMS int64) topic.Position {
	upTo := min(t.trimmed, l.target)
	if upTo <= after || floorMS > t.trimmedMS {
		return -1
	}
	for _, s := range l.member.Spans {
		if s.From <= upTo && (s.To == 0 || s.To > after) {
			return upTo
		}
	}
	return -1
}

// askHistory reads what was trimmed. A history that is behind or does not answer is no reason to leave it out: the
// catch-up is tried again.
func (h *Hub) askHistory(ctx context.Context, l lack, after, upTo topic.Position, floorMS int64) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	select {
	case h.older <- struct{}{}:
	case <-ctx.Done():
		return nil, unavailable(context.Cause(ctx))
	}
	events, err := h.history.Events(ctx, l.thread, after, upTo, floorMS, h.cfg.Page)
	<-h.older
	if err != nil {
		h.failed("history", err)
		return nil, unavailable(err)
	}
	rows := make([]row, len(events))
	for i, e := range events {
		rows[i] = row{topic.Position(e.GetPosition()), e.GetOrdinal(), e.GetLogTimeMs(), e.GetEvent()}
	}
	return rows, nil
}

// feedReceipts tells how far the members of threads have got in which the user has sent something, as fast as the
// session takes it; and how far his other devices have, if receipts were dropped.
func (h *Hub) feedReceipts(ctx context.Context, c *client, list []id.ThreadID) error {
	c.mu.Lock()
	owed := c.owed
	c.owed = false
	c.mu.Unlock()
	err := func() error {
		for _, t := range list {
			if err := c.sess.WaitReceipts(ctx); err != nil {
				return err
			}
			s := h.slotOf(topic.Subject(t))
			s.mu.Lock()
			if ts := s.threads[t]; ts != nil && ts.phase == live {
				own, known := ts.state.watermarks[c.user.id]
				_, sent := ts.state.sent[c.user.id]
				switch {
				case sent && ts.state.IsMember(c.user.id):
					if m := ts.marksOfAll(); len(m) > 0 {
						h.receipts(c, t, m)
					}
				case owed && known && ts.state.Members[c.user.id] != nil:
					h.receipts(c, t, []*memberMark{markOf(c.user.id, own)})
				}
			}
			s.mu.Unlock()
		}
		return nil
	}()
	if err != nil {
		c.mu.Lock()
		c.owed = c.owed || owed
		c.mu.Unlock()
	}
	return err
}

func (h *Hub) rest(c *client, l lack, after topic.Position) tailRange {
	return tailRange{
		thread:  l.thread,
		after:   after,
		upTo:    l.target,
		floorMS: c.floor.Load(),
		limit:   h.cfg.Page,
		bytes:   h.cfg.PageBytes,
	}
}

// ask reads ranges that the views had reached. When they went back since, it waits until they are there again: what is
// read before would be taken for all that there is, and what is after it would never be sent.
func (h *Hub) ask(ctx context.Context, ranges []tailRange) ([]tail, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	for {
		tails, err := h.tails.get(ctx, ranges)
		if err != nil {
			return nil, unavailable(err)
		}
		need := map[topic.Slot]topic.Position{}
		for i, t := range tails {
			if t.next <= ranges[i].upTo {
				s := topic.SlotOf(topic.Subject(ranges[i].thread), len(h.slots))
				need[s] = max(need[s], ranges[i].upTo)
			}
		}
		if len(need) == 0 {
			return tails, nil
		}
		if err := h.reach(ctx, need); err != nil {
			return nil, unavailable(err)
		}
	}
}

// reach waits until the views have the events of these positions.
func (h *Hub) reach(ctx context.Context, need map[topic.Slot]topic.Position) error {
	return h.views.wait(ctx, func(at []topic.Cursor) bool {
		for s, p := range need {
			if at[s].At(topic.Threads) <= p {
				return false
			}
		}
		return true
	})
}

// readTails is a load of tails.
func (h *Hub) readTails(ctx context.Context, ranges []tailRange) ([]tail, error) {
	asked := h.views.answered()
	tails, err := h.store.tails(ctx, ranges)
	if err != nil || len(tails) != len(ranges) {
		return tails, err
	}
	found := make([]seen, len(tails))
	for i, t := range tails {
		found[i] = seen{topic.SlotOf(topic.Subject(ranges[i].thread), len(h.slots)), topic.Threads, t.next}
	}
	h.views.take(asked, found...)
	return tails, nil
}
