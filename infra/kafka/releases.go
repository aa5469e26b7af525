package kafka

import (
	"cmp"
	"maps"
	"slices"

	"heliograph/schemas/event"
	"heliograph/schemas/topic"
)

// Release is what an operator has decided of an event that is in quarantine.
type Release struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	Subject  topic.Subject // of the event; zero when its key has none
	// Dropped: every fold passes it over, as if it were not in the log. Else it is to be tried again, which changes
	// nothing of what it means.
	Dropped bool
	At      int64 // where the decision lies: the offset in helio.quarantine
}

// Releases is what was decided of one slot up to a moment. It is not changed; the zero value has none.
type Releases struct {
	dropped map[where]Release
	retried map[where]Release // the last of each
}

// where an event lies in its slot, and whose it is: of another subject's, in a log that was made anew, nothing was
// decided.
type where struct {
	topic   topic.Topic
	at      topic.Position
	subject topic.Subject
}

// NewReleases returns what some decisions come to.
func NewReleases(all ...Release) Releases { return Releases{}.With(all...) }

// With returns r with further decisions.
func (r Releases) With(more ...Release) Releases {
	out, _ := r.with(more)
	return out
}

// with returns r with further decisions; grown: it says more than r.
func (r Releases) with(more []Release) (out Releases, grown bool) {
	out = r
	for _, d := range more {
		w := where{d.Topic, d.Position, d.Subject}
		if was, ok := out.of(d.Dropped)[w]; ok && (d.Dropped || was.At >= d.At) {
			continue
		}
		if !grown {
			out = Releases{maps.Clone(r.dropped), maps.Clone(r.retried)}
			grown = true
		}
		if out.of(d.Dropped) == nil {
			out.set(d.Dropped, map[where]Release{})
		}
		out.of(d.Dropped)[w] = d
	}
	return out, grown
}

func (r *Releases) of(dropped bool) map[where]Release {
	if dropped {
		return r.dropped
	}
	return r.retried
}

func (r *Releases) set(dropped bool, m map[where]Release) {
	if dropped {
		r.dropped = m
	} else {
		r.retried = m
	}
}

// Dropped returns the decisions to drop an event of a topic, by position.
func (r Releases) Dropped(t topic.Topic) []Release {
	var out []Release
	for w, d := range r.dropped {
		if w.topic == t {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Release) int { return cmp.Compare(a.Position, b.Position) })
	return out
}

// Retried returns the last decision to try an event again.
func (r Releases) Retried(t topic.Topic, subject topic.Subject, at topic.Position) (Release, bool) {
	d, ok := r.retried[where{t, at, subject}]
	return d, ok
}

// Drops tells whether the event of a subject that lies at a position is passed over. A fold that is not fed by a
// Consumer asks it.
func (r Releases) Drops(t topic.Topic, subject topic.Subject, at topic.Position) bool {
	if len(r.dropped) == 0 {
		return false
	}
	_, ok := r.dropped[where{t, at, subject}]
	return ok
}

// Blank takes their values from the records that are dropped: what has none is no one's event, for every fold. A
// Consumer does it before its sink gets them.
func (r Releases) Blank(recs []Record) {
	for i := range recs {
		r.blank(&recs[i])
	}
}

func (r Releases) blank(rec *Record) {
	if len(r.dropped) == 0 {
		return
	}
	k, _ := event.ParseKey(rec.Topic, rec.Key) // without a subject it is zero
	if r.Drops(rec.Topic, k.Subject, rec.Position) {
		rec.Value = nil
	}
}

// Releasable is a Sink that takes out of quarantine what an operator has released: it is told what was decided of a
// slot before each Open. When more is decided while the slot is open, it is opened anew at once.
type Releasable interface {
	Released(slot topic.Slot, r Releases)
}
