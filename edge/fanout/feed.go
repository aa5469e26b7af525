package fanout

import (
	"context"
	"maps"
	"slices"
	"time"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// lack is what a session lacks of one thread.
type lack struct {
	now    *replica.Glance
	target topic.Position // the last that the member sees; -1: none
	cursor topic.Position
	// the device is shown nothing of a log time before it
	floorMS int64
}

// feeding is how a session is fed.
type feeding struct {
	wait     time.Duration // for a thread to be live, and then for the views
	room     chan struct{} // to be held while pages are read, unless it is nil
	receipts bool          // too
	rejected bool          // and which of its messages were rejected
	has      Known         // what the device says that it has; nil: nothing is known
	window   int           // the most threads; 0: all
}

// feed sends what the session lacks of the threads, up to targets that it writes down.
func (f *Fanout) feed(
	ctx context.Context, d *device, list []id.ThreadID, how feeding, send func([]byte) error,
) error {
	lacks, err := f.capture(ctx, d, list, how, send)
	if err != nil {
		return err
	}
	back := d.unshelved(list)
	if lacks, err = f.compare(ctx, d, lacks, how); err != nil {
		return err
	}
	if how.receipts {
		if err := f.feedReceipts(ctx, d, list, how.has); err != nil {
			return err
		}
	}
	if how.rejected {
		if err := f.feedRejected(ctx, d, send); err != nil {
			return err
		}
	}
	if how.room != nil && len(lacks) > 0 {
		select {
		case how.room <- struct{}{}:
			defer func() { <-how.room }()
		case <-ctx.Done():
			return replica.Unavailable(context.Cause(ctx))
		}
	}
	glances := make([]*replica.Glance, len(lacks))
	for i, l := range lacks {
		glances[i] = l.now
	}
	unread, err := f.replica.Unread(ctx, glances, d.shown())
	if err != nil {
		return err
	}
	for i, l := range lacks {
		if err := send(changedFrame(l.now, unread[i], d.shown())); err != nil {
			return err
		}
	}
	var last []lack // those that need the history: if it does not answer, the others have been served
	for len(lacks) > 0 {
		n := min(len(lacks), f.ahead(d))
		old, err := f.feedTails(ctx, d, lacks[:n], send)
		if err != nil {
			return err
		}
		last, lacks = append(last, old...), lacks[n:]
	}
	for _, l := range last {
		tails, err := f.replica.Tails(ctx, []replica.Range{f.rest(l, l.cursor)})
		if err != nil {
			return err
		}
		if err := f.feedThread(ctx, d, l, tails[0], send); err != nil {
			return err
		}
	}
	return f.feedBack(ctx, d, back, how, send)
}

// feedBack tells a session that threads are live that were shelved, behind what it lacked of them and how far their
// members have got.
func (f *Fanout) feedBack(
	ctx context.Context, d *device, back map[id.ThreadID]int, how feeding, send func([]byte) error,
) error {
	if len(back) == 0 {
		return nil
	}
	if !how.receipts {
		if err := f.feedReceipts(ctx, d, slices.Collect(maps.Keys(back)), nil); err != nil {
			return err
		}
	}
	for t, times := range back {
		if !d.isBack(t, times) {
			continue
		}
		if err := send(lateFrame(t, nil)); err != nil {
			return err
		}
	}
	return nil
}

// ahead is of how many threads the first pages are read together: fewer while little memory is free.
func (f *Fanout) ahead(d *device) int {
	const most = 16
	page := 2 * f.bounds.pageBytes
	return max(1, d.room(most*page)/page)
}

// feedTails sends what the session lacks of threads, and returns those whose tails in the views do not reach back far
// enough.
func (f *Fanout) feedTails(
	ctx context.Context, d *device, part []lack, send func([]byte) error,
) (old []lack, err error) {
	ranges := make([]replica.Range, len(part))
	for i, l := range part {
		ranges[i] = f.rest(l, l.cursor)
	}
	tails, err := f.replica.Tails(ctx, ranges)
	if err != nil {
		return nil, err
	}
	bytes := 0
	for _, t := range tails {
		for _, r := range t.Rows {
			bytes += len(r.Event)
		}
	}
	d.count(bytes)
	defer d.count(-bytes)
	for i, l := range part {
		if l.trimmed(tails[i], l.cursor) >= 0 {
			old = append(old, l)
			continue
		}
		if err := f.feedThread(ctx, d, l, tails[i], send); err != nil {
			return nil, err
		}
	}
	return old, nil
}

// feedThread sends what the session lacks of one thread, of which the first tail was read.
func (f *Fanout) feedThread(ctx context.Context, d *device, l lack, t replica.Tail, send func([]byte) error) error {
	pass := func(rows []replica.Row) error {
		for _, r := range rows {
			if !l.now.Member.Sees(r.Position) {
				continue
			}
			if err := send(eventFrame(l.now.Thread, r)); err != nil {
				return err
			}
		}
		return nil
	}
	for after := l.cursor; ; {
		rows, upTo := t.Rows, l.trimmed(t, after)
		if upTo >= 0 { // what is left of the tail up to there may lack anything
			var err error
			if rows, err = f.askHistory(ctx, l, after, upTo); err != nil {
				return err
			}
			f.metrics.older.Add(float64(len(rows)))
		}
		if err := pass(rows); err != nil {
			return err
		}
		switch {
		case f.full(rows):
			after = rows[len(rows)-1].Position
		case upTo >= 0:
			after = upTo
		default:
			return nil
		}
		if after >= l.target {
			return nil
		}
		next, err := f.replica.Tails(ctx, []replica.Range{f.rest(l, after)})
		if err != nil {
			return err
		}
		t = next[0]
	}
}

// full tells whether there may be more than a page of events has.
func (f *Fanout) full(page []replica.Row) bool {
	bytes := 0
	for _, r := range page {
		bytes += len(r.Event)
	}
	return len(page) >= f.bounds.page || bytes >= f.bounds.pageBytes
}

// trimmed returns up to where the tail may lack events after a position that the device may see; -1: it lacks none.
func (l *lack) trimmed(t replica.Tail, after topic.Position) topic.Position {
	upTo := min(t.Trimmed, l.target)
	if upTo <= after || l.floorMS > t.TrimmedMS {
		return -1
	}
	for _, s := range l.now.Member.Spans {
		if s.From <= upTo && (s.To == 0 || s.To > after) {
			return upTo
		}
	}
	return -1
}

// askHistory reads what was trimmed. A history that is behind or does not answer is no reason to leave it out: the
// catch-up is tried again.
func (f *Fanout) askHistory(ctx context.Context, l lack, after, upTo topic.Position) ([]replica.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, f.bounds.wait)
	defer cancel()
	select {
	case f.older <- struct{}{}:
	case <-ctx.Done():
		return nil, replica.Unavailable(context.Cause(ctx))
	}
	events, err := f.history.Events(ctx, l.now.Thread, after, upTo, l.floorMS, f.bounds.page)
	<-f.older
	if err != nil {
		f.metrics.historyErrors.Inc()
		f.log.Warn("the history did not answer", "thread", l.now.Thread, "err", err)
		return nil, replica.Unavailable(err)
	}
	rows := make([]replica.Row, len(events))
	for i, e := range events {
		rows[i] = replica.Row{
			Position: topic.Position(e.GetPosition()), Ordinal: e.GetOrdinal(), LogTimeMS: e.GetLogTimeMs(),
			Event: e.GetEvent(),
		}
	}
	return rows, nil
}

// feedReceipts (wire 5.3) tells how far the members of threads have got in which the user has sent something, as fast
// as the session takes it and unless it says that it knows; and how far his other devices have, if receipts were
// dropped.
func (f *Fanout) feedReceipts(ctx context.Context, d *device, list []id.ThreadID, has Known) error {
	d.mu.Lock()
	owed := d.owed
	d.owed = false
	if len(d.unasked) > 0 { // theirs come with them
		list = slices.DeleteFunc(slices.Clone(list), func(t id.ThreadID) bool { _, left := d.unasked[t]; return left })
	}
	d.mu.Unlock()
	err := func() error {
		for _, t := range list {
			if err := d.sess.WaitReceipts(ctx); err != nil {
				return err
			}
			h, known := has[t]
			var m []replica.Mark
			if known && !owed {
				m = f.replica.MarksUnless(t, d.person.user, h.Receipts, h.Own)
			} else {
				m = f.replica.Marks(t, d.person.user, owed)
			}
			if len(m) > 0 {
				f.receipts(d, t, m)
			}
		}
		return nil
	}()
	if err != nil {
		d.mu.Lock()
		d.owed = d.owed || owed
		d.mu.Unlock()
	}
	return err
}

// feedRejected tells which of the device's messages were rejected (wire 7.9): it may have been away, or have lagged,
// when that was pushed. What it was told before it knows.
func (f *Fanout) feedRejected(ctx context.Context, d *device, send func([]byte) error) error {
	list, err := f.replica.Rejected(ctx, d.person.user, d.id)
	if err != nil {
		return err
	}
	for i := range list {
		if err := send(rejectedFrame(&list[i])); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fanout) rest(l lack, after topic.Position) replica.Range {
	return replica.Range{
		Thread: l.now.Thread, After: after, UpTo: l.target, FloorMS: l.floorMS, Limit: f.bounds.page,
		Bytes: f.bounds.pageBytes,
	}
}
