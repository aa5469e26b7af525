package views

import (
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Thread is a row of threads.
type Thread struct {
	ID           id.ThreadID
	Kind         thread.Kind
	Title        string
	LastPosition topic.Position // of the last accepted event
	LastOrdinal  int64          // the number of accepted messages
	LastTime     time.Time      // of the last message, the highest; the epoch before the first
	LastSender   id.UserID
	Preview      string
}

func (r *Thread) targets() []any {
	return []any{
		(*key)(&r.ID), (*int16)(&r.Kind), &r.Title, (*int64)(&r.LastPosition), &r.LastOrdinal, &r.LastTime,
		(*key)(&r.LastSender), &r.Preview,
	}
}

// Fill writes the row into a state of the fold: all that is neither members, invitations nor recent messages.
func (r *Thread) Fill(s *thread.State) {
	s.Kind, s.Title, s.Preview, s.LastSender = r.Kind, r.Title, r.Preview, r.LastSender
	s.LastPosition, s.LastOrdinal, s.LastTimeMS = r.LastPosition, r.LastOrdinal, r.LastTime.UnixMilli()
}

// Member is a row of members. The spans are new for each row.
type Member struct {
	Thread id.ThreadID
	User   id.UserID
	Member thread.Member
	Active bool // as the row says; Member.Active is what follows from its spans
}

func (r *Member) targets() []any {
	return []any{
		(*key)(&r.Thread), (*key)(&r.User), (*int16)(&r.Member.Role), &r.Active, (*spanPairs)(&r.Member.Spans),
		&r.Member.BaseOrdinal, &r.Member.EndOrdinal,
	}
}

// Invitation is a row of invitations: somebody who is invited now.
type Invitation struct {
	Thread   id.ThreadID
	User     id.UserID
	By       id.UserID
	Position topic.Position
	Time     time.Time
}

func (r *Invitation) targets() []any {
	return []any{(*key)(&r.Thread), (*key)(&r.User), (*key)(&r.By), (*int64)(&r.Position), &r.Time}
}

// Invitation is the row as the fold has it.
func (r *Invitation) Invitation() thread.Invitation {
	return thread.Invitation{By: r.By, At: r.Position, TimeMS: r.Time.UnixMilli()}
}

// Watermark is a row of watermarks: how far a member has got, with the device that has got furthest.
type Watermark struct {
	Thread id.ThreadID
	User   id.UserID
	Mark   thread.Watermark
}

func (r *Watermark) targets() []any {
	return append([]any{(*key)(&r.Thread), (*key)(&r.User)}, markTargets(&r.Mark)...)
}

// Latest is the latest log time of a thread's messages.
type Latest struct {
	Thread id.ThreadID
	Time   time.Time
}

func (r *Latest) targets() []any { return []any{(*key)(&r.Thread), &r.Time} }

// Sent is a message as the rule on repeats knows it.
type Sent struct {
	Thread   id.ThreadID
	Sender   id.UserID
	Message  id.MessageID
	Position topic.Position
	Ordinal  int64
	Time     time.Time
}

func (r *Sent) targets() []any {
	return []any{
		(*key)(&r.Thread), (*key)(&r.Sender), (*key)(&r.Message), (*int64)(&r.Position), &r.Ordinal, &r.Time,
	}
}

// Key is what the rule on repeats goes by.
func (r *Sent) Key() thread.Key { return thread.Key{Sender: r.Sender, Message: r.Message} }

// Seen is where and when it was accepted.
func (r *Sent) Seen() thread.Seen {
	return thread.Seen{Position: r.Position, TimeMS: r.Time.UnixMilli(), Ordinal: r.Ordinal}
}

const (
	sqlThreads = `
SELECT thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview FROM threads`

	sqlMembers = `SELECT thread_id, user_id, role, active, spans, base_ordinal, end_ordinal FROM members`

	sqlInvitations = `SELECT thread_id, user_id, inviter_id, position, log_time FROM invitations`

	sqlWatermarks = `
SELECT thread_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal FROM watermarks`

	ofThreads = ` WHERE thread_id = ANY($1::uuid[])`
)

// The window is counted on the thread's clock, as the fold does.
var sqlRecent = `
SELECT t.thread_id, m.sender_id, m.message_id, m.position, m.ordinal, m.log_time
  FROM threads t
 CROSS JOIN LATERAL (
       SELECT position, ordinal, sender_id, message_id, log_time FROM messages
        WHERE thread_id = t.thread_id AND kind = ` + kindMessage + ` AND log_time >= t.last_time - ` + window + `
        ORDER BY log_time DESC LIMIT $2
       ) m
 WHERE t.thread_id = ANY($1::uuid[])`

var sqlNewest = `
SELECT k.thread_id, m.sender_id, m.message_id, m.position, m.ordinal, m.log_time
  FROM unnest($1::uuid[]) AS k (thread_id)
 CROSS JOIN LATERAL (
       SELECT position, ordinal, sender_id, message_id, log_time FROM messages
        WHERE thread_id = k.thread_id AND kind = ` + kindMessage + ` ORDER BY position DESC LIMIT $2
       ) m`

var sqlLatest = `
SELECT k.thread_id, m.log_time
  FROM unnest($1::uuid[]) AS k (thread_id)
 CROSS JOIN LATERAL (
       SELECT log_time FROM messages
        WHERE thread_id = k.thread_id AND kind = ` + kindMessage + ` AND log_time >= '-infinity'
        ORDER BY log_time DESC LIMIT 1
       ) m`

var sqlSent = `
SELECT k.thread_id, k.sender_id, k.message_id, m.position, m.ordinal, m.log_time
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS k (thread_id, sender_id, message_id)
 CROSS JOIN LATERAL (
       SELECT position, ordinal, log_time FROM messages
        WHERE kind = ` + kindMessage + ` AND message_id = k.message_id AND thread_id = k.thread_id
          AND sender_id = k.sender_id AND position < $4 OFFSET 0
       ) m
 ORDER BY m.position`

// Threads asks for threads by id.
func (q *Questions) Threads(ids []id.ThreadID, fn func(*Thread) error) {
	put(q, "threads", sqlThreads+ofThreads, fn, uuids(ids))
}

// Members asks for all members of threads, those of now and former ones.
func (q *Questions) Members(ids []id.ThreadID, fn func(*Member) error) {
	put(q, "members", sqlMembers+ofThreads, fn, uuids(ids))
}

// Invitations asks who is invited into threads now.
func (q *Questions) Invitations(ids []id.ThreadID, fn func(*Invitation) error) {
	put(q, "invitations", sqlInvitations+ofThreads, fn, uuids(ids))
}

// Watermarks asks how far everybody has got in threads. Receipts are a topic of their own, so there may be some of a
// thread that is not there yet, or of somebody who is no member.
func (q *Questions) Watermarks(ids []id.ThreadID, fn func(*Watermark) error) {
	put(q, "watermarks", sqlWatermarks+ofThreads, fn, uuids(ids))
}

// Recent asks for the messages of threads within the window before the thread's clock, in any order: of each thread
// those with the latest log times, most of them at most. Of two with one key, which are both within the window only
// where stamps were ahead, that at the higher position counts.
func (q *Questions) Recent(ids []id.ThreadID, most int, fn func(*Sent) error) {
	put(q, "recent messages", sqlRecent, fn, uuids(ids), most)
}

// Newest asks for the newest few messages of each thread by position, whatever their age.
func (q *Questions) Newest(ids []id.ThreadID, few int, fn func(*Sent) error) {
	put(q, "newest messages", sqlNewest, fn, uuids(ids), few)
}

// Latest asks for the latest log time of the messages that threads have in their tails.
func (q *Questions) Latest(ids []id.ThreadID, fn func(*Latest) error) {
	put(q, "latest log times", sqlLatest, fn, uuids(ids))
}

// MessageKey names a message: its id is unique per thread and sender.
type MessageKey struct {
	Thread id.ThreadID
	thread.Key
}

// Sent asks which messages the tail has at positions before a limit, in the order of positions: of an id that was used
// again after the window, the later one comes last. All keys are of one slot, which the limit is a position of; what
// the slot's next owner may have written already lies behind it.
func (q *Questions) Sent(keys []MessageKey, before topic.Position, fn func(*Sent) error) {
	threads := make([]id.ThreadID, len(keys))
	senders, messages := make([]id.UserID, len(keys)), make([]id.MessageID, len(keys))
	for i, k := range keys {
		threads[i], senders[i], messages[i] = k.Thread, k.Sender, k.Message
	}
	put(q, "sent messages", sqlSent, fn, uuids(threads), uuids(senders), uuids(messages), int64(before))
}
