package views

import (
	"context"
	"time"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// User is a row of users.
type User struct {
	ID         id.UserID
	PhoneHash  [id.Size]byte
	Generation uint32
	Name       string
	Registered time.Time
	MayAdd     eventv1.MayAdd // 0: he has not set it
}

func (r *User) targets() []any {
	return []any{(*key)(&r.ID), &r.PhoneHash, &r.Generation, &r.Name, &r.Registered, (*int32)(&r.MayAdd)}
}

// Fill writes the row into a state of the fold.
func (r *User) Fill(s *user.State) {
	s.PhoneHash, s.Generation, s.Name, s.RegisteredMS = r.PhoneHash, r.Generation, r.Name, r.Registered.UnixMilli()
	s.MayAdd = r.MayAdd
}

// Device is a row of devices.
type Device struct {
	User    id.UserID
	ID      id.DeviceID
	Key     [32]byte // Ed25519
	Name    string
	Primary bool
	Revoked bool
	Since   topic.Position // in helio.users
	Time    time.Time      // of Since: history before it is not shown to this device, unless ShownFrom is set
	// slot, position, slot, position …; nil: Time counts
	ShownFrom []int64
}

func (r *Device) targets() []any {
	return []any{
		(*key)(&r.User), (*key)(&r.ID), (*publicKey)(&r.Key), &r.Name, &r.Primary, &r.Revoked, (*int64)(&r.Since),
		&r.Time, &r.ShownFrom,
	}
}

// Device is the row as the fold has it.
func (r *Device) Device() *user.Device {
	d := &user.Device{
		Key: r.Key, Name: r.Name, Primary: r.Primary, Revoked: r.Revoked, Since: r.Since, SinceMS: r.Time.UnixMilli(),
	}
	if r.ShownFrom != nil {
		d.ShownFrom = make(map[topic.Slot]topic.Position, len(r.ShownFrom)/2)
		for i := 0; i+1 < len(r.ShownFrom); i += 2 {
			d.ShownFrom[topic.Slot(r.ShownFrom[i])] = topic.Position(r.ShownFrom[i+1])
		}
	}
	return d
}

// UserThread is a row of user_threads: a thread in a user's list. Whether he is a member of it says Member.
type UserThread struct {
	User   id.UserID
	Thread id.ThreadID
	Joined user.Joined // its position is one in helio.users
}

func (r *UserThread) targets() []any {
	return []any{(*key)(&r.User), (*key)(&r.Thread), (*int64)(&r.Joined.At), &r.Joined.Left}
}

// Contact is a row of contacts.
type Contact struct {
	User      id.UserID
	PhoneHash [id.Size]byte
	Name      string
}

func (r *Contact) targets() []any { return []any{(*key)(&r.User), &r.PhoneHash, &r.Name} }

// Block is a row of blocks.
type Block struct {
	User, Blocked id.UserID
}

func (r *Block) targets() []any { return []any{(*key)(&r.User), (*key)(&r.Blocked)} }

const (
	userColumns = `user_id, phone_hash, generation, name, registered, coalesce(may_add, 0)`

	sqlUsers = `SELECT ` + userColumns + ` FROM users`

	sqlDevices = `SELECT user_id, device_id, public_key, name, is_primary, revoked, since_position, since, shown_from
		FROM devices`

	sqlUserThreads = `SELECT user_id, thread_id, joined_position, has_left FROM user_threads`

	sqlContacts = `SELECT user_id, phone_hash, name FROM contacts`

	sqlBlocks = `SELECT user_id, blocked_id FROM blocks`

	ofUsers = ` WHERE user_id = ANY($1::uuid[])`

	sqlUsersByPhone = `
SELECT DISTINCT ON (phone_hash) ` + userColumns + ` FROM users
 WHERE phone_hash = ANY($1::uuid[]) ORDER BY phone_hash, generation DESC`
)

// Users asks for users by id.
func (q *Questions) Users(ids []id.UserID, fn func(*User) error) {
	put(q, "users", sqlUsers+ofUsers, fn, uuids(ids))
}

// Devices asks for all devices of users, revoked ones too.
func (q *Questions) Devices(ids []id.UserID, fn func(*Device) error) {
	put(q, "devices", sqlDevices+ofUsers, fn, uuids(ids))
}

// UserThreads asks for the threads in users' lists, those that they left too.
func (q *Questions) UserThreads(ids []id.UserID, fn func(*UserThread) error) {
	put(q, "threads of users", sqlUserThreads+ofUsers, fn, uuids(ids))
}

// Contacts asks for the contacts of users.
func (q *Questions) Contacts(ids []id.UserID, fn func(*Contact) error) {
	put(q, "contacts", sqlContacts+ofUsers, fn, uuids(ids))
}

// Blocks asks whom users have blocked.
func (q *Questions) Blocks(ids []id.UserID, fn func(*Block) error) {
	put(q, "blocks", sqlBlocks+ofUsers, fn, uuids(ids))
}

// Users returns users by id; one that is not registered is not in the answer.
func (v *Views) Users(ctx context.Context, ids []id.UserID) ([]User, error) {
	return all[User](ctx, v, "users", sqlUsers+ofUsers, uuids(ids))
}

// ThreadsOf returns the threads in a user's list, those that he left too.
func (v *Views) ThreadsOf(ctx context.Context, u id.UserID) ([]UserThread, error) {
	return all[UserThread](ctx, v, "threads of a user", sqlUserThreads+ofUsers, uuids([]id.UserID{u}))
}

// UsersByPhone returns, of each phone number's users, the one of the latest generation.
func (v *Views) UsersByPhone(ctx context.Context, hashes [][id.Size]byte) ([]User, error) {
	return all[User](ctx, v, "users by phone number", sqlUsersByPhone, uuids(hashes))
}
