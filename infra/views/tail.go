package views

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Event is an accepted event of a thread's tail, as it stands in the log.
type Event struct {
	Position topic.Position
	Ordinal  int64 // of the message; of another event that of the last message before it
	Time     time.Time
	Event    []byte
}

func (r *Event) targets() []any {
	return []any{(*int64)(&r.Position), &r.Ordinal, &r.Time, &r.Event}
}

// Range asks for the events of a thread at positions After < p <= UpTo with a log time of at least Since: the first
// Limit of them, and none after the one with which they have Bytes.
type Range struct {
	Thread      id.ThreadID
	After, UpTo topic.Position
	Since       time.Time
	Limit       int
	Bytes       int
}

// Trimmed is how far a thread's tail was trimmed: every accepted event at a later position, and every one of a later
// log time, is in the tail.
type Trimmed struct {
	Thread   id.ThreadID
	Position topic.Position
	Time     time.Time
}

func (r *Trimmed) targets() []any { return []any{(*key)(&r.Thread), (*int64)(&r.Position), &r.Time} }

const (
	sqlTails = `
SELECT k.nth, m.position, m.ordinal, m.log_time, m.event
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::bigint[])
       WITH ORDINALITY AS k (thread_id, after, up_to, since, most, bytes, nth)
 CROSS JOIN LATERAL (
       SELECT position, ordinal, log_time, event,
              sum(octet_length(event)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - octet_length(event) AS before
         FROM messages
        WHERE thread_id = k.thread_id AND position > k.after AND position <= k.up_to AND log_time >= k.since
        ORDER BY position LIMIT k.most
       ) m
 WHERE m.before < k.bytes
 ORDER BY k.nth, m.position`

	sqlTrimmed = `SELECT thread_id, position, log_time FROM trimmed` + ofThreads

	sqlPage = `
SELECT position, ordinal, log_time, event FROM (
       SELECT position, ordinal, log_time, event,
              sum(octet_length(event) + $7) OVER (ORDER BY position DESC ROWS UNBOUNDED PRECEDING)
              - octet_length(event) - $7 AS before
         FROM messages
        WHERE thread_id = $1 AND position < $2 AND log_time >= $5
          AND EXISTS (SELECT 1 FROM unnest($3::bigint[], $4::bigint[]) s(f, t) WHERE position BETWEEN s.f AND s.t)
        ORDER BY position DESC LIMIT $6
       ) m
 WHERE before <= $8 ORDER BY position DESC`

	sqlTailBegins = `SELECT min(position) FROM messages WHERE thread_id = $1`
)

type nthEvent struct {
	nth int64
	Event
}

func (r *nthEvent) targets() []any { return append([]any{&r.nth}, r.Event.targets()...) }

// Tails asks for ranges of tails. The events of a range come in order, after those of the ranges before it; fn is told
// which range it is, by its index.
func (q *Questions) Tails(ranges []Range, fn func(nth int, e *Event) error) {
	threads, after, upTo := make([]id.ThreadID, len(ranges)), make([]int64, len(ranges)), make([]int64, len(ranges))
	since, most, bytes := make([]time.Time, len(ranges)), make([]int64, len(ranges)), make([]int64, len(ranges))
	for i, r := range ranges {
		threads[i], after[i], upTo[i] = r.Thread, int64(r.After), int64(r.UpTo)
		since[i], most[i], bytes[i] = r.Since, int64(r.Limit), int64(r.Bytes)
	}
	put(q, "tails", sqlTails, func(r *nthEvent) error {
		return fn(int(r.nth-1), &r.Event)
	}, uuids(threads), after, upTo, since, most, bytes)
}

// Trimmed asks how far the tails of threads were trimmed; one that is not in the answer has its whole past in its tail.
func (q *Questions) Trimmed(ids []id.ThreadID, fn func(*Trimmed) error) {
	put(q, "what was trimmed", sqlTrimmed, fn, uuids(ids))
}

// Page asks for the events of a thread's tail before a position, newest first, as far as somebody may see them.
type Page struct {
	Thread id.ThreadID
	Before topic.Position
	Spans  []thread.Span // both ends included: none is open
	Floor  time.Time     // log time: nothing older
	Limit  int
	// Bytes bounds the page, each event taking PerEvent beside its own bytes: the first with which they are more is the
	// last.
	Bytes    int
	PerEvent int
}

// Page returns a page of a tail.
func (v *Views) Page(ctx context.Context, p Page) ([]Event, error) {
	from, to := make([]int64, len(p.Spans)), make([]int64, len(p.Spans))
	for i, s := range p.Spans {
		from[i], to[i] = int64(s.From), int64(s.To)
	}
	return all[Event](
		ctx, v, "page of a tail", sqlPage, uuid(p.Thread), int64(p.Before), from, to, p.Floor, p.Limit, p.PerEvent,
		p.Bytes,
	)
}

// TailBegins returns the position of the first event in a thread's tail; -1: the tail has nothing of it.
func (v *Views) TailBegins(ctx context.Context, t id.ThreadID) (topic.Position, error) {
	r, _, err := one[beginning](ctx, v, "beginning of a tail", sqlTailBegins, uuid(t))
	if r.position == nil {
		return -1, err
	}
	return topic.Position(*r.position), err
}

type beginning struct{ position *int64 }

func (r *beginning) targets() []any { return []any{&r.position} }
