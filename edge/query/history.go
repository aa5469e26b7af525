package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// History returns a page of the events of a thread before a position, newest first, as far as the device may see them:
// within the user's spans of membership and not before floorMS (log time, Unix milliseconds). The tail comes from
// Postgres, what is older from ClickHouse.
func (q *Queries) History(
	ctx context.Context, u id.UserID, floorMS int64, r *wirev1.GetHistory,
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
	raw, last, err := q.membership(ctx, u, t, before)
	if err != nil {
		return nil, err
	}
	v := visible{floor: time.UnixMilli(floorMS).UTC()}
	for _, s := range Spans(raw) {
		to := int64(s.To)
		if to == 0 {
			to = last
		}
		v.from, v.to = append(v.from, int64(s.From)), append(v.to, to)
	}
	first := v.from[0]
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
// page that begins below it would have a hole.
func (q *Queries) membership(
	ctx context.Context, u id.UserID, t id.ThreadID, before int64,
) (spans []int64, last int64, err error) {
	slot := topic.SlotOf(topic.Subject(t), q.cfg.Partitions)
	var next int64
	err = q.pool.QueryRow(
		ctx,
		`SELECT m.spans, t.last_position, coalesce((SELECT next FROM positions WHERE topic = 1 AND slot = $3), 0)
		FROM members m JOIN threads t USING (thread_id) WHERE m.thread_id = $1 AND m.user_id = $2`,
		[16]byte(t),
		[16]byte(u),
		int32(slot),
	).Scan(
		&spans, &last, &next,
	)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, 0, notMember()
	case err != nil:
		return nil, 0, q.unavailable("history", err)
	case before < math.MaxInt64 && next < before:
		return nil, 0, &wire.Error{
			Code: wirev1.Code_CODE_UNAVAILABLE, RetryAfter: behindRetry,
			Message: fmt.Sprintf("history: the thread views are at position %d, which is before %d", next, before),
		}
	}
	return spans, last, nil
}

// visible is what a device may see of a thread.
type visible struct {
	from, to []int64 // spans, both ends included
	floor    time.Time
}

// tail reads what Postgres keeps.
func (q *Queries) tail(
	ctx context.Context, t id.ThreadID, v visible, before int64, limit int,
) ([]*wirev1.Event, error) {
	rows, err := q.pool.Query(ctx, `
		SELECT position, ordinal, log_time, event FROM (
			SELECT position, ordinal, log_time, event,
				sum(octet_length(event) + $7) OVER (ORDER BY position DESC ROWS UNBOUNDED PRECEDING) - octet_length(event) - $7 AS before
			FROM messages
			WHERE thread_id = $1 AND position < $2 AND log_time >= $5
				AND EXISTS (SELECT 1 FROM unnest($3::bigint[], $4::bigint[]) s(f, t) WHERE position BETWEEN s.f AND s.t)
			ORDER BY position DESC LIMIT $6
		) m WHERE before <= $8 ORDER BY position DESC`, [16]byte(t), before, v.from, v.to, v.floor, limit, perEvent, maxPage)
	if err != nil {
		return nil, fmt.Errorf("read tail: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*wirev1.Event, error) {
		b := wirev1.Event_builder{ThreadId: t[:]}
		var at time.Time
		if err := row.Scan(&b.Position, &b.Ordinal, &at, &b.Event); err != nil {
			return nil, fmt.Errorf("scan event: %w", err)
		}
		b.LogTimeMs = at.UnixMilli()
		return b.Build(), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tail: %w", err)
	}
	return events, nil
}

// errBehind says that the history has not got as far as the tail's beginning, so a page from it would have a hole.
var errBehind = errors.New("the history has not reached the beginning of the tail yet")

// older reads what only ClickHouse has. The history may lag, but never behind the beginning of Postgres' tail: then it
// is an error, not a hole.
func (q *Queries) older(
	ctx context.Context, t id.ThreadID, v visible, before int64, limit int,
) ([]*wirev1.Event, error) {
	slot := topic.SlotOf(topic.Subject(t), q.cfg.Partitions)
	var begins *int64 // none: the tail has nothing of the thread any more
	err := q.pool.QueryRow(ctx, `SELECT min(position) FROM messages WHERE thread_id = $1`, [16]byte(t)).Scan(&begins)
	if err != nil {
		return nil, fmt.Errorf("read beginning of tail: %w", err)
	}
	// the history must have everything before it: what the page may hold and the tail does not
	need := min(before, v.to[len(v.to)-1]+1)
	if begins != nil {
		if *begins <= v.from[0] {
			return nil, nil // Postgres has the very beginning: there is nothing older to see
		}
		need = min(need, *begins)
	}
	next, err := historyNext(ctx, q.history, slot)
	if err != nil {
		return nil, err
	}
	if int64(next) < need {
		return nil, errBehind
	}
	spans := ""
	args := []any{t.String(), before, v.floor.UnixMilli()}
	for i := range v.from {
		if i > 0 {
			spans += " OR "
		}
		spans += "position BETWEEN ? AND ?"
		args = append(args, v.from[i], v.to[i])
	}
	where := "thread_id = toUUID(?) AND position < ? AND log_time >= fromUnixTimestamp64Milli(toInt64(?)) AND (" + spans + ")"
	rows, err := q.history.Query(ctx, `SELECT position, ordinal, log_time, event FROM (
			SELECT *, sum(length(event) + ?) OVER (ORDER BY position DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - length(event) - ? AS before FROM (
				SELECT position, ordinal, log_time, event FROM messages FINAL WHERE `+where+` ORDER BY position DESC LIMIT ?
				UNION ALL
				SELECT position, ordinal, log_time, event FROM thread_events FINAL WHERE `+where+` ORDER BY position DESC LIMIT ?
			) ORDER BY position DESC LIMIT ?
		) WHERE before <= ? ORDER BY position DESC`,
		slices.Concat([]any{perEvent, perEvent}, args, []any{limit}, args, []any{limit, limit, maxPage})...)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error comes by rows.Err
	return historyEvents(t, rows)
}

// historyEvents collects events of a thread from columns position, ordinal, log_time, event.
func historyEvents(t id.ThreadID, rows driver.Rows) ([]*wirev1.Event, error) {
	var out []*wirev1.Event
	for rows.Next() {
		b := wirev1.Event_builder{ThreadId: t[:]}
		var at time.Time
		var raw string
		if err := rows.Scan(&b.Position, &b.Ordinal, &at, &raw); err != nil {
			return nil, fmt.Errorf("scan history: %w", err)
		}
		b.LogTimeMs, b.Event = at.UnixMilli(), []byte(raw)
		out = append(out, b.Build())
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return out, nil
}

// historyNext is how far the history has got in a slot of helio.threads, in its latest generation: what an earlier one
// had may be gone.
func historyNext(ctx context.Context, history driver.Conn, slot topic.Slot) (topic.Position, error) {
	var next int64
	err := history.QueryRow(ctx, `SELECT max(next) FROM positions WHERE topic = 1 AND slot = ? AND state = 'done'
		AND generation = (SELECT max(generation) FROM positions)`, int32(slot)).Scan(&next)
	if err != nil {
		return 0, fmt.Errorf("read history position: %w", err)
	}
	return topic.Position(next), nil
}
