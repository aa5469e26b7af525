package projector

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Quarantine is drained in parts of at most so many of its rows, and of the bytes with which a part is full.
const (
	drainRows  = 1000
	drainBytes = 4 << 20
)

// What is kept in quarantine although its turn had come; both are tried again when the slot is opened again.
const (
	reasonMissing = NewerVersion + ": the log does not have this event any more"
	reasonRefused = NewerVersion + ": what comes of this event cannot be stored"
)

// waits tells whether a subject that is held for a reason may be drained by a newer version: its first event asked for
// one, or a drain was cut off before it, or what was before it was dropped.
func waits(reason string) bool { return reason == Parked || strings.HasPrefix(reason, NewerVersion) }

// drain takes out of quarantine what a slot holds there for a version like this one, and what an operator wants tried
// again, and tells whether anything was written. It may be cut off anywhere and begun again.
func (s *Sink[R]) drain(ctx context.Context, slot topic.Slot, stored Stored) (drained bool, err error) {
	store, ok := s.store.(Drainer[R])
	if !ok || s.cfg.Log == nil {
		return false, nil
	}
	s.mu.Lock()
	before, releases := s.waiting[slot], s.releases[slot]
	s.mu.Unlock()
	waiting := map[Held]topic.Position{}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			maps.Copy(waiting, before) // not all were asked
		}
		if delete(s.waiting, slot); len(waiting) > 0 {
			s.waiting[slot] = waiting
		}
	}()
	for _, t := range topic.Folded {
		d := &drain[R]{
			sink: s, store: store, topic: t, slot: slot, next: stored.Next[t], st: s.newState(nil), waiting: waiting,
			want: map[topic.Subject]*draining{}, log: s.log.With("topic", t, "slot", slot),
		}
		d.st.apart = true
		asked := map[Held]int64{}
		for _, h := range stored.Held {
			again := int64(-1)
			if h.Topic == t {
				again = s.askedAgain(releases, h)
			}
			if h.Topic != t || again < 0 && !waits(h.Reason) {
				continue
			}
			if at, ok := before[h.Held]; ok && at == h.First && again < 0 {
				waiting[h.Held] = at // asked already: this version does not know it
				continue
			}
			d.want[h.Subject] = &draining{first: h.First, last: h.Last, again: again >= 0}
			if again >= 0 {
				asked[h.Held] = again
			}
		}
		err = d.run(ctx)
		if drained = drained || d.wrote; err != nil {
			return drained, err
		}
		s.mu.Lock()
		maps.Copy(s.retried, asked)
		s.mu.Unlock()
	}
	return drained, nil
}

// drain is one pass over what a topic of a slot has in quarantine, and over the log beside it.
type drain[R Rows] struct {
	// Fixed.
	sink    *Sink[R]
	store   Drainer[R]
	topic   topic.Topic
	slot    topic.Slot
	next    topic.Position // of the topic
	st      *slotState
	waiting map[Held]topic.Position // of those that this version does not know
	log     *slog.Logger

	want  map[topic.Subject]*draining // those that are still to be drained
	wrote bool

	// Of the log.
	pull  func() (kafka.Record, error, bool)
	ahead *kafka.Record // pulled and not used yet
	ended bool
	short bool // it ended before what is in quarantine
}

// draining is a subject that is drained.
type draining struct {
	first, last topic.Position // of what it has in quarantine
	again       bool           // an operator asks for it
	known       bool           // its first event can be read
	stop        *Quarantined   // what keeps the rest in quarantine

	events int // so far
	from   topic.Position
	upTo   topic.Position
}

// part is what is drained in one go: everything of a stretch of the topic.
type part struct {
	from, to topic.Position
	records  []kafka.Record
	subjects []topic.Subject // of the records
	rows     []Quarantined   // in quarantine now
	kept     []Quarantined   // of these those that stay, for another reason
	about    map[topic.Subject]*draining
}

func (d *drain[R]) run(ctx context.Context) error {
	if len(d.want) == 0 {
		return nil
	}
	from, to := topic.Position(-1), topic.Position(0)
	for _, w := range d.want {
		if from < 0 || w.first < from {
			from = w.first
		}
		to = max(to, w.last+1)
	}
	var stop func()
	d.pull, stop = iter.Pull2(d.sink.cfg.Log.Records(ctx, d.topic, d.slot, from, to))
	defer stop()
	for {
		end := d.until()
		if from >= end {
			return nil
		}
		p, err := d.gather(ctx, from, end)
		if err == nil {
			err = d.write(ctx, p)
		}
		if err != nil {
			return err
		}
		from = p.to
	}
}

// until is how far the log must be read for those that are still to be drained; of one that may be unknown up to its
// first event.
func (d *drain[R]) until() topic.Position {
	var end topic.Position
	for _, w := range d.want {
		if w.known {
			end = max(end, w.last+1)
		} else {
			end = max(end, w.first+1)
		}
	}
	return end
}

// peek is the next record of the log; nil: there is none.
func (d *drain[R]) peek(ctx context.Context) (*kafka.Record, error) {
	if d.ahead != nil || d.ended {
		return d.ahead, nil
	}
	r, err, ok := d.pull()
	switch {
	case errors.Is(err, kafka.ErrPositions):
		d.ended, d.short = true, true
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !ok:
		d.ended = true
	default:
		d.ahead = &r
	}
	return d.ahead, nil
}

// gather puts the next part together, from a position on and not beyond end.
func (d *drain[R]) gather(ctx context.Context, from, end topic.Position) (*part, error) {
	rows, err := d.store.Quarantined(ctx, d.topic, d.slot, from, end, d.sink.drainRows)
	if err != nil {
		return nil, d.sink.store.Classify(err)
	}
	p := &part{from: from, to: end, about: map[topic.Subject]*draining{}}
	if len(rows) == d.sink.drainRows {
		p.to = rows[len(rows)-1].Position + 1
	}
	for bytes := 0; ; {
		r, err := d.peek(ctx)
		if err != nil {
			return nil, err
		}
		if r == nil || r.Position >= p.to {
			break
		}
		d.ahead = nil
		for len(rows) > 0 && rows[0].Position < r.Position {
			d.alone(p, rows[0])
			rows = rows[1:]
		}
		var row *Quarantined
		k, err := event.ParseKey(r.Topic, r.Key)
		if len(rows) > 0 && rows[0].Position == r.Position {
			if err == nil && rows[0].Subject == k.Subject {
				row = &rows[0]
			} else {
				d.alone(p, rows[0]) // this is another log
			}
			rows = rows[1:]
		}
		if err != nil || !d.take(p, r, k.Subject, row) {
			continue
		}
		if bytes += len(r.Key) + len(r.Value); bytes >= d.sink.drainBytes {
			p.to = r.Position + 1
			return p, nil
		}
	}
	for _, row := range rows {
		d.alone(p, row)
	}
	return p, nil
}

// take puts a record of a subject that is drained into the part, with what quarantine has of it, unless this version
// does not know the subject's first event.
func (d *drain[R]) take(p *part, r *kafka.Record, subject topic.Subject, row *Quarantined) bool {
	w := d.want[subject]
	if w == nil || r.Position < w.first {
		return false
	}
	if !w.known {
		if row == nil {
			return false // another has drained it meanwhile
		}
		var newer *event.NewerError
		if _, err := d.sink.decode(r.Value); errors.As(err, &newer) && row.Reason == reasonOf(err) {
			d.waiting[Held{d.topic, subject}] = w.first
			delete(d.want, subject)
			if w.again {
				w.stop = row
				d.stopped(subject, w)
			}
			return false
		}
		w.known = true
	}
	p.about[subject] = w
	p.records, p.subjects = append(p.records, *r), append(p.subjects, subject)
	if row != nil {
		p.rows = append(p.rows, *row)
	}
	return true
}

// alone is for what is in quarantine and not in the log. A receipt was compacted away: a later one says the same and
// more. Anything else is lost, and without it the subject does not go on.
func (d *drain[R]) alone(p *part, row Quarantined) {
	w := d.want[row.Subject]
	switch {
	case w == nil:
	case d.topic == topic.Receipts && !d.short:
		w.known = true
		p.about[row.Subject] = w
		p.rows = append(p.rows, row)
	case w.known:
		delete(d.want, row.Subject)
		p.about[row.Subject] = w
		p.rows = append(p.rows, row)
		row.Reason = reasonMissing
		p.kept = append(p.kept, row)
	default:
		delete(d.want, row.Subject)
		row.Reason = reasonMissing
		w.stop = &row
		d.stopped(row.Subject, w)
	}
}

// write folds a part and stores it. What is refused for ever is tried subject by subject, so that one stops none but
// itself.
func (d *drain[R]) write(ctx context.Context, p *part) error {
	if len(p.rows)+len(p.records) == 0 {
		return nil
	}
	err := d.apply(ctx, p)
	if !refused(ctx, err) {
		return err
	}
	parts := p.split()
	for _, one := range parts {
		if len(parts) > 1 {
			err = d.apply(ctx, one)
		}
		if refused(ctx, err) {
			err = d.refuse(ctx, one, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refused tells whether a part would fail again.
func refused(ctx context.Context, err error) bool {
	var p *run.PanicError
	return ctx.Err() == nil && !errors.Is(err, kafka.ErrFenced) && (kafka.IsPermanent(err) || errors.As(err, &p))
}

// split is a part by subjects.
func (p *part) split() []*part {
	var out []*part
	for subject, w := range p.about {
		one := &part{from: p.from, to: p.to, about: map[topic.Subject]*draining{subject: w}}
		for i, s := range p.subjects {
			if s == subject {
				one.records, one.subjects = append(one.records, p.records[i]), append(one.subjects, s)
			}
		}
		other := func(q Quarantined) bool { return q.Subject != subject }
		one.rows = slices.DeleteFunc(slices.Clone(p.rows), other)
		one.kept = slices.DeleteFunc(slices.Clone(p.kept), other)
		out = append(out, one)
	}
	return out
}

func (d *drain[R]) apply(ctx context.Context, p *part) error {
	err := run.Protect(func() error { return d.fold(ctx, p) })
	if err != nil { // the states are half way
		fresh := d.sink.newState(nil)
		d.st.threads, d.st.users = fresh.threads, fresh.users
	}
	return err
}

func (d *drain[R]) fold(ctx context.Context, p *part) error {
	sorted, folded, err := d.sink.fold(ctx, d.st, kafka.Batch{
		Slot: d.slot, Records: p.records, From: kafka.Positions{d.topic: p.from}, To: kafka.Positions{d.topic: p.to},
	})
	if err != nil {
		return err
	}
	out := &Drained[R]{
		Topic: d.topic, Slot: d.slot, Next: d.next, States: folded.states, Rows: folded.rows,
	}
	stays := map[topic.Position]Quarantined{}
	stops := map[topic.Subject]*Quarantined{}
	for _, q := range slices.Concat(sorted.Quarantined, p.kept) {
		if stop := stops[q.Subject]; stop == nil {
			stops[q.Subject] = &q
		} else if q.Reason != Parked { // the log lacks what stands behind another
			q.Reason = Parked
		}
		stays[q.Position] = q
	}
	for _, row := range p.rows {
		out.Seen = append(out.Seen, row.Position)
		q, ok := stays[row.Position]
		if !ok {
			out.Released = append(out.Released, row)
		} else if q.Reason != row.Reason {
			out.Kept = append(out.Kept, q)
		}
		delete(stays, row.Position)
	}
	for _, q := range stays { // passed over before
		out.Kept = append(out.Kept, q)
	}
	if err := d.store.Drain(ctx, out); err != nil {
		return d.sink.store.Classify(err)
	}
	d.st.intake.Commit(sorted)
	d.st.keep(folded.states, d.sink.cacheBytes())
	d.sink.metrics.count(folded.outcomes)
	d.sink.metrics.drained.WithLabelValues(string(d.topic)).Add(float64(len(out.Released)))
	d.wrote = true
	for subject, stop := range stops {
		p.about[subject].stop = stop
	}
	d.settle(p, out.Released)
	return nil
}

// settle notes what was drained, and says so of the subjects with which it is done.
func (d *drain[R]) settle(p *part, released []Quarantined) {
	for _, row := range released {
		w := p.about[row.Subject]
		if w.events == 0 {
			w.from = row.Position
		}
		w.events++
		w.upTo = row.Position
	}
	for subject, w := range p.about {
		switch {
		case w.stop != nil:
			delete(d.want, subject)
			d.stopped(subject, w)
		case p.to > w.last:
			delete(d.want, subject)
			d.log.Info("quarantine drained",
				"subject", id.ThreadID(subject), "from", w.from, "to", w.upTo, "events", w.events)
		}
	}
}

func (d *drain[R]) stopped(subject topic.Subject, w *draining, more ...any) {
	d.sink.metrics.undrained.WithLabelValues(string(d.topic), undrainedFor(w.stop.Reason)).Inc()
	d.log.Error("quarantine not drained to its end, the subject stays in it", append([]any{
		"subject", id.ThreadID(subject), "events", w.events, "position", w.stop.Position, "reason", w.stop.Reason,
	}, more...)...)
	news := w.again || w.stop.Position != w.first // else it was told, perhaps by every version since
	if d.sink.cfg.Report != nil && news {
		d.sink.cfg.Report(d.sink.cfg.View, *w.stop)
	}
}

// undrainedFor is the metric's word for what keeps a subject in quarantine.
func undrainedFor(reason string) string {
	switch {
	case reason == reasonMissing:
		return undrainedMissing
	case reason == reasonRefused:
		return undrainedFailed
	case codeOf(reason) == codeNewer:
		return undrainedNewer
	}
	return undrainedBroken
}

// refuse leaves a subject in quarantine of which the store takes no rows, and says why where nothing says it yet.
func (d *drain[R]) refuse(ctx context.Context, p *part, cause error) error {
	for subject, w := range p.about {
		delete(d.want, subject)
		if len(p.rows) == 0 {
			continue
		}
		first := p.rows[0]
		first.Reason = reasonRefused
		w.stop = &first
		d.stopped(subject, w, "err", cause)
		if p.rows[0].Reason != Parked {
			continue
		}
		none := noStates()
		err := d.store.Drain(ctx, &Drained[R]{
			Topic: d.topic, Slot: d.slot, Next: d.next, States: none, Rows: d.sink.store.Rows(d.slot, none),
			Seen: []topic.Position{first.Position}, Kept: []Quarantined{first},
		})
		if err == nil {
			d.wrote = true
			continue
		}
		if err = d.sink.store.Classify(err); !refused(ctx, err) {
			return err
		}
	}
	return nil
}
