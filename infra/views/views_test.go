package views_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	schemas "heliograph/schemas/postgres"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var (
	epoch = time.UnixMilli(1_750_000_000_000).UTC()
	// at is a log time: so many seconds after the beginning.
	at = func(s int64) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

	message = int16(eventv1.Event_MessageSent_case)
	created = int16(eventv1.Event_ThreadCreated_case)
	edited  = int16(eventv1.Event_MessageEdited_case)
)

// store is the views with hands on their tables.
type store struct {
	*views.Views
	t    *testing.T
	pool *pgxpool.Pool
}

func newStore(t *testing.T) store {
	t.Helper()
	url := enginetest.NewDatabase(t)
	files, err := fs.Sub(schemas.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url, files, schemas.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": schemas.ViewsSchema}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return store{views.New(pool), t, pool}
}

// put inserts a row; ids and named numbers are written as what the tables hold.
func (s store) put(table string, values ...any) {
	s.t.Helper()
	sql := "INSERT INTO " + table + " VALUES ("
	for i, v := range values {
		if i > 0 {
			sql += ", "
		}
		sql += "$" + string(rune('1'+i))
		switch v := v.(type) {
		case id.UserID:
			values[i] = uuid(v)
		case id.DeviceID:
			values[i] = uuid(v)
		case id.ThreadID:
			values[i] = uuid(v)
		case id.MessageID:
			values[i] = uuid(v)
		case topic.Subject:
			values[i] = uuid(v)
		case topic.Topic:
			values[i] = int16(v.Number())
		}
	}
	if _, err := s.pool.Exec(s.t.Context(), sql+")", values...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func uuid[T ~[16]byte](v T) pgtype.UUID { return pgtype.UUID{Bytes: v, Valid: true} }

// event puts an accepted event into a thread's tail: a message when it has an id.
func (s store) event(th id.ThreadID, position, ordinal int64, kind int16, from id.UserID, m id.MessageID) {
	s.t.Helper()
	var mid any
	if m != (id.MessageID{}) {
		mid = uuid(m)
	}
	s.put("messages", th, position, ordinal, kind, from, mid, at(position), int32(0), []byte("0123456789"))
}

func (s store) moment(ask func(q *views.Questions)) {
	s.t.Helper()
	if err := s.Moment(s.t.Context(), ask); err != nil {
		s.t.Fatal(err)
	}
}

// into collects rows.
func into[T any](out *[]T) func(*T) error {
	return func(r *T) error { *out = append(*out, *r); return nil }
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("%s (-got +want):\n%s", what, d)
	}
}

func userN(n byte) id.UserID { return id.UserID{0: 1, 15: n} }

func TestFreshness(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	s.put("positions", topic.Threads, int32(3), int64(7), at(1))
	s.put("positions", topic.Users, int32(3), int64(9), at(2))
	s.put("positions", topic.Threads, int32(5), int64(1), at(3))
	s.put("positions", int16(77), int32(5), int64(2), at(4)) // of a later version
	all := must[[]views.Freshness](t)(s.Freshness(ctx))
	same(t, "all", all, []views.Freshness{
		{Topic: topic.Threads, Slot: 3, Next: 7, Time: at(1)},
		{Topic: topic.Users, Slot: 3, Next: 9, Time: at(2)},
		{Topic: topic.Threads, Slot: 5, Next: 1, Time: at(3)},
		{Slot: 5, Next: 2, Time: at(4)},
	})
	same(t, "one", must[views.Freshness](t)(s.FreshnessOf(ctx, topic.Users, 3)), all[1])
	same(
		t, "none", must[views.Freshness](t)(s.FreshnessOf(ctx, topic.Receipts, 3)),
		views.Freshness{Topic: topic.Receipts, Slot: 3, Time: time.Unix(0, 0).UTC()},
	)
	var again, slot, of []views.Freshness
	s.moment(func(q *views.Questions) {
		q.Freshness(into(&again))
		q.FreshnessOfSlot(3, into(&slot))
		q.FreshnessOf(topic.Threads, []topic.Slot{5, 5, 9}, into(&of))
	})
	same(t, "all in a moment", again, all)
	same(t, "of a slot", slot, all[:2])
	same(t, "of a topic", of, all[2:3])
}

func TestAMomentIsOne(t *testing.T) {
	s := newStore(t)
	s.put("positions", topic.Threads, int32(0), int64(1), at(1))
	// So much that the database waits with the second question until the first is read.
	th := id.NewGroup()
	for i := range int64(8) {
		s.put("messages", th, i, i, message, userN(1), uuid(id.NewMessage()), at(i), int32(0), make([]byte, 4<<20))
	}
	all := []views.Range{{Thread: th, After: -1, UpTo: 8, Limit: 8, Bytes: 1 << 30}}
	var got []views.Freshness
	s.moment(func(q *views.Questions) {
		q.Tails(all, func(_ int, e *views.Event) error {
			if e.Position > 0 {
				return nil
			}
			_, err := s.pool.Exec(context.Background(), "UPDATE positions SET next = 2")
			return err
		})
		q.Freshness(into(&got))
	})
	if len(got) != 1 || got[0].Next != 1 {
		t.Errorf("the second question saw another moment than the first: %+v", got)
	}
	if s.pool.Stat().AcquiredConns() != 0 {
		t.Error("a moment has kept its connection")
	}
	broken := errors.New("broken")
	err := s.Moment(t.Context(), func(q *views.Questions) {
		q.Freshness(func(*views.Freshness) error { return broken })
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the function's error", err)
	}
	if s.pool.Stat().AcquiredConns() != 0 {
		t.Error("a moment that failed has kept its connection")
	}
	if err := s.Together(t.Context(), func(*views.Questions) {}); err != nil {
		t.Errorf("nothing asked: %v", err)
	}
}

func TestThreadsAndTheirMembers(t *testing.T) {
	s := newStore(t)
	group, direct, other := id.NewGroup(), id.DirectThread(userN(1), userN(2)), id.NewGroup()
	s.put("threads", group, int16(thread.Group), "the title", int64(8), int64(5), at(8), userN(2), "hello")
	s.put("threads", direct, int16(thread.Direct), "", int64(2), int64(0), time.Unix(0, 0), userN(1), "")
	s.put("threads", other, int16(thread.Group), "not asked for", int64(8), int64(5), at(8), userN(2), "")
	s.put("members", group, userN(1), int16(2), true, []int64{0, 4, 6, 0}, int64(3), int64(0))
	s.put("members", group, userN(2), int16(1), false, []int64{1, 9}, int64(0), int64(4))
	s.put("members", direct, userN(3), int16(1), false, []int64{}, int64(0), int64(0))
	s.put("invitations", group, userN(4), userN(1), int64(7), at(7))
	s.put("invitations", other, userN(4), userN(1), int64(7), at(7))
	s.put("watermarks", group, userN(9), int64(1), int64(2), int64(3), int64(4))
	var threads []views.Thread
	var members []views.Member
	var invited []views.Invitation
	var marks []views.Watermark
	ask := func(q *views.Questions) {
		q.Threads([]id.ThreadID{group, direct}, into(&threads))
		q.Members([]id.ThreadID{group, direct}, into(&members))
		q.Invitations([]id.ThreadID{group}, into(&invited))
		q.Watermarks([]id.ThreadID{group}, into(&marks))
	}
	s.moment(ask)
	byID := map[id.ThreadID]views.Thread{}
	for _, th := range threads {
		byID[th.ID] = th
	}
	same(t, "threads", byID, map[id.ThreadID]views.Thread{
		group: {
			ID: group, Kind: thread.Group, Title: "the title", LastPosition: 8, LastOrdinal: 5, LastTime: at(8),
			LastSender: userN(2), Preview: "hello",
		},
		direct: {
			ID: direct, Kind: thread.Direct, LastPosition: 2, LastTime: time.Unix(0, 0).UTC(), LastSender: userN(1),
		},
	})
	of := map[id.UserID]views.Member{}
	for _, m := range members {
		of[m.User] = m
	}
	same(t, "members", of, map[id.UserID]views.Member{
		userN(1): {Thread: group, User: userN(1), Active: true, Member: thread.Member{
			Role: thread.RoleAdmin, Spans: []thread.Span{{From: 0, To: 4}, {From: 6}}, BaseOrdinal: 3,
		}},
		userN(2): {Thread: group, User: userN(2), Member: thread.Member{
			Role: thread.RoleMember, Spans: []thread.Span{{From: 1, To: 9}}, EndOrdinal: 4,
		}},
		userN(3): {Thread: direct, User: userN(3), Member: thread.Member{
			Role: thread.RoleMember, Spans: []thread.Span{},
		}},
	})
	same(t, "invited", invited, []views.Invitation{
		{Thread: group, User: userN(4), By: userN(1), Position: 7, Time: at(7)},
	})
	same(t, "as the fold has it", invited[0].Invitation(),
		thread.Invitation{By: userN(1), At: 7, TimeMS: at(7).UnixMilli()})
	same(t, "watermarks", marks, []views.Watermark{{Thread: group, User: userN(9), Mark: thread.Watermark{
		DeliveredPosition: 1, DeliveredOrdinal: 2, ReadPosition: 3, ReadOrdinal: 4,
	}}})
	state := thread.New(group)
	group8 := byID[group]
	group8.Fill(state)
	if state.Title != "the title" || state.LastTimeMS != at(8).UnixMilli() || state.LastOrdinal != 5 {
		t.Errorf("filled %+v", state)
	}
	threads, members, marks = nil, nil, nil
	if err := s.Together(t.Context(), ask); err != nil || len(threads) != 2 || len(members) != 3 || len(marks) != 1 {
		t.Errorf("together: %d threads, %d members, %d watermarks, %v", len(threads), len(members), len(marks), err)
	}
	s.put("members", other, userN(1), int16(2), true, []int64{0, 4, 6}, int64(3), int64(0))
	err := s.Moment(t.Context(), func(q *views.Questions) { q.Members([]id.ThreadID{other}, into(&members)) })
	if err == nil {
		t.Error("spans of odd length were read")
	}
}

func TestMessages(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	th, twin := id.NewGroup(), id.NewGroup()
	last := int64(thread.Window/time.Second) + 3
	s.put("threads", th, int16(thread.Group), "", last, int64(4), at(last), userN(2), "")
	one, two, three := id.NewMessage(), id.NewMessage(), id.NewMessage()
	s.event(th, 1, 0, created, userN(1), id.MessageID{})
	s.event(th, 2, 1, message, userN(1), one)
	s.event(th, 3, 2, message, userN(1), two)
	s.event(th, 4, 2, edited, userN(1), three) // an event that names a message is not the message
	s.event(th, 5, 3, message, userN(2), two)  // ids are unique per author only
	s.event(th, last, 4, message, userN(1), one)
	s.event(twin, 1, 1, message, userN(1), three)

	places := func(ask func(q *views.Questions, fn func(*views.Sent) error)) (out []int64) {
		s.moment(func(q *views.Questions) {
			ask(q, func(r *views.Sent) error { out = append(out, int64(r.Position)); return nil })
		})
		slices.Sort(out)
		return out
	}
	recent := func(most int) []int64 {
		return places(func(q *views.Questions, fn func(*views.Sent) error) { q.Recent([]id.ThreadID{th}, most, fn) })
	}
	same(t, "those within the window", recent(100), []int64{3, 5, last})
	same(t, "at most two", recent(2), []int64{5, last})
	same(t, "the newest", places(func(q *views.Questions, fn func(*views.Sent) error) {
		q.Newest([]id.ThreadID{th, twin, id.NewGroup()}, 4, fn)
	}), []int64{1, 2, 3, 5, last})
	s.put("messages", th, 6, 5, message, userN(3), three, at(2*last), 0, []byte{}) // its stamp is ahead
	same(t, "the latest of the window", recent(2), []int64{6, last})
	latest := map[id.ThreadID]int64{}
	s.moment(func(q *views.Questions) {
		q.Latest([]id.ThreadID{th, twin, id.NewGroup()}, func(r *views.Latest) error {
			latest[r.Thread] = r.Time.Unix()
			return nil
		})
	})
	same(t, "latest log times", latest, map[id.ThreadID]int64{th: at(2 * last).Unix(), twin: at(1).Unix()})

	var found []views.Sent
	ofOne := views.MessageKey{Thread: th, Key: thread.Key{Sender: userN(1), Message: one}}
	s.moment(func(q *views.Questions) {
		q.Sent([]views.MessageKey{
			ofOne,
			{Thread: th, Key: thread.Key{Sender: userN(2), Message: two}},
			{Thread: th, Key: thread.Key{Sender: userN(1), Message: three}}, // an edit there, a message elsewhere
		}, topic.Position(last), into(&found))
	})
	same(t, "sent", found, []views.Sent{
		{Thread: th, Sender: userN(1), Message: one, Position: 2, Ordinal: 1, Time: at(2)},
		{Thread: th, Sender: userN(2), Message: two, Position: 5, Ordinal: 3, Time: at(5)},
	})
	found = nil
	s.moment(func(q *views.Questions) { q.Sent([]views.MessageKey{ofOne}, topic.Position(last)+1, into(&found)) })
	if len(found) != 2 || found[1].Position != topic.Position(last) {
		t.Errorf("of an id that was used again, the later one is not last: %+v", found)
	}

	place, ok, err := s.Message(ctx, two)
	if err != nil || !ok {
		t.Fatalf("message: %v, %v", ok, err)
	}
	same(t, "message", place, views.Place{Thread: th, Position: 3, Ordinal: 2, Sender: userN(1)})
	if _, ok, err := s.Message(ctx, id.NewMessage()); ok || err != nil {
		t.Errorf("a message that was never sent: %v, %v", ok, err)
	}
	if p, _, _ := s.Message(ctx, three); p.Thread != twin {
		t.Errorf("an edit was taken for the message: %+v", p)
	}
}

func TestTails(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	th, empty := id.NewGroup(), id.NewGroup()
	for i := int64(1); i <= 6; i++ {
		s.event(th, i*10, i, message, userN(1), id.NewMessage())
	}
	s.put("trimmed", th, int64(5), at(5))
	ranges := []views.Range{
		{Thread: th, After: 10, UpTo: 50, Limit: 100, Bytes: 1 << 20},
		{Thread: empty, After: -1, UpTo: 50, Limit: 100, Bytes: 1 << 20},
		{Thread: th, After: -1, UpTo: 50, Limit: 2, Bytes: 1 << 20},
		{Thread: th, After: -1, UpTo: 50, Since: at(40), Limit: 2, Bytes: 1 << 20},
		{Thread: th, After: -1, UpTo: 50, Limit: 9, Bytes: 11},
	}
	got := make([][]int64, len(ranges))
	var trimmed []views.Trimmed
	s.moment(func(q *views.Questions) {
		q.Trimmed([]id.ThreadID{th, empty}, into(&trimmed))
		q.Tails(ranges, func(nth int, e *views.Event) error {
			got[nth] = append(got[nth], int64(e.Position))
			if p := int64(e.Position); e.Ordinal*10 != p || !e.Time.Equal(at(p)) || string(e.Event) != "0123456789" {
				t.Errorf("event %+v", e)
			}
			return nil
		})
	})
	same(t, "tails", got, [][]int64{{20, 30, 40, 50}, nil, {10, 20}, {40, 50}, {10, 20}})
	same(t, "trimmed", trimmed, []views.Trimmed{{Thread: th, Position: 5, Time: at(5)}})

	page := func(p views.Page) (out []int64) {
		t.Helper()
		p.Thread = th
		for _, e := range must[[]views.Event](t)(s.Page(ctx, p)) {
			out = append(out, int64(e.Position))
		}
		return out
	}
	spans := []thread.Span{{From: 10, To: 20}, {From: 40, To: 60}}
	same(t, "page", page(views.Page{Before: 60, Spans: spans, Limit: 9, Bytes: 999}), []int64{50, 40, 20, 10})
	same(t, "limit", page(views.Page{Before: 60, Spans: spans, Limit: 2, Bytes: 999}), []int64{50, 40})
	floor := views.Page{Before: 61, Spans: spans, Floor: at(40), Limit: 9, Bytes: 999}
	same(t, "floor", page(floor), []int64{60, 50, 40})
	same(t, "bytes", page(views.Page{Before: 61, Spans: spans, Limit: 9, Bytes: 29, PerEvent: 5}), []int64{60, 50})
	same(t, "begins", must[topic.Position](t)(s.TailBegins(ctx, th)), 10)
	same(t, "nothing begins", must[topic.Position](t)(s.TailBegins(ctx, empty)), -1)
}

func TestUsersAndDevices(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	th := id.NewGroup()
	ann, bob, old := userN(1), userN(2), userN(3)
	phone := [16]byte{7}
	s.put("users", ann, uuid(phone), int32(2), "Ann", at(1))
	s.put("users", old, uuid(phone), int32(1), "Old", at(0))
	s.put("users", bob, uuid([16]byte{8}), int32(1), "Bob", at(2))
	d1, d2, gone := id.DeviceID{1}, id.DeviceID{2}, id.DeviceID{3}
	key := make([]byte, 32)
	key[31] = 5
	s.put("devices", ann, d2, key, "second", false, false, int64(20), at(20))
	s.put("devices", ann, d1, key, "first", true, false, int64(10), at(10))
	s.put("devices", ann, gone, key, "gone", false, true, int64(5), at(5))
	s.put("devices", bob, d1, key, "his", true, false, int64(30), at(30)) // the same id is another device
	s.put("user_threads", ann, th, int64(4), true)
	s.put("contacts", ann, uuid(phone), "me")
	s.put("blocks", ann, bob)
	s.put("members", th, ann, int16(1), false, []int64{1, 4, 8, 9}, int64(0), int64(0))
	s.put("members", th, bob, int16(1), true, []int64{1, 0}, int64(0), int64(0))
	s.put("device_watermarks", th, d1, ann, int64(8), int64(3), int64(7), int64(2))
	s.put("device_watermarks", th, d1, bob, int64(0), int64(0), int64(2), int64(1))

	rowAnn := views.User{ID: ann, PhoneHash: phone, Generation: 2, Name: "Ann", Registered: at(1)}
	same(t, "users", must[[]views.User](t)(s.Users(ctx, []id.UserID{ann, userN(9)})), []views.User{rowAnn})
	same(
		t, "the latest of a number", must[[]views.User](t)(s.UsersByPhone(ctx, [][16]byte{phone, {99}})),
		[]views.User{rowAnn},
	)
	first := views.Device{
		User: ann, ID: d1, Key: [32]byte{31: 5}, Name: "first", Primary: true, Since: 10, Time: at(10),
	}
	live := must[[]views.Device](t)(s.LiveDevices(ctx, ann))
	if len(live) != 2 || live[1].ID != d2 {
		t.Fatalf("live devices: %+v", live)
	}
	same(t, "live", live[0], first)
	byKey := must[[]*views.Device](t)(s.Devices(ctx, []views.DeviceKey{{ann, gone}, {bob, d2}, {ann, d1}}))
	if byKey[0] == nil || !byKey[0].Revoked || byKey[1] != nil {
		t.Errorf("devices by key: %+v", byKey)
	}
	same(t, "by key", *byKey[2], first)
	same(t, "cursors", must[[]topic.Position](t)(s.Cursors(ctx, []views.DeviceThread{
		{DeviceKey: views.DeviceKey{User: bob, Device: d1}, Thread: th}, // read, and never delivered
		{DeviceKey: views.DeviceKey{User: ann, Device: d1}, Thread: th},
		{DeviceKey: views.DeviceKey{User: ann, Device: d2}, Thread: th},
	})), []topic.Position{-1, 8, -1})

	received := func(p topic.Position) []views.Received {
		return must[[]views.Received](t)(s.Received(ctx, th, p))
	}
	same(t, "received", received(8), []views.Received{
		{User: ann, Device: d1, Name: "first", Delivered: true},
		{User: ann, Device: d2, Name: "second"},
		{User: bob, Device: d1, Name: "his"},
	})
	same(t, "while ann was away", received(6), []views.Received{{User: bob, Device: d1, Name: "his"}})

	var (
		users    []views.User
		devices  []views.Device
		lists    []views.UserThread
		contacts []views.Contact
		blocks   []views.Block
	)
	s.moment(func(q *views.Questions) {
		who := []id.UserID{ann}
		q.Users(who, into(&users))
		q.Devices(who, into(&devices))
		q.UserThreads(who, into(&lists))
		q.Contacts(who, into(&contacts))
		q.Blocks(who, into(&blocks))
	})
	if len(users) != 1 || len(devices) != 3 {
		t.Errorf("%d users, %d devices", len(users), len(devices))
	}
	same(t, "lists", lists, []views.UserThread{{User: ann, Thread: th, Joined: user.Joined{At: 4, Left: true}}})
	same(t, "contacts", contacts, []views.Contact{{User: ann, PhoneHash: phone, Name: "me"}})
	same(t, "blocks", blocks, []views.Block{{User: ann, Blocked: bob}})

	s.put("devices", bob, d2, key[1:], "short", false, false, int64(40), at(40))
	if _, err := s.LiveDevices(ctx, bob); err == nil {
		t.Error("a key of 31 bytes was read")
	}
}

func TestQuarantine(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	sick, odd := id.NewGroup(), userN(1)
	rows := []views.Quarantined{
		{Topic: topic.Threads, Slot: 1, Position: 0, Subject: topic.Subject(sick), Reason: "undecodable", Time: at(1)},
		{Topic: topic.Threads, Slot: 1, Position: 5, Subject: topic.Subject(sick), Reason: "parked", Time: at(2)},
		{Topic: topic.Threads, Slot: 2, Position: 0, Reason: "no subject", Time: at(3)},
		{Topic: topic.Users, Slot: 0, Position: 9, Subject: topic.Subject(odd), Reason: "undecodable", Time: at(4)},
	}
	for _, r := range rows {
		s.put("quarantine", r.Topic, int32(r.Slot), int64(r.Position), r.Subject, r.Reason, r.Time)
	}
	list := must[[]views.Quarantined](t)
	same(t, "all", list(s.Quarantine(ctx, views.Quarantined{}, 10)), rows)
	same(t, "the first two", list(s.Quarantine(ctx, views.Quarantined{}, 2)), rows[:2])
	same(t, "those behind", list(s.Quarantine(ctx, rows[1], 10)), rows[2:])
	at5, ok, err := s.QuarantinedAt(ctx, topic.Threads, 1, 5)
	if err != nil || !ok {
		t.Fatalf("at 5: %v, %v", ok, err)
	}
	same(t, "at 5", at5, rows[1])
	if _, ok, err := s.QuarantinedAt(ctx, topic.Receipts, 1, 5); ok || err != nil {
		t.Errorf("in another topic: %v, %v", ok, err)
	}
	var held []views.Held
	var inSlot, nothing []views.HeldRange
	s.moment(func(q *views.Questions) {
		q.Held([]id.ThreadID{sick, id.NewGroup()}, nil, into(&held))
		q.HeldInSlot(1, into(&inSlot))
		q.HeldInSlot(2, into(&nothing))
	})
	same(t, "held", held, []views.Held{{Topic: topic.Threads, Subject: topic.Subject(sick)}})
	same(t, "held in a slot", inSlot, []views.HeldRange{{Held: held[0], First: 0, Last: 5, Reason: "undecodable"}})
	same(t, "an event without a subject holds nothing", nothing, nil)
	stopped := must[[]views.Stopped](t)
	first := func(i int, last topic.Position, n int64) views.Stopped { return views.Stopped{rows[i], last, n} }
	all := []views.Stopped{first(0, 5, 2), first(2, 0, 1), first(3, 9, 1)}
	same(t, "stopped", stopped(s.Stopped(ctx, nil)), all)
	same(t, "stopped of one", stopped(s.Stopped(ctx, (*topic.Subject)(&sick))), all[:1])
	between := func(from, to topic.Position, limit int) []views.Quarantined {
		return list(s.QuarantineBetween(ctx, topic.Threads, 1, from, to, limit))
	}
	same(t, "between", between(0, 6, 10), rows[:2])
	same(t, "the first between", between(0, 6, 1), rows[:1])
	same(t, "up to an end", between(0, 5, 10), rows[:1])
	same(t, "from a place", between(1, 6, 10), rows[1:2])
}

func TestTables(t *testing.T) {
	s := newStore(t)
	th, m := id.NewGroup(), id.NewMessage()
	s.put("threads", th, int16(thread.Group), "", int64(8), int64(5), at(8), userN(2), "")
	s.event(th, 1, 0, created, userN(1), id.MessageID{})
	s.event(th, 2, 1, message, userN(1), m)
	s.put("device_watermarks", th, id.DeviceID{1}, userN(1), int64(8), int64(3), int64(7), int64(2))
	var threads []views.Thread
	var marks []views.DeviceWatermark
	rows := map[topic.Position]views.Message{}
	err := s.Tables(t.Context(), views.Tables{
		Threads:          into(&threads),
		DeviceWatermarks: into(&marks),
		Messages:         func(r *views.Message) error { rows[r.Position] = *r; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) != 1 || threads[0].ID != th {
		t.Errorf("threads %+v", threads)
	}
	same(t, "messages", rows, map[topic.Position]views.Message{
		1: {Thread: th, Position: 1, Kind: created, Sender: userN(1), Time: at(1), Event: []byte("0123456789")},
		2: {
			Thread: th, Position: 2, Ordinal: 1, Kind: message, Sender: userN(1), Message: m, Time: at(2),
			Event: []byte("0123456789"),
		},
	})
	same(t, "marks", marks, []views.DeviceWatermark{{
		Thread: th, Device: id.DeviceID{1}, User: userN(1), Mark: thread.Watermark{
			DeliveredPosition: 8, DeliveredOrdinal: 3, ReadPosition: 7, ReadOrdinal: 2,
		},
	}})
}

func TestUnaddable(t *testing.T) {
	s := newStore(t)
	ann, bob, cat, dan := userN(1), userN(2), userN(3), userN(4)
	s.put("blocks", bob, ann)
	s.put("blocks", ann, cat) // whom somebody has blocked himself, he may be added by
	for k := range 4 {
		s.put("user_threads", cat, id.NewGroup(), int64(k), k == 0) // 3 that he has not left
		s.put("user_threads", dan, id.NewGroup(), int64(k), k < 2)
	}
	for most, want := range map[int][]id.UserID{4: {bob}, 3: {cat, bob}, 2: {cat, bob, dan}} {
		got, err := s.Unaddable(t.Context(), ann, []id.UserID{cat, ann, bob, dan}, most)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "who cannot be added", got, want)
	}
}
