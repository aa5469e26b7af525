package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"heliograph/infra/history"
	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// History returns a page (wire 10.3, 10.4) of the events of a thread before a position, newest first,
// as far as the device may see them: within the user's spans of membership and not before its floor. The tail comes
// from Postgres, what is older from ClickHouse.
func (q *Queries) History(
	ctx context.Context, u id.UserID, floor user.Floor, r *wirev1.GetHistory,
) (*wirev1.HistoryPage, error) {
	t, err := id.From[id.ThreadID](r.GetThreadId())
	if err != nil {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "thread_id: %v", err)
	}
	limit := int(r.GetLimit())
	switch {
	case limit == 0:
		limit = 100
	case limit > maxHistory:
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "limit %d is above %d", limit, maxHistory)
	}
	before := r.GetBeforePosition()
	switch {
	case before < 0:
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "before_position is negative")
	case before == 0:
		before = math.MaxInt64
	}
	// A membership that lasts is known to last up to the thread's last event of this moment: what comes in between here
	// and the reading of the tail, or is ahead in the history, may come after its end.
	m, err := q.membership(ctx, u, t, topic.Position(before))
	if err != nil {
		return nil, err
	}
	from, ms := q.shown(floor, t)
	v := visible{floor: time.UnixMilli(ms).UTC(), spans: m.Spans}
	for i := range v.spans {
		if s := &v.spans[i]; s.To == 0 {
			s.To = m.Last
		}
	}
	v.spans = slices.DeleteFunc(v.spans, func(s thread.Span) bool { return s.To < from })
	if len(v.spans) == 0 {
		return &wirev1.HistoryPage{}, nil
	}
	v.spans[0].From = max(v.spans[0].From, from)
	first := int64(v.spans[0].From)
	events, err := q.tail(ctx, t, v, before, limit)
	if err != nil {
		return nil, q.unavailable("history", err)
	}
	oldest := before
	if len(events) > 0 {
		oldest = events[len(events)-1].GetPosition()
	}
	done := oldest <= first
	if !done && len(events) < limit && fitting(events) == len(events) {
		older, err := q.older(ctx, t, v, oldest, limit-len(events))
		if err != nil {
			return nil, q.unavailable("history", err)
		}
		events = append(events, older...)
		done = len(events) < limit
	}
	out := wirev1.HistoryPage_builder{Events: events}
	if n := fitting(events); n < len(events) {
		out.Events, done = events[:n], false
	}
	if n := len(out.Events); !done && n > 0 {
		if last := out.Events[n-1].GetPosition(); last > first {
			out.NextBefore = last
		}
	}
	return out.Build(), nil
}

// fitting is how many of the events a page has room for: one at least.
func fitting(events []*wirev1.Event) int {
	size := 0
	for i, e := range events {
		if size += len(e.GetEvent()) + perEvent; size > maxPage && i > 0 {
			return i
		}
	}
	return len(events)
}

// membership reads a member's spans and the thread's last position. When the views lack something before the position
// that is asked for, it says to try again soon: a device may have come by that position faster, from delivery, and a
// page that begins below it would have a gap.
func (q *Queries) membership(
	ctx context.Context, u id.UserID, t id.ThreadID, before topic.Position,
) (views.Membership, error) {
	m, ok, err := q.views.Membership(ctx, u, t, topic.SlotOf(topic.Subject(t), q.cfg.Partitions))
	switch {
	case err != nil:
		return m, q.unavailable("history", err)
	case !ok || len(m.Spans) == 0:
		return m, notMember()
	case before < math.MaxInt64 && m.Next < before:
		return m, &wire.Error{
			Code: wirev1.Code_CODE_UNAVAILABLE, RetryAfter: behindRetry,
			Message: fmt.Sprintf("history: the thread views are at position %d, which is before %d", m.Next, before),
		}
	}
	return m, nil
}

// visible is what a device may see of a thread.
type visible struct {
	spans []thread.Span // both ends included, none of them open
	floor time.Time
}

// tail reads what Postgres keeps.
func (q *Queries) tail(
	ctx context.Context, t id.ThreadID, v visible, before int64, limit int,
) ([]*wirev1.Event, error) {
	found, err := q.views.Page(ctx, views.Page{
		Thread: t, Before: topic.Position(before), Spans: v.spans, Floor: v.floor, Limit: limit, Bytes: maxPage,
		PerEvent: perEvent,
	})
	if err != nil {
		return nil, err
	}
	out := make([]*wirev1.Event, len(found))
	for i := range found {
		e := &found[i]
		out[i] = eventOf(t, e.Position, e.Ordinal, e.Time, e.Event)
	}
	return out, nil
}

// errBehind says that the history has not got as far as the tail's beginning, so a page from it would have a gap.
var errBehind = errors.New("the history has not reached the beginning of the tail yet")

// older reads what only ClickHouse has. The history may lag, but never behind the beginning of Postgres' tail: then it
// is an error, not a gap.
func (q *Queries) older(
	ctx context.Context, t id.ThreadID, v visible, before int64, limit int,
) ([]*wirev1.Event, error) {
	begins, err := q.views.TailBegins(ctx, t)
	if err != nil {
		return nil, err
	}
	// the history must have everything before it: what the page may hold and the tail does not
	need := min(topic.Position(before), v.spans[len(v.spans)-1].To+1)
	if begins >= 0 { // otherwise the tail has nothing of the thread any more
		if begins <= v.spans[0].From {
			return nil, nil // Postgres has the very beginning: there is nothing older to see
		}
		need = min(need, begins)
	}
	f, err := q.history.FreshnessOf(ctx, topic.Threads, topic.SlotOf(topic.Subject(t), q.cfg.Partitions))
	if err != nil {
		return nil, err
	}
	if f.Next < need {
		return nil, errBehind
	}
	found, err := q.history.Page(ctx, history.Page{
		Thread: t, Before: topic.Position(before), Spans: v.spans, Floor: v.floor.UnixMilli(), Limit: limit,
		Bytes: maxPage, PerEvent: perEvent,
	})
	if err != nil {
		return nil, err
	}
	return archived(t, found), nil
}

// archived are events of the history as devices get them.
func archived(t id.ThreadID, found []history.Event) []*wirev1.Event {
	out := make([]*wirev1.Event, len(found))
	for i := range found {
		e := &found[i]
		out[i] = eventOf(t, e.Position, e.Ordinal, e.Time, e.Event)
	}
	return out
}

func eventOf(t id.ThreadID, at topic.Position, ordinal int64, when time.Time, event []byte) *wirev1.Event {
	return wirev1.Event_builder{
		ThreadId: t[:], Position: int64(at), Ordinal: ordinal, LogTimeMs: when.UnixMilli(), Event: event,
	}.Build()
}
