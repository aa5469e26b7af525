package views

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Listed is a thread as it stands in a user's list. What of it he may see is for the caller to judge, save the time of
// the thread's last message, which orders the list and so is the one that he may know.
type Listed struct {
	Thread  Thread // LastTime is the epoch for a former member, once the thread has gone on without him
	Member  thread.Member
	Active  bool // as the row says
	Mark    thread.Watermark
	Members int64     // how many there are now
	Peer    id.UserID // of a direct thread, the other one; all zero: none
}

func (r *Listed) targets() []any {
	out := append(r.Thread.targets(), (*int16)(&r.Member.Role), &r.Active, (*spanPairs)(&r.Member.Spans))
	out = append(append(out, &r.Member.BaseOrdinal, &r.Member.EndOrdinal), markTargets(&r.Mark)...)
	return append(out, &r.Members, (*nullable)(&r.Peer))
}

// ListKey is the place of a thread in a list: the one with the newest message comes first.
type ListKey struct {
	Time   time.Time
	Thread id.ThreadID
}

// Membership is what somebody was of a thread, and how far it and the view of its slot had got at that moment.
type Membership struct {
	Spans []thread.Span
	Last  topic.Position // of the thread's last accepted event
	Next  topic.Position // the views have taken in everything of helio.threads before it
}

func (r *Membership) targets() []any {
	return []any{(*spanPairs)(&r.Spans), (*int64)(&r.Last), (*int64)(&r.Next)}
}

// Participant is a member of now, by his name.
type Participant struct {
	User id.UserID
	Role thread.Role
	Name string // empty: not known
	Mark thread.Watermark
}

func (r *Participant) targets() []any {
	return append([]any{(*key)(&r.User), (*int16)(&r.Role), &r.Name}, markTargets(&r.Mark)...)
}

// Invitee is who is invited now, by his name.
type Invitee struct {
	User id.UserID
	By   id.UserID
	Name string // empty: not known
}

func (r *Invitee) targets() []any { return []any{(*key)(&r.User), (*key)(&r.By), &r.Name} }

const (
	// For a former member the time stands still too: page tokens tell it.
	seenTime = `
       CASE WHEN m.active OR t.last_position <= m.spans[cardinality(m.spans)] THEN t.last_time ELSE 'epoch' END`

	markOrNone = `
       coalesce(w.delivered_position, 0), coalesce(w.delivered_ordinal, 0), coalesce(w.read_position, 0),
       coalesce(w.read_ordinal, 0)`

	sqlMembership = `
SELECT m.spans, t.last_position, coalesce((SELECT next FROM positions WHERE topic = $3 AND slot = $4), 0)
  FROM members m JOIN threads t USING (thread_id) WHERE m.thread_id = $1 AND m.user_id = $2`

	sqlParticipants = `
SELECT m.user_id, m.role, coalesce(u.name, ''),` + markOrNone + `
  FROM members m
  LEFT JOIN users u USING (user_id)
  LEFT JOIN watermarks w ON w.thread_id = m.thread_id AND w.user_id = m.user_id
 WHERE m.thread_id = $1 AND m.active ORDER BY m.user_id`

	sqlInvitees = `
SELECT i.user_id, i.inviter_id, coalesce(u.name, '') FROM invitations i LEFT JOIN users u USING (user_id)
 WHERE i.thread_id = $1 ORDER BY i.user_id`
)

var (
	sqlListedColumns = `
SELECT t.thread_id, t.kind, t.title, t.last_position, t.last_ordinal,` + seenTime + `, t.last_sender, t.preview,
       m.role, m.active, m.spans, m.base_ordinal, m.end_ordinal,` + markOrNone + `,
       (SELECT count(*) FROM members n WHERE n.thread_id = t.thread_id AND n.active),
       (SELECT n.user_id FROM members n
         WHERE t.kind = ` + kindDirect + ` AND n.thread_id = t.thread_id AND n.user_id <> m.user_id LIMIT 1)`

	// The page is found first, by what orders it alone; only its threads are looked at further. To find it costs nine
	// buffers for each thread that the user has: a page of 50 reads 90,000 at 10,000 threads, the most that one may be
	// in, and 800 of them for the page itself. No order is kept by user, which would cost a write for each member of
	// each message.
	sqlList = `
WITH page AS MATERIALIZED (
  SELECT ut.thread_id, ut.user_id
    FROM user_threads ut
    JOIN threads t USING (thread_id)
    JOIN members m ON m.thread_id = ut.thread_id AND m.user_id = ut.user_id
   WHERE ut.user_id = $1 AND (` + seenTime + `, t.thread_id) < ($2, $3)
   ORDER BY ` + seenTime + ` DESC, t.thread_id DESC LIMIT $4)` + sqlListedColumns + `
  FROM page ut
  JOIN threads t USING (thread_id)
  JOIN members m ON m.thread_id = ut.thread_id AND m.user_id = ut.user_id
  LEFT JOIN watermarks w ON w.thread_id = ut.thread_id AND w.user_id = ut.user_id
 ORDER BY ` + seenTime + ` DESC, t.thread_id DESC`

	sqlListed = sqlListedColumns + `
  FROM members m
  JOIN threads t USING (thread_id)
  LEFT JOIN watermarks w ON w.thread_id = m.thread_id AND w.user_id = m.user_id
 WHERE m.thread_id = $1 AND m.user_id = $2`
)

// List returns the threads of a user's list that come behind a key, the first limit of them: the one with the newest
// message first, and those that went on without him last.
func (v *Views) List(ctx context.Context, u id.UserID, behind ListKey, limit int) ([]Listed, error) {
	return all[Listed](ctx, v, "thread list", sqlList, uuid(u), behind.Time, uuid(behind.Thread), limit)
}

// Listed returns a thread as it stands in the list of one who is or was a member, whether he has it there or not.
func (v *Views) Listed(ctx context.Context, u id.UserID, t id.ThreadID) (Listed, bool, error) {
	return one[Listed](ctx, v, "thread of a user", sqlListed, uuid(t), uuid(u))
}

// Membership returns what a user was of a thread of a slot; false: never a member, or there is no such thread.
func (v *Views) Membership(
	ctx context.Context, u id.UserID, t id.ThreadID, slot topic.Slot,
) (Membership, bool, error) {
	return one[Membership](
		ctx, v, "membership", sqlMembership, uuid(t), uuid(u), int16(topic.Threads.Number()), int32(slot),
	)
}

// Participants returns the members of a thread that are in it now, by user.
func (v *Views) Participants(ctx context.Context, t id.ThreadID) ([]Participant, error) {
	return all[Participant](ctx, v, "members of a thread", sqlParticipants, uuid(t))
}

// Invitees returns who is invited into a thread now, by user.
func (v *Views) Invitees(ctx context.Context, t id.ThreadID) ([]Invitee, error) {
	return all[Invitee](ctx, v, "invited into a thread", sqlInvitees, uuid(t))
}
