package history

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Change is what an event made of a member.
type Change struct {
	Thread   id.ThreadID
	User     id.UserID
	Position topic.Position
	Kind     thread.Kind
	Active   bool
	Role     thread.Role
	Ordinal  int64 // of the last message before this event
}

func (r *Change) columns() []any {
	return []any{
		(*key)(&r.Thread), (*key)(&r.User), (*int64)(&r.Position), (*int16)(&r.Kind), &r.Active, (*int16)(&r.Role),
		&r.Ordinal,
	}
}

func (r *Change) scan(into func(...any) error) error { return into(r.columns()...) }

// Sent is a message, as the rule on retries knows it.
type Sent struct {
	Thread   id.ThreadID
	Sender   id.UserID
	Message  id.MessageID
	Position topic.Position
	Ordinal  int64
	Time     time.Time
}

func (r *Sent) columns() []any {
	return []any{
		(*key)(&r.Thread), (*key)(&r.Sender), (*key)(&r.Message), (*int64)(&r.Position), &r.Ordinal, &r.Time,
	}
}

func (r *Sent) scan(into func(...any) error) error { return into(r.columns()...) }

// Recent is a message within the window before the thread's clock, and what the thread had come to.
type Recent struct {
	Sent
	LastTime    time.Time // the thread's clock: the highest log time of its messages, as far as it counts
	LastOrdinal int64     // the highest of its messages
}

func (r *Recent) scan(into func(...any) error) error {
	return into(append(r.columns(), &r.LastTime, &r.LastOrdinal)...)
}

const (
	sqlChanges = `
SELECT thread_id, user_id, position, kind, active, role, ordinal FROM memberships FINAL
 WHERE thread_id IN (%s) AND position < %s ORDER BY thread_id, user_id, position`

	// Rows that have yet to be made one are the same, and the last alone counts.
	sqlInvited = `
SELECT thread_id, user_id, position, slot, open, kind, actor_id, log_time FROM (
` + sqlInvitations + ` WHERE thread_id IN (%s) AND position < %s
 ORDER BY position DESC LIMIT 1 BY thread_id, user_id
) WHERE open`

	sqlRecent = `
SELECT m.thread_id, m.sender_id, m.message_id, m.position, m.ordinal, m.log_time, l.last, l.ordinals
  FROM messages AS m INNER JOIN (
       SELECT thread_id, max(counted_time) AS last, max(ordinal) AS ordinals FROM messages
        WHERE thread_id IN (%[1]s) AND position < %[2]s GROUP BY thread_id
       ) AS l ON l.thread_id = m.thread_id
 WHERE m.thread_id IN (%[1]s) AND m.position < %[5]s AND (m.log_time >= l.last - INTERVAL %[4]d SECOND)
 ORDER BY m.thread_id, m.log_time DESC LIMIT %[3]d BY m.thread_id`

	sqlSent = `
SELECT thread_id, sender_id, message_id, position, ordinal, log_time FROM messages
 WHERE thread_id IN (%s) AND message_id IN (%s) AND position < %s AND log_time >= fromUnixTimestamp64Milli(%d)`
)

// Before says at which position the answer about a thread ends.
type Before struct {
	All  topic.Position                 // of the threads that are not in Each
	Each map[id.ThreadID]topic.Position // nil: of all threads at the same
}

// of is the position of the thread in a column.
func (b Before) of(column string, threads []id.ThreadID) string {
	var own []id.ThreadID
	var ends strings.Builder
	for _, t := range threads {
		if at, ok := b.Each[t]; ok {
			if own = append(own, t); len(own) > 1 {
				ends.WriteByte(',')
			}
			fmt.Fprintf(&ends, "%d", at)
		}
	}
	if len(own) == 0 {
		return strconv.FormatInt(int64(b.All), 10)
	}
	return fmt.Sprintf("transform(toString(%s), [%s], CAST([%s], 'Array(Int64)'), toInt64(%d))",
		column, list(own), &ends, b.All)
}

// Changes asks what events at positions before a limit made of the members of threads, at most AtOnce; those of a
// member come in order.
func (h *History) Changes(ctx context.Context, threads []id.ThreadID, before Before, fn func(*Change) error) error {
	query := fmt.Sprintf(sqlChanges, list(threads), before.of("thread_id", threads))
	return each(ctx, h, "members", query, fn)
}

// Invited asks who is invited into threads, at most AtOnce, as of positions before a limit: their rows are open.
func (h *History) Invited(
	ctx context.Context, threads []id.ThreadID, before Before, fn func(*Invitation) error,
) error {
	query := fmt.Sprintf(sqlInvited, list(threads), before.of("thread_id", threads))
	return each(ctx, h, "invitations", query, fn)
}

// Recent asks for the messages of threads, at most AtOnce, at positions before a limit and within the window before the
// thread's clock as it was there: of each thread those with the latest log times, few of them at most. The stamps of a
// log may go back, so neither the clock nor the highest ordinal need be those of the newest messages; the one with the
// highest stamp is always within the window. A message may come twice.
func (h *History) Recent(
	ctx context.Context, threads []id.ThreadID, before Before, few int, fn func(*Recent) error,
) error {
	query := fmt.Sprintf(
		sqlRecent, list(threads), before.of("thread_id", threads), few, int64(thread.Window/time.Second),
		before.of("m.thread_id", threads),
	)
	return each(ctx, h, "recent messages", query, fn)
}

// Sent asks which messages have one of the ids in one of the threads, at most AtOnce of each, at positions before a
// limit and with a log time of at least since (Unix milliseconds). A message may come twice.
func (h *History) Sent(
	ctx context.Context, threads []id.ThreadID, messages []id.MessageID, before Before, since int64,
	fn func(*Sent) error,
) error {
	query := fmt.Sprintf(sqlSent, list(threads), list(messages), before.of("thread_id", threads), since)
	return each(ctx, h, "sent messages", query, fn)
}
