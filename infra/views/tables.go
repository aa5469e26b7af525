package views

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Message is a row of messages: an accepted event of a thread's tail.
type Message struct {
	Thread   id.ThreadID
	Position topic.Position
	Ordinal  int64 // of the message; of another event that of the last message before it
	Kind     int16 // the number of the body's field in event.v1.Event
	Sender   id.UserID
	Message  id.MessageID // all zero: the event is about none
	Time     time.Time
	Slot     topic.Slot
	Event    []byte // as it stands in the log
}

func (r *Message) targets() []any {
	return []any{
		(*key)(&r.Thread), (*int64)(&r.Position), &r.Ordinal, &r.Kind, (*key)(&r.Sender), (*nullable)(&r.Message),
		&r.Time, (*int32)(&r.Slot), &r.Event,
	}
}

const sqlMessages = `
SELECT thread_id, position, ordinal, kind, sender_id, message_id, log_time, slot, event FROM messages`

// Tables takes the rows of whole tables, one table after the other in the order of the fields. What is nil is not
// asked for.
type Tables struct {
	Freshness        func(*Freshness) error
	Quarantined      func(*Quarantined) error
	Threads          func(*Thread) error
	Members          func(*Member) error
	Invitations      func(*Invitation) error
	Messages         func(*Message) error
	Rejected         func(*Rejected) error
	Watermarks       func(*Watermark) error
	DeviceWatermarks func(*DeviceWatermark) error
	Users            func(*User) error
	Devices          func(*Device) error
	Contacts         func(*Contact) error
	Blocks           func(*Block) error
	UserThreads      func(*UserThread) error
	UserInvitations  func(*UserInvitation) error
}

// Tables reads whole tables as of one moment; the rows of a table come in any order. It is for who compares the views
// with something: nothing else needs to read so much.
func (v *Views) Tables(ctx context.Context, t Tables) error {
	return v.Moment(ctx, func(q *Questions) {
		whole(q, "positions", sqlFreshness, t.Freshness)
		whole(q, "quarantine", sqlQuarantine, t.Quarantined)
		whole(q, "threads", sqlThreads, t.Threads)
		whole(q, "members", sqlMembers, t.Members)
		whole(q, "invitations", sqlInvitations, t.Invitations)
		whole(q, "messages", sqlMessages, t.Messages)
		whole(q, "rejected messages", sqlRejected, t.Rejected)
		whole(q, "watermarks", sqlWatermarks, t.Watermarks)
		whole(q, "device watermarks", sqlDeviceWatermarks, t.DeviceWatermarks)
		whole(q, "users", sqlUsers, t.Users)
		whole(q, "devices", sqlDevices, t.Devices)
		whole(q, "contacts", sqlContacts, t.Contacts)
		whole(q, "blocks", sqlBlocks, t.Blocks)
		whole(q, "threads of users", sqlUserThreads, t.UserThreads)
		whole(q, "invitations of users", sqlUserInvitations, t.UserInvitations)
	})
}

func whole[T any, P row[T]](q *Questions, what, sql string, fn func(*T) error) {
	if fn != nil {
		put[T, P](q, what, sql, fn)
	}
}
