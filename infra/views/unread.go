package views

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Unread asks how many of the messages that a user has not read are somebody else's, on a device that is shown nothing
// from before Since and From.
type Unread struct {
	Thread id.ThreadID
	User   id.UserID
	thread.Unread
	First topic.Position // of the event that made him a member first
	Since time.Time
	From  topic.Position // nothing from before it is shown either
}

// UnreadOf asks it of a member's rows.
func UnreadOf(
	t id.ThreadID, u id.UserID, m *thread.Member, last int64, w thread.Watermark, since time.Time,
	from topic.Position,
) Unread {
	return Unread{Thread: t, User: u, Unread: m.Unread(last, w), First: m.Spans[0].From, Since: since, From: from}
}

// Counted is the answer to Unread.
type Counted struct {
	Messages int64
	// Past: what the user may see of the thread begins before what the device is shown of it.
	Past bool
}

// countedUnread is how many of the newest messages of a thread are looked at: with more, every older one counts, so
// that no answer costs more than that.
const countedUnread = 1000

// What was trimmed from the tail is older than what is found there. It counts, unless something that is found, or the
// newest of what was trimmed, is from before Since or From.
var sqlUnread = `
SELECT k.nth,
       c.others + CASE WHEN c.hidden OR c.found < $9 AND (x.log_time < k.since OR x.position < k.floor) THEN 0
                       ELSE greatest(k.last - k.read - c.found, 0) END,
       k.first < k.floor OR coalesce(
           (SELECT log_time < k.since FROM messages WHERE thread_id = k.thread_id AND position = k.first),
                x.position >= k.first AND x.log_time < k.since, false)
  FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[],
              $8::bigint[])
       WITH ORDINALITY AS k (thread_id, user_id, after, read, last, first, since, floor, nth)
  LEFT JOIN trimmed x ON x.thread_id = k.thread_id
 CROSS JOIN LATERAL (
       SELECT count(*) AS found,
              count(*) FILTER (
                WHERE n.sender_id <> k.user_id AND n.log_time >= k.since AND n.position >= k.floor) AS others,
              coalesce(bool_or(n.log_time < k.since OR n.position < k.floor), false) AS hidden
         FROM (SELECT sender_id, log_time, position FROM messages
                WHERE thread_id = k.thread_id AND position > k.after AND k.last > k.read
                  AND ordinal > k.read AND ordinal <= k.last AND kind = ` + kindMessage + `
                ORDER BY position DESC LIMIT $9) n
       ) c`

// Unread counts unread messages, in the order of the keys.
func (v *Views) Unread(ctx context.Context, keys []Unread) ([]Counted, error) {
	threads, users := make([]id.ThreadID, len(keys)), make([]id.UserID, len(keys))
	after, read, last := make([]int64, len(keys)), make([]int64, len(keys)), make([]int64, len(keys))
	first, since, floor := make([]int64, len(keys)), make([]time.Time, len(keys)), make([]int64, len(keys))
	for i, k := range keys {
		threads[i], users[i], after[i], read[i], last[i] = k.Thread, k.User, int64(k.After), k.Read, k.Last
		first[i], since[i], floor[i] = int64(k.First), k.Since, int64(k.From)
	}
	out := make([]Counted, len(keys))
	err := each(ctx, v, "unread messages", sqlUnread, func(c *nthCounted) error {
		out[c.nth-1] = c.Counted
		return nil
	}, uuids(threads), uuids(users), after, read, last, first, since, floor, countedUnread)
	return out, err
}

type nthCounted struct {
	Counted
	nth int64
}

func (c *nthCounted) targets() []any { return []any{&c.nth, &c.Messages, &c.Past} }
