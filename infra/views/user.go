package views

import (
	"context"
	"time"

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
}

func (r *User) targets() []any {
	return []any{(*key)(&r.ID), &r.PhoneHash, &r.Generation, &r.Name, &r.Registered}
}

// Fill writes the row into a state of the fold.
func (r *User) Fill(s *user.State) {
	s.PhoneHash, s.Generation, s.Name, s.RegisteredMS = r.PhoneHash, r.Generation, r.Name, r.Registered.UnixMilli()
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
	sqlUsers = `SELECT user_id, phone_hash, generation, name, registered FROM users`

	sqlDevices = `SELECT user_id, device_id, public_key, name, is_primary, revoked, since_position, since, shown_from
		FROM devices`

	sqlUserThreads = `SELECT user_id, thread_id, joined_position, has_left FROM user_threads`

	sqlContacts = `SELECT user_id, phone_hash, name FROM contacts`

	sqlBlocks = `SELECT user_id, blocked_id FROM blocks`

	ofUsers = ` WHERE user_id = ANY($1::uuid[])`

	sqlUnaddable = `
SELECT u.user_id FROM unnest($1::uuid[]) WITH ORDINALITY u (user_id, n)
 WHERE EXISTS (SELECT FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $2::uuid)
    OR (SELECT count(*) FROM (
          SELECT FROM user_threads t WHERE t.user_id = u.user_id AND NOT t.has_left LIMIT $3::bigint) x) >= $3
 ORDER BY u.n`

	sqlUsersByPhone = `
SELECT DISTINCT ON (phone_hash) user_id, phone_hash, generation, name, registered FROM users
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

// Unaddable returns those of some users, in their order, who have blocked a user or have at least most threads in their
// lists.
func (v *Views) Unaddable(ctx context.Context, by id.UserID, of []id.UserID, most int) ([]id.UserID, error) {
	found, err := all[someone](ctx, v, "users who cannot be added", sqlUnaddable, uuids(of), uuid(by), most)
	out := make([]id.UserID, len(found))
	for i := range found {
		out[i] = found[i].id
	}
	return out, err
}

// someone is a user's id alone.
type someone struct{ id id.UserID }

func (r *someone) targets() []any { return []any{(*key)(&r.id)} }

// UsersByPhone returns, of each phone number's users, the one of the latest generation.
func (v *Views) UsersByPhone(ctx context.Context, hashes [][id.Size]byte) ([]User, error) {
	return all[User](ctx, v, "users by phone number", sqlUsersByPhone, uuids(hashes))
}
