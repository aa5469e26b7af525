package views

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Rejected is a row of rejected: a message that the log has and the fold did not accept.
type Rejected struct {
	User     id.UserID
	Device   id.DeviceID
	Thread   id.ThreadID
	Position topic.Position
	Message  id.MessageID
	Reason   thread.Reason
	Time     time.Time
	Slot     topic.Slot
}

func (r *Rejected) targets() []any {
	return []any{
		(*key)(&r.User), (*key)(&r.Device), (*key)(&r.Thread), (*int64)(&r.Position), (*key)(&r.Message),
		(*string)(&r.Reason), &r.Time, (*int32)(&r.Slot),
	}
}

type nthRejected struct {
	nth int64
	Rejected
}

func (r *nthRejected) targets() []any { return append([]any{&r.nth}, r.Rejected.targets()...) }

// mostRejected is how many of a device's a question returns, the newest.
const mostRejected = 1000

const (
	sqlRejected = `
SELECT user_id, device_id, thread_id, position, message_id, reason, log_time, slot FROM rejected`

	sqlRejectedOf = `
SELECT k.nth, r.*
  FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (user_id, device_id, nth)
 CROSS JOIN LATERAL (` + sqlRejected + `
        WHERE user_id = k.user_id AND device_id = k.device_id ORDER BY log_time DESC, thread_id, position DESC LIMIT $3
       ) r
 ORDER BY k.nth, r.thread_id, r.position`
)

// RejectedOf asks for rejected messages that devices have sent, by thread and position; fn is told of which device one
// is, by its index.
func (v *Views) RejectedOf(ctx context.Context, keys []DeviceKey, fn func(nth int, r *Rejected) error) error {
	users, devices := make([]id.UserID, len(keys)), make([]id.DeviceID, len(keys))
	for i, k := range keys {
		users[i], devices[i] = k.User, k.Device
	}
	return each(ctx, v, "rejected messages", sqlRejectedOf, func(r *nthRejected) error {
		return fn(int(r.nth-1), &r.Rejected)
	}, uuids(users), uuids(devices), mostRejected)
}
