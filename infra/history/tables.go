package history

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Message is a row of messages, as it was sent.
type Message struct {
	Thread   id.ThreadID
	Position topic.Position
	Ordinal  int64
	Slot     topic.Slot
	Sender   id.UserID
	Device   id.DeviceID
	Message  id.MessageID
	ReplyTo  id.MessageID // all zero: none
	// ReplyAuthor is whose message it answers; all zero: none, or the event did not say.
	ReplyAuthor id.UserID
	Time        time.Time
	Counted     time.Time // the thread's clock as the message has left it
	ClientTime  time.Time
	KeyID       uint64 // 0: the body is plain text
	Body        []byte
	Event       []byte // as it stands in the log
}

func (r *Message) scan(into func(...any) error) error {
	return into(
		(*key)(&r.Thread), (*int64)(&r.Position), &r.Ordinal, (*int32)(&r.Slot), (*key)(&r.Sender), (*key)(&r.Device),
		(*key)(&r.Message), (*key)(&r.ReplyTo), (*key)(&r.ReplyAuthor),
		&r.Time, &r.Counted, &r.ClientTime, &r.KeyID, &r.Body, &r.Event,
	)
}

// Other is a row of thread_events: an accepted event that is no message.
type Other struct {
	Thread   id.ThreadID
	Position topic.Position
	Ordinal  int64
	Slot     topic.Slot
	Kind     string // the name of the body's field in event.v1.Event
	Actor    id.UserID
	Time     time.Time
	Title    string // of a creation and a renaming
	Event    []byte // as it stands in the log
}

func (r *Other) scan(into func(...any) error) error {
	return into(
		(*key)(&r.Thread), (*int64)(&r.Position), &r.Ordinal, (*int32)(&r.Slot), &r.Kind, (*key)(&r.Actor), &r.Time,
		&r.Title, &r.Event,
	)
}

// MessageChange is a row of message_changes: an edit, a deletion or a reaction.
type MessageChange struct {
	Thread   id.ThreadID
	Author   id.UserID
	Message  id.MessageID
	Position topic.Position
	Slot     topic.Slot
	Change   string // edited, deleted, reaction
	Actor    id.UserID
	Time     time.Time
	KeyID    uint64
	Body     []byte // of an edit
	Emoji    string // of a reaction; empty: taken away
}

func (r *MessageChange) scan(into func(...any) error) error {
	return into(
		(*key)(&r.Thread), (*key)(&r.Author), (*key)(&r.Message), (*int64)(&r.Position), (*int32)(&r.Slot), &r.Change,
		(*key)(&r.Actor), &r.Time, &r.KeyID, &r.Body, &r.Emoji,
	)
}

// Membership is a row of memberships: what an event made of a member, and when.
type Membership struct {
	Change
	Slot topic.Slot
	Time time.Time
}

func (r *Membership) scan(into func(...any) error) error {
	return into(append(r.columns(), (*int32)(&r.Slot), &r.Time)...)
}

// Invitation is a row of invitations: what an event made of an invitation, and when.
type Invitation struct {
	Thread   id.ThreadID
	User     id.UserID
	Position topic.Position
	Slot     topic.Slot
	Open     bool
	Kind     string    // of the event: the name of the body's field in event.v1.Event
	Actor    id.UserID // who did it: of an open one who invited
	Time     time.Time
}

func (r *Invitation) scan(into func(...any) error) error {
	return into(
		(*key)(&r.Thread), (*key)(&r.User), (*int64)(&r.Position), (*int32)(&r.Slot), &r.Open, &r.Kind,
		(*key)(&r.Actor), &r.Time,
	)
}

// Receipt is a row of receipts: a device's watermark as it reported it.
type Receipt struct {
	Thread   id.ThreadID
	User     id.UserID
	Device   id.DeviceID
	Position topic.Position // in helio.receipts
	Slot     topic.Slot
	Mark     thread.Watermark
	Time     time.Time
}

func (r *Receipt) scan(into func(...any) error) error {
	return into(
		(*key)(&r.Thread), (*key)(&r.User), (*key)(&r.Device), (*int64)(&r.Position), (*int32)(&r.Slot),
		(*int64)(&r.Mark.DeliveredPosition), &r.Mark.DeliveredOrdinal, (*int64)(&r.Mark.ReadPosition),
		&r.Mark.ReadOrdinal, &r.Time,
	)
}

// Tables takes the rows of whole tables, one table after the other in the order of the fields. What is nil is not
// asked for.
type Tables struct {
	// Raw shows rows as often as they are there, before ReplacingMergeTree has made one of them; but of quarantine what
	// counts alone.
	Raw bool

	Freshness      func(*Freshness) error
	Quarantined    func(*Quarantined) error
	Messages       func(*Message) error
	Others         func(*Other) error
	MessageChanges func(*MessageChange) error
	Memberships    func(*Membership) error
	Invitations    func(*Invitation) error
	Receipts       func(*Receipt) error
}

const (
	sqlMessages = `
SELECT thread_id, position, ordinal, slot, sender_id, sender_device, message_id, reply_to, reply_author,
       log_time, counted_time, client_time, key_id, body, event
  FROM messages`

	sqlOthers = `SELECT thread_id, position, ordinal, slot, kind, actor_id, log_time, title, event FROM thread_events`

	sqlMessageChanges = `
SELECT thread_id, author_id, message_id, position, slot, change, actor_id, log_time, key_id, body, emoji
  FROM message_changes`

	sqlMemberships = `
SELECT thread_id, user_id, position, kind, active, role, ordinal, slot, log_time FROM memberships`

	sqlInvitations = `SELECT thread_id, user_id, position, slot, open, kind, actor_id, log_time FROM invitations`

	sqlReceipts = `
SELECT thread_id, user_id, device_id, position, slot, delivered_position, delivered_ordinal, read_position,
       read_ordinal, log_time
  FROM receipts`
)

// Tables reads whole tables, each as of a moment of its own; the rows of a table come in any order. It is for who
// compares the history with something: nothing else needs to read so much.
func (h *History) Tables(ctx context.Context, t Tables) error {
	final := " FINAL"
	if t.Raw {
		final = ""
	}
	for _, read := range []func() error{
		func() error { return whole(ctx, h, "positions", sqlFreshness, t.Freshness) },
		func() error { return whole(ctx, h, "quarantine", sqlQuarantine, t.Quarantined) },
		func() error { return whole(ctx, h, "messages", sqlMessages+final, t.Messages) },
		func() error { return whole(ctx, h, "other events", sqlOthers+final, t.Others) },
		func() error { return whole(ctx, h, "changes of messages", sqlMessageChanges+final, t.MessageChanges) },
		func() error { return whole(ctx, h, "memberships", sqlMemberships+final, t.Memberships) },
		func() error { return whole(ctx, h, "invitations", sqlInvitations+final, t.Invitations) },
		func() error { return whole(ctx, h, "receipts", sqlReceipts+final, t.Receipts) },
	} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func whole[T any, P row[T]](ctx context.Context, h *History, what, query string, fn func(*T) error) error {
	if fn == nil {
		return nil
	}
	return each[T, P](ctx, h, what, query, fn)
}
