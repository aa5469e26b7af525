package views

import (
	"context"
	"strconv"
	"time"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// UserInvitation is a row of user_invitations: an open invitation of a user, as he was told of it. Whether he is
// invited is the thread's to say.
type UserInvitation struct {
	User   id.UserID
	Thread id.ThreadID
	By     id.UserID
	Title  string         // the thread's at that time
	At     topic.Position // in helio.users
	Time   time.Time
}

func (r *UserInvitation) targets() []any {
	return []any{(*key)(&r.User), (*key)(&r.Thread), (*key)(&r.By), &r.Title, (*int64)(&r.At), &r.Time}
}

// Invitation is the row as the fold has it.
func (r *UserInvitation) Invitation() user.Invitation {
	return user.Invitation{By: r.By, Title: r.Title, At: r.At, TimeMS: r.Time.UnixMilli()}
}

// Settings is what a user has set.
type Settings struct {
	// MayAdd is who may put him into groups: what he has said, or what is so without his word.
	MayAdd eventv1.MayAdd
	// Blocked are those whom he has blocked, by id.
	Blocked []id.UserID
}

const (
	sqlUserInvitations = `SELECT user_id, thread_id, inviter_id, title, position, log_time FROM user_invitations`

	// Of an invitation by somebody whom the user has blocked nobody reads while that is so.
	heard = ` (SELECT count(*) FROM blocks b WHERE b.user_id = i.user_id AND b.blocked_id = i.inviter_id) = 0`

	sqlInvitationsOf = sqlUserInvitations + ` i WHERE user_id = $1 AND` + heard + ` ORDER BY position DESC`

	sqlInvitedTo = `
SELECT u.user_id FROM unnest($1::uuid[]) WITH ORDINALITY u (user_id, n)
 WHERE (SELECT count(*) FROM user_invitations i
         WHERE i.user_id = u.user_id AND i.thread_id = $2::uuid AND` + heard + `) > 0 ORDER BY u.n`

	sqlMayAdd = `SELECT coalesce(may_add, 0) FROM users WHERE user_id = $1`

	sqlBlockedOf = `SELECT blocked_id FROM blocks WHERE user_id = $1 ORDER BY blocked_id`

	sqlBlockedButOne = `
SELECT count(*)::int FROM (SELECT FROM blocks WHERE user_id = $1 AND blocked_id <> $2 LIMIT $3::bigint) x`

	sqlBlockedBy = `
SELECT u.user_id FROM unnest($1::uuid[]) WITH ORDINALITY u (user_id, n)
 WHERE (SELECT count(*) FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $2::uuid) > 0 ORDER BY u.n`
)

// What a user has set concerns others alone. He may also have said that it is his contacts: they are not asked, so
// nobody is. The subqueries give one value each, so that they are looked up user by user: of an EXISTS Postgres may
// make a table of all whom it is true of.
var sqlUnaddable = `
SELECT u.user_id FROM unnest($1::uuid[]) WITH ORDINALITY u (user_id, n)
 WHERE (SELECT count(*) FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $2::uuid) > 0
    OR u.user_id <> $2 AND (SELECT s.may_add FROM users s WHERE s.user_id = u.user_id) > ` + mayAddEverybody + `
    OR (SELECT count(*) FROM (
          SELECT FROM user_threads t WHERE t.user_id = u.user_id AND NOT t.has_left LIMIT $3::bigint) x) >= $3
 ORDER BY u.n`

// mayAddEverybody is how the tables say that everybody may add a user; 0 says so too.
var mayAddEverybody = strconv.Itoa(int(eventv1.MayAdd_MAY_ADD_EVERYBODY))

// UserInvitations asks for the open invitations of users, as the fold has them.
func (q *Questions) UserInvitations(ids []id.UserID, fn func(*UserInvitation) error) {
	put(q, "invitations of users", sqlUserInvitations+ofUsers, fn, uuids(ids))
}

// Invitations returns the open invitations of a user by those whom he has not blocked, the latest first: at most
// user.MaxInvitations.
func (v *Views) Invitations(ctx context.Context, u id.UserID) ([]UserInvitation, error) {
	return all[UserInvitation](ctx, v, "invitations of a user", sqlInvitationsOf, uuid(u))
}

// InvitedTo returns those of some users, in their order, among whose Invitations a thread is.
func (v *Views) InvitedTo(ctx context.Context, t id.ThreadID, of []id.UserID) ([]id.UserID, error) {
	return v.someones(ctx, "users who are invited", sqlInvitedTo, uuids(of), uuid(t))
}

// Settings returns what a user has set, as of one moment.
func (v *Views) Settings(ctx context.Context, u id.UserID) (Settings, error) {
	s := Settings{MayAdd: eventv1.MayAdd_MAY_ADD_EVERYBODY}
	err := v.Moment(ctx, func(q *Questions) {
		put(q, "who may add a user", sqlMayAdd, func(r *number) error {
			if *r != 0 {
				s.MayAdd = eventv1.MayAdd(*r)
			}
			return nil
		}, uuid(u))
		put(q, "whom a user has blocked", sqlBlockedOf, func(r *someone) error {
			s.Blocked = append(s.Blocked, r.id)
			return nil
		}, uuid(u))
	})
	return s, err
}

// Unaddable returns those of some users, in their order, whom a user may not put into a thread: they have blocked him,
// have not said that everybody may add them, or have at least most threads in their lists. For himself only the last
// counts.
func (v *Views) Unaddable(ctx context.Context, by id.UserID, of []id.UserID, most int) ([]id.UserID, error) {
	return v.someones(ctx, "users who cannot be added", sqlUnaddable, uuids(of), uuid(by), most)
}

// BlockedBy returns those of some users, in their order, who have blocked a user.
func (v *Views) BlockedBy(ctx context.Context, by id.UserID, of []id.UserID) ([]id.UserID, error) {
	return v.someones(ctx, "users who have blocked a user", sqlBlockedBy, uuids(of), uuid(by))
}

// BlockedButOne returns how many users a user has blocked beside one, up to most.
func (v *Views) BlockedButOne(ctx context.Context, by, but id.UserID, most int) (int, error) {
	n, _, err := one[number](ctx, v, "how many a user has blocked", sqlBlockedButOne, uuid(by), uuid(but), most)
	return int(n), err
}

func (v *Views) someones(ctx context.Context, what, sql string, args ...any) ([]id.UserID, error) {
	found, err := all[someone](ctx, v, what, sql, args...)
	out := make([]id.UserID, len(found))
	for i := range found {
		out[i] = found[i].id
	}
	return out, err
}

// someone is a user's id alone.
type someone struct{ id id.UserID }

func (r *someone) targets() []any { return []any{(*key)(&r.id)} }

// number is a number alone.
type number int32

func (r *number) targets() []any { return []any{(*int32)(r)} }
