package operator

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	logevent "heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// The views, as events of helio.quarantine name them.
const (
	ViewThreads = "threads"
	ViewHistory = "history"
)

// foldedBy are the views that fold a topic.
func foldedBy(t topic.Topic) []string {
	if t == topic.Users { // the history has no users
		return []string{ViewThreads}
	}
	return []string{ViewThreads, ViewHistory}
}

// Stopped is a subject that stands still on a topic since an event that could not be applied.
type Stopped struct {
	Subject  string         `json:"subject"` // all zero: the event's key has none
	Topic    topic.Topic    `json:"topic"`
	Slot     topic.Slot     `json:"slot"`
	Position topic.Position `json:"position"` // of the event
	Reason   string         `json:"reason"`
	Since    time.Time      `json:"since"` // the log time of the event
	// Behind is how many events are parked behind it, by view; a view that is not in it does not have it so.
	Behind map[string]int64 `json:"behind"`

	key topic.Subject
}

// Views names those that have it.
func (s *Stopped) Views() string { return strings.Join(slices.Sorted(maps.Keys(s.Behind)), ", ") }

// MostBehind is the most events that are parked behind it in a view.
func (s *Stopped) MostBehind() (n int64) {
	for _, b := range s.Behind {
		n = max(n, b)
	}
	return n
}

// Quarantine is what stands still in the views.
type Quarantine struct {
	Stopped []Stopped `json:"stopped"` // by topic, slot and position
	// Errors are those of the views that do not answer.
	Errors map[string]string `json:"errors,omitempty"`
}

// Quarantine asks both views what stands still in them: of one subject, or all there is.
func (v *Views) Quarantine(ctx context.Context, subject *topic.Subject) Quarantine {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	out := Quarantine{Stopped: []Stopped{}, Errors: map[string]string{}}
	type where struct {
		topic    topic.Topic
		slot     topic.Slot
		position topic.Position
		subject  topic.Subject
		reason   string
	}
	found := map[where]*Stopped{}
	put := func(view string, w where, since time.Time, events int64) {
		s := found[w]
		if s == nil {
			s = &Stopped{
				Subject: id.ThreadID(w.subject).String(), Topic: w.topic, Slot: w.slot, Position: w.position,
				Reason: w.reason, Since: since.UTC(), Behind: map[string]int64{}, key: w.subject,
			}
			found[w] = s
		}
		s.Behind[view] = events - 1
	}
	inViews, err := v.views.Stopped(ctx, subject)
	if err != nil {
		out.Errors[ViewThreads] = err.Error()
	}
	for _, s := range inViews {
		put(ViewThreads, where{s.Topic, s.Slot, s.Position, s.Subject, s.Reason}, s.Time, s.Events)
	}
	inHistory, err := v.history.Stopped(ctx, subject)
	if err != nil {
		out.Errors[ViewHistory] = err.Error()
	}
	for _, s := range inHistory {
		put(ViewHistory, where{s.Topic, s.Slot, s.Position, s.Subject, s.Reason}, s.Time, int64(s.Events))
	}
	for _, s := range found {
		out.Stopped = append(out.Stopped, *s)
	}
	slices.SortFunc(out.Stopped, func(a, b Stopped) int {
		return cmp.Or(
			cmp.Compare(a.Topic.Number(), b.Topic.Number()), cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.Position, b.Position), cmp.Compare(a.Views(), b.Views()),
		)
	})
	return out
}

// at is what a view has stopped of a subject on a topic.
func (q *Quarantine) at(view string, t topic.Topic, slot topic.Slot, subject topic.Subject) *Stopped {
	for i := range q.Stopped {
		s := &q.Stopped[i]
		if _, has := s.Behind[view]; has && s.Topic == t && s.Slot == slot && s.key == subject {
			return s
		}
	}
	return nil
}

// next is how far a view is in a topic of a slot.
func (v *Views) next(ctx context.Context, view string, t topic.Topic, slot topic.Slot) (topic.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	if view == ViewThreads {
		f, err := v.views.FreshnessOf(ctx, t, slot)
		return f.Next, err
	}
	f, err := v.history.FreshnessOf(ctx, t, slot)
	return f.Next, err
}

// Droppable returns an error unless the event at a position may be dropped: every view that folds the topic has its
// subject stopped there, or has yet to come to it. An event that a view has taken in cannot be taken out of it.
func (v *Views) Droppable(ctx context.Context, s Stopped) error {
	subject := s.key
	q := v.Quarantine(ctx, &subject)
	for _, view := range foldedBy(s.Topic) {
		if err := q.Errors[view]; err != "" {
			return fmt.Errorf("the %s do not answer: %s", viewWords(view), err)
		}
		has := q.at(view, s.Topic, s.Slot, subject)
		if has != nil && has.Position == s.Position {
			continue
		}
		next, err := v.next(ctx, view, s.Topic, s.Slot)
		switch {
		case err != nil:
			return fmt.Errorf("the %s do not answer: %w", viewWords(view), err)
		case has != nil && has.Position < s.Position:
			return fmt.Errorf("position %d of %s slot %d is only parked in the %s: what stops its subject is at %d",
				s.Position, s.Topic, s.Slot, viewWords(view), has.Position)
		case next > s.Position:
			return fmt.Errorf("position %d of %s slot %d does not stop %s in the %s, which have everything before %d",
				s.Position, s.Topic, s.Slot, s.Subject, viewWords(view), next)
		}
	}
	return nil
}

func viewWords(view string) string {
	if view == ViewThreads {
		return "thread views"
	}
	return "rows of the history"
}

// The states of a view after a decision.
const (
	// ReleaseDrained: nothing of the subject is in quarantine on that topic any more.
	// ReleaseStopped: it went on, and stands still at a later event.
	// ReleaseRefused: the event was tried again, and cannot be applied still.
	// ReleaseWaits: the view has not done it yet.
	// ReleaseUnknown: the view does not answer.
	ReleaseDrained = "drained"
	ReleaseStopped = "stopped again"
	ReleaseRefused = "refused again"
	ReleaseWaits   = "not yet"
	ReleaseUnknown = "unknown"
)

// Released is what came of a decision in a view.
type Released struct {
	View     string         `json:"view"`
	State    string         `json:"state"`
	Position topic.Position `json:"position,omitempty"` // of the event at which the subject stands still
	Reason   string         `json:"reason,omitempty"`
	Behind   int64          `json:"behind,omitempty"`
}

func (r Released) done() bool { return r.State != ReleaseWaits && r.State != ReleaseUnknown }

// releasePoll bounds how long after another the views are asked what came of a decision.
const releasePollMin, releasePollMax = 20 * time.Millisecond, 500 * time.Millisecond

// Watch follows what comes of a decision about what stopped a subject, which lies at an offset of helio.quarantine,
// until every view that folds the topic is done with it or ctx ends; then it says how far they are.
func (v *Views) Watch(ctx context.Context, cfg kafka.Config, s Stopped, dropped bool, offset int64) []Released {
	reports := make(chan *logevent.Event, 64)
	inner, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // what it cannot tell is told by the views, if later
		l, err := Open(inner, cfg, topic.Quarantine)
		if err != nil {
			return
		}
		defer l.Close()
		_ = l.follow(inner, map[topic.Slot]int64{s.Slot: offset}, func(r *kgo.Record) bool {
			if e, err := logevent.Decode(r.Value); err == nil && e.HasQuarantined() {
				select {
				case reports <- e:
				case <-inner.Done():
				}
			}
			return true
		})
	}()
	refused := map[string]bool{}
	delay := releasePollMin
	for {
		asked := context.WithoutCancel(ctx) // the last answer is of when the time is over
		out, done := v.released(asked, s, dropped, refused)
		if done || ctx.Err() != nil {
			return out
		}
		t := time.NewTimer(delay)
		select {
		case e := <-reports:
			q := e.GetQuarantined()
			if q.GetTopic() == string(s.Topic) && topic.Position(q.GetPosition()) == s.Position {
				refused[q.GetView()] = true
			}
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		delay = min(2*delay, releasePollMax)
	}
}

func (v *Views) released(
	ctx context.Context, s Stopped, dropped bool, refused map[string]bool,
) (out []Released, done bool) {
	q := v.Quarantine(ctx, &s.key)
	done = true
	for _, view := range foldedBy(s.Topic) {
		r := Released{View: view, State: ReleaseDrained}
		has := q.at(view, s.Topic, s.Slot, s.key)
		switch {
		case q.Errors[view] != "":
			r.State, r.Reason = ReleaseUnknown, q.Errors[view]
		// events without a subject stop nothing
		case has == nil, s.key == topic.Subject{} && has.Position != s.Position:
		case has.Position > s.Position && has.Reason != parked:
			r.State = ReleaseStopped
		case has.Position == s.Position && !dropped && refused[view]:
			r.State = ReleaseRefused
		default:
			r.State = ReleaseWaits
		}
		if has != nil && r.State != ReleaseDrained {
			r.Position, r.Reason, r.Behind = has.Position, has.Reason, has.Behind[view]
		}
		out, done = append(out, r), done && r.done()
	}
	return out, done
}

// parked is the reason of what stands behind another event.
const parked = "parked"

// Found is an event in quarantine as the log has it.
type Found struct {
	Stopped
	Time time.Time `json:"time"`
	Key  string    `json:"key"` // in hexadecimal
	Event
	// Raw is the record's value in hexadecimal, where it cannot be decoded whole.
	Raw   string `json:"raw,omitempty"`
	Error string `json:"log_error,omitempty"`
}

// Find reads the event that has stopped a subject from the log.
func (s Stopped) Find(ctx context.Context, cfg kafka.Config, bodies bool) Found {
	out := Found{Stopped: s}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	l, err := Open(ctx, cfg, s.Topic)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	defer l.Close()
	at := l.Offset(s.Slot, s.Position)
	if at < l.Begin(s.Slot) || at >= l.End(s.Slot) {
		out.Error = fmt.Sprintf("the log does not have position %d of %s slot %d", s.Position, s.Topic, s.Slot)
		return out
	}
	there := false
	err = l.Scan(ctx, Span{s.Slot: {at, at + 1}}, func(r *kgo.Record) bool {
		there = true
		out.Time, out.Key, out.Event = r.Timestamp.UTC(), hex.EncodeToString(r.Key), Show(r.Value, bodies)
		if _, err := logevent.Decode(r.Value); err != nil {
			out.Raw = hex.EncodeToString(r.Value)
		}
		return true
	})
	switch {
	case err != nil:
		out.Error = err.Error()
	case !there:
		out.Error = fmt.Sprintf("the log does not have position %d of %s slot %d any more",
			s.Position, s.Topic, s.Slot)
	}
	return out
}
