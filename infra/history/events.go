package history

import (
	"context"
	"slices"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Event is an accepted event of a thread, as it stands in the log.
type Event struct {
	Position topic.Position
	Ordinal  int64 // of the message; of another event that of the last message before it
	Time     time.Time
	Event    []byte
}

func (r *Event) scan(into func(...any) error) error {
	return into((*int64)(&r.Position), &r.Ordinal, &r.Time, &r.Event)
}

// Stretch is a part of a thread: its events at positions After < p <= UpTo with a log time of at least Since.
type Stretch struct {
	Thread      id.ThreadID
	After, UpTo topic.Position
	Since       int64 // Unix milliseconds
}

// Page asks for the events of a thread before a position, newest first, as far as somebody may see them.
type Page struct {
	Thread id.ThreadID
	Before topic.Position
	Spans  []thread.Span // both ends included: none is open, and there is one at least
	Floor  int64         // log time, Unix milliseconds: nothing older
	Limit  int
	// Bytes bounds the page, each event taking PerEvent beside its own bytes: the first with which they are more is the
	// last.
	Bytes    int
	PerEvent int
}

const (
	sqlEventsOf = `SELECT position, ordinal, log_time, event FROM messages FINAL WHERE `

	sqlOthersOf = `SELECT position, ordinal, log_time, event FROM thread_events FINAL WHERE `

	inStretch = `
       thread_id = toUUID(?) AND position > ? AND position <= ? AND log_time >= fromUnixTimestamp64Milli(toInt64(?))
 ORDER BY position LIMIT ?`

	sqlStretch = `
SELECT position, ordinal, log_time, event FROM (` + sqlEventsOf + inStretch + `
 UNION ALL ` + sqlOthersOf + inStretch + `
) ORDER BY position LIMIT ?`
)

// Events returns the first limit events of a stretch, in order.
func (h *History) Events(ctx context.Context, s Stretch, limit int) ([]Event, error) {
	args := []any{canonical(s.Thread), int64(s.After), int64(s.UpTo), s.Since, limit}
	return all[Event](ctx, h, "events", sqlStretch, slices.Concat(args, args, []any{limit})...)
}

// Page returns a page of a thread.
func (h *History) Page(ctx context.Context, p Page) ([]Event, error) {
	spans := ""
	args := []any{canonical(p.Thread), int64(p.Before), p.Floor}
	for i, s := range p.Spans {
		if i > 0 {
			spans += " OR "
		}
		spans += "position BETWEEN ? AND ?"
		args = append(args, int64(s.From), int64(s.To))
	}
	where := `
       thread_id = toUUID(?) AND position < ? AND log_time >= fromUnixTimestamp64Milli(toInt64(?)) AND (` + spans + `)
 ORDER BY position DESC LIMIT ?`
	args = append(args, p.Limit)
	return all[Event](ctx, h, "page of events", `
SELECT position, ordinal, log_time, event FROM (
       SELECT *, sum(length(event) + ?) OVER (ORDER BY position DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                 - length(event) - ? AS before
         FROM (`+sqlEventsOf+where+` UNION ALL `+sqlOthersOf+where+`) ORDER BY position DESC LIMIT ?
       ) WHERE before <= ? ORDER BY position DESC`,
		slices.Concat([]any{p.PerEvent, p.PerEvent}, args, args, []any{p.Limit, p.Bytes})...)
}
