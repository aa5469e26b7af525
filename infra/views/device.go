package views

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// DeviceWatermark is a row of device_watermarks: how far a device has got in a thread.
type DeviceWatermark struct {
	Thread id.ThreadID
	Device id.DeviceID
	User   id.UserID
	Mark   thread.Watermark
}

func (r *DeviceWatermark) targets() []any {
	return append([]any{(*key)(&r.Thread), (*key)(&r.Device), (*key)(&r.User)}, markTargets(&r.Mark)...)
}

// DeviceKey names a device: its id is only its user's word, and another user may claim it too.
type DeviceKey struct {
	User   id.UserID
	Device id.DeviceID
}

// DeviceThread names a device in a thread.
type DeviceThread struct {
	DeviceKey
	Thread id.ThreadID
}

const (
	sqlDeviceWatermarks = `
SELECT thread_id, device_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal
  FROM device_watermarks`

	sqlCursors = `
SELECT k.nth, w.delivered_position, w.delivered_ordinal
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS k (thread_id, device_id, user_id, nth)
 CROSS JOIN LATERAL (
       SELECT delivered_position, delivered_ordinal FROM device_watermarks
        WHERE thread_id = k.thread_id AND device_id = k.device_id AND user_id = k.user_id OFFSET 0
       ) w`

	sqlDevicesByKey = `
SELECT k.user_id, k.device_id, d.public_key, d.name, d.is_primary, d.revoked, d.since_position, d.since, d.shown_from,
	k.nth
  FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (user_id, device_id, nth)
 CROSS JOIN LATERAL (
       SELECT public_key, name, is_primary, revoked, since_position, since, shown_from FROM devices
        WHERE user_id = k.user_id AND device_id = k.device_id OFFSET 0
       ) d`

	sqlLiveDevices = sqlDevices + ` WHERE user_id = $1 AND NOT revoked ORDER BY since_position`

	sqlReceived = `
SELECT d.user_id, d.device_id, d.name,
       coalesce(w.delivered_position >= $2, false), coalesce(w.read_position >= $2, false)
  FROM members m
  JOIN devices d USING (user_id)
  LEFT JOIN device_watermarks w ON w.thread_id = m.thread_id AND w.device_id = d.device_id AND w.user_id = d.user_id
 WHERE m.thread_id = $1 AND NOT d.revoked AND EXISTS (
       SELECT 1 FROM generate_series(1, cardinality(m.spans), 2) i
        WHERE $2 >= m.spans[i] AND (m.spans[i + 1] = 0 OR $2 <= m.spans[i + 1]))
 ORDER BY d.user_id, d.device_id`
)

// Cursors returns the delivered position of each device in each thread, in the order of the keys, -1 where there is
// none.
func (v *Views) Cursors(ctx context.Context, keys []DeviceThread) ([]topic.Position, error) {
	out := make([]topic.Position, len(keys))
	threads := make([]id.ThreadID, len(keys))
	devices, users := make([]id.DeviceID, len(keys)), make([]id.UserID, len(keys))
	for i, k := range keys {
		threads[i], devices[i], users[i], out[i] = k.Thread, k.Device, k.User, -1
	}
	err := each(ctx, v, "cursors", sqlCursors, func(c *cursor) error {
		// a row that says nothing of delivery is no cursor: the first position is 0
		if c.position != 0 || c.ordinal != 0 {
			out[c.nth-1] = topic.Position(c.position)
		}
		return nil
	}, uuids(threads), uuids(devices), uuids(users))
	return out, err
}

type cursor struct{ nth, position, ordinal int64 }

func (c *cursor) targets() []any { return []any{&c.nth, &c.position, &c.ordinal} }

// Devices returns devices, revoked ones too, in the order of the keys, nil where there is none.
func (v *Views) Devices(ctx context.Context, keys []DeviceKey) ([]*Device, error) {
	out := make([]*Device, len(keys))
	users, devices := make([]id.UserID, len(keys)), make([]id.DeviceID, len(keys))
	for i, k := range keys {
		users[i], devices[i] = k.User, k.Device
	}
	err := each(ctx, v, "devices", sqlDevicesByKey, func(d *nthDevice) error {
		found := d.Device
		out[d.nth-1] = &found
		return nil
	}, uuids(users), uuids(devices))
	return out, err
}

type nthDevice struct {
	Device
	nth int64
}

func (d *nthDevice) targets() []any { return append(d.Device.targets(), &d.nth) }

// LiveDevices returns the devices of a user that may connect, in the order in which they came.
func (v *Views) LiveDevices(ctx context.Context, u id.UserID) ([]Device, error) {
	return all[Device](ctx, v, "devices of a user", sqlLiveDevices, uuid(u))
}

// Received is how far a device has got with respect to one message.
type Received struct {
	User      id.UserID
	Device    id.DeviceID
	Name      string
	Delivered bool
	Read      bool
}

func (r *Received) targets() []any {
	return []any{(*key)(&r.User), (*key)(&r.Device), &r.Name, &r.Delivered, &r.Read}
}

// Received returns the devices of everybody who may see what is at a position of a thread, by user and device; revoked
// ones are left out.
func (v *Views) Received(ctx context.Context, t id.ThreadID, at topic.Position) ([]Received, error) {
	return all[Received](ctx, v, "devices of a thread", sqlReceived, uuid(t), int64(at))
}
