package threads_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/views"
	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// account is the log of one user.
type account struct {
	t     *testing.T
	user  id.UserID
	steps []eventtest.Step
}

func newAccount(t *testing.T) *account {
	a := &account{t: t, user: id.User([]byte("test key"), "+4915112345671", 1)}
	d := id.NewDevice()
	a.by(a.user, eventv1.Event_builder{DeviceId: d[:], UserRegistered: eventv1.UserRegistered_builder{
		PhoneHash: make([]byte, id.Size), Generation: 1, DeviceId: d[:], PublicKey: make([]byte, 32),
	}.Build()})
	return a
}

// by writes an event of somebody.
func (a *account) by(u id.UserID, b eventv1.Event_builder) {
	a.t.Helper()
	b.Rules, b.MinReader, b.UserId = 3, 3, u[:]
	e := b.Build()
	v, err := proto.Marshal(e)
	if err != nil {
		a.t.Fatal(err)
	}
	n := len(a.steps)
	a.steps = append(a.steps, eventtest.Step{
		Topic: topic.Users, Slot: topic.SlotOf(topic.Subject(a.user), 3), Position: topic.Position(n),
		TimeMS: 1_700_000_000_000 + int64(n), Subject: topic.Subject(a.user), Key: a.user[:], Value: v,
		Event: event.Of(e),
	})
}

func (a *account) invite(by id.UserID, th id.ThreadID, title string) {
	a.by(by, eventv1.Event_builder{
		ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: th[:], Title: title}.Build(),
	})
}

func (a *account) uninvite(th id.ThreadID) {
	a.by(a.user, eventv1.Event_builder{
		ThreadInvitationEnded: eventv1.ThreadInvitationEnded_builder{ThreadId: th[:]}.Build(),
	})
}

func (a *account) join(th id.ThreadID) {
	a.by(a.user, eventv1.Event_builder{ThreadJoined: eventv1.ThreadJoined_builder{ThreadId: th[:]}.Build()})
}

func (a *account) mayAdd(m eventv1.MayAdd) {
	a.by(a.user, eventv1.Event_builder{MayAddChanged: eventv1.MayAddChanged_builder{MayAdd: m}.Build()})
}

// rows returns the threads to which there are invitations, with their titles, and who may add the user.
func (a *account) rows(pool *pgxpool.Pool) (map[id.ThreadID]string, eventv1.MayAdd) {
	a.t.Helper()
	v := views.New(pool)
	list, err := v.Invitations(a.t.Context(), a.user)
	if err != nil {
		a.t.Fatal(err)
	}
	out := map[id.ThreadID]string{}
	for _, i := range list {
		out[i.Thread] = i.Title
	}
	s, err := v.Settings(a.t.Context(), a.user)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, s.MayAdd
}

func TestInvitationsAreInTheirTable(t *testing.T) {
	pool := newViews(t)
	one, two, three := id.NewGroup(), id.NewGroup(), id.NewGroup()
	ann, bob := id.User([]byte("test key"), "+4915112345672", 1), id.User([]byte("test key"), "+4915112345673", 1)
	const everybody, nobody = eventv1.MayAdd_MAY_ADD_EVERYBODY, eventv1.MayAdd_MAY_ADD_NOBODY
	stages := []struct {
		name   string
		write  func(a *account)
		want   map[id.ThreadID]string
		mayAdd eventv1.MayAdd
	}{
		{"registered", func(*account) {}, map[id.ThreadID]string{}, everybody},
		{"invited", func(a *account) {
			a.invite(ann, one, "one")
			a.invite(ann, two, "two")
			a.invite(ann, three, "three")
		}, map[id.ThreadID]string{one: "one", two: "two", three: "three"}, everybody},
		{"again, by another", func(a *account) { a.invite(bob, two, "renamed") },
			map[id.ThreadID]string{one: "one", two: "renamed", three: "three"}, everybody},
		{"declined", func(a *account) { a.uninvite(one) },
			map[id.ThreadID]string{two: "renamed", three: "three"}, everybody},
		{"joined", func(a *account) { a.join(two) }, map[id.ThreadID]string{three: "three"}, everybody},
		{"into what is in his list", func(a *account) { a.invite(ann, two, "two") },
			map[id.ThreadID]string{two: "two", three: "three"}, everybody},
		{"which ends", func(a *account) { a.uninvite(two) }, map[id.ThreadID]string{three: "three"}, everybody},
		{"come and gone", func(a *account) { a.invite(ann, one, "one"); a.uninvite(one) },
			map[id.ThreadID]string{three: "three"}, everybody},
		{"gone and come", func(a *account) { a.uninvite(three); a.invite(bob, three, "anew") },
			map[id.ThreadID]string{three: "anew"}, everybody},
		{"nobody may add him", func(a *account) { a.mayAdd(nobody) }, map[id.ThreadID]string{three: "anew"}, nobody},
		{"everybody", func(a *account) { a.mayAdd(everybody) }, map[id.ThreadID]string{three: "anew"}, everybody},
	}
	for _, cfg := range []threads.Config{
		{CacheBytes: 1, CopyRows: 1}, {CacheBytes: 1, CopyRows: 2000}, {CacheBytes: 1 << 20, CopyRows: 2000},
	} {
		empty(t, pool)
		cfg.Consumer = config(3).Consumer
		a, sink := newAccount(t), threads.NewSink(cfg, pool, nil, nil)
		for _, s := range stages {
			s.write(a)
			l := sinktest.NewLog(a.steps)
			if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
				t.Fatal(err)
			}
			got, mayAdd := a.rows(pool)
			if d := cmp.Diff(got, s.want); d != "" || mayAdd != s.mayAdd {
				t.Errorf("%s: who may add him: got %v, want %v; invitations (-got +want):\n%s",
					s.name, mayAdd, s.mayAdd, d)
			}
			mustEqual(t, pool, reference(t, l), 0)
		}
	}
}

// A comparison sees every column that is not as the log gives it, and rows that are missing or too many.
func TestChangedInvitationsAreFound(t *testing.T) {
	pool := newViews(t)
	a := newAccount(t)
	one, two := id.NewGroup(), id.NewGroup()
	ann := id.User([]byte("test key"), "+4915112345672", 1)
	a.invite(ann, one, "one")
	a.invite(ann, two, "two")
	a.mayAdd(eventv1.MayAdd_MAY_ADD_NOBODY)
	l := sinktest.NewLog(a.steps)
	ref := reference(t, l)
	for change, want := range map[string]string{
		"UPDATE users SET may_add = 1":                      "users may_add",
		"UPDATE users SET may_add = NULL":                   "users may_add",
		"UPDATE user_invitations SET inviter_id = user_id":  "user_invitations inviter_id",
		"UPDATE user_invitations SET title = title || '!'":  "user_invitations title",
		"UPDATE user_invitations SET position = position+1": "user_invitations position",
		"UPDATE user_invitations SET log_time = now()":      "user_invitations log_time",
		"DELETE FROM user_invitations":                      "user_invitations",
		"INSERT INTO user_invitations SELECT user_id, user_id, inviter_id, '', 9, log_time FROM user_invitations " +
			"LIMIT 1": "user_invitations",
	} {
		empty(t, pool)
		sink := threads.NewSink(config(3), pool, nil, nil)
		if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, pool, ref, 0)
		if _, err := pool.Exec(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		diffs, err := verify.CompareThreads(t.Context(), pool, ref, 0)
		if err != nil || len(diffs) == 0 {
			t.Errorf("%s: %v, %v", change, err, diffs)
			continue
		}
		for _, d := range diffs {
			got := d.Table
			for _, c := range d.Columns {
				got += " " + c.Name
			}
			if got != want {
				t.Errorf("%s: got %q, want %q", change, got, want)
			}
		}
	}
}

// As many invitations as a user may have, with titles as long as they may be, are written, loaded and read.
func TestMostInvitations(t *testing.T) {
	pool := newViews(t)
	a := newAccount(t)
	title := strings.Repeat("é", user.RulesOf(event.CurrentRules).MaxTitle/2)
	ann := id.User([]byte("test key"), "+4915112345672", 1)
	for range user.MaxInvitations + 1 { // one is too many
		a.invite(ann, id.NewGroup(), title)
	}
	cfg := config(3)
	cfg.CacheBytes = 1
	l := sinktest.NewLog(a.steps)
	feed := sinktest.Options{Cut: func() int { return 300 }}
	if err := sinktest.Feed(t.Context(), l, threads.NewSink(cfg, pool, nil, nil), feed); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, pool, reference(t, l), 0)
	if got, _ := a.rows(pool); len(got) != user.MaxInvitations {
		t.Errorf("got %d invitations, want %d", len(got), user.MaxInvitations)
	}
}

// A projector of the version before, which knows nothing of may_add, goes on beside a newer role that has migrated: it
// copies rows into a table that is made like the users'.
func TestOlderProjectorsCopyUsers(t *testing.T) {
	pool := newViews(t)
	if _, err := pool.Exec(t.Context(), `
		WITH row AS (SELECT gen_random_uuid() AS id)
		INSERT INTO users (user_id, phone_hash, generation, name, registered) SELECT id, id, 1, '', now() FROM row`,
	); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{
		"CREATE TEMP TABLE stage_users (LIKE users)",
		"INSERT INTO stage_users (user_id, phone_hash, generation, name, registered) " +
			"SELECT gen_random_uuid(), phone_hash, 1, 'older', now() FROM users",
		"INSERT INTO users (user_id, phone_hash, generation, name, registered) " +
			"SELECT user_id, phone_hash, generation, name, registered FROM stage_users",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var unset int
	err = conn.QueryRow(t.Context(), "SELECT count(*) FROM users WHERE may_add = 0").Scan(&unset)
	if err != nil || unset != 2 {
		t.Errorf("got %d users who have not said who may add them, %v, want 2", unset, err)
	}
}
