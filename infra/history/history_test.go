package history_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/history"
	schemas "heliograph/schemas/clickhouse"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var epoch = time.UnixMilli(1_750_000_000_000).UTC()

// at is a log time: so many seconds after the beginning.
func at(s int64) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

// store is the history with hands on its tables.
type store struct {
	*history.History
	t    *testing.T
	conn driver.Conn
}

func newStore(t *testing.T) store {
	t.Helper()
	addr, password, db := enginetest.NewClickHouseDatabase(t)
	cfg := clickhouse.Config{Addr: []string{addr}, Database: db, Password: password}
	files, err := fs.Sub(schemas.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), cfg, files); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, table := range []string{"messages", "memberships", "invitations", "quarantine"} {
		if err := conn.Exec(t.Context(), "SYSTEM STOP MERGES "+table); err != nil { // what is there twice stays so
			t.Fatal(err)
		}
	}
	return store{history.New(conn), t, conn}
}

// put inserts a row; ids, times and named numbers are written as what the tables hold.
func (s store) put(into string, values ...any) {
	s.t.Helper()
	texts := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case topic.Topic:
			texts[i] = fmt.Sprint(v.Number())
		case time.Time:
			texts[i] = "'" + v.UTC().Format("2006-01-02 15:04:05.000") + "'"
		case id.ThreadID:
			texts[i] = "'" + v.String() + "'"
		case id.UserID:
			texts[i] = "'" + v.String() + "'"
		case id.MessageID:
			texts[i] = "'" + v.String() + "'"
		case topic.Subject:
			texts[i] = "'" + uuid.UUID(v).String() + "'"
		case string:
			texts[i] = "'" + v + "'"
		default:
			texts[i] = fmt.Sprint(v)
		}
	}
	// a row that is put again is to be there twice, as when the token of its insert was forgotten
	token := clickhousego.Settings{"insert_deduplication_token": id.NewMessage().String()}
	ctx := clickhousego.Context(s.t.Context(), clickhousego.WithSettings(token))
	sql := "INSERT INTO " + into + " VALUES (" + strings.Join(texts, ", ") + ")"
	if err := s.conn.Exec(ctx, sql); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func (s store) message(th id.ThreadID, position, ordinal int64, from id.UserID, m id.MessageID) {
	s.t.Helper()
	s.put("messages (thread_id, position, ordinal, slot, sender_id, message_id, log_time, event)",
		th, position, ordinal, 0, from, m, at(position), "0123456789")
}

func (s store) other(th id.ThreadID, position, ordinal int64) {
	s.t.Helper()
	s.put("thread_events (thread_id, position, ordinal, slot, log_time, event)",
		th, position, ordinal, 0, at(position), "0123456789")
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
	const positions = "positions (topic, slot, from_position, next, state, generation, log_time)"
	if g := must[uint32](t)(s.Generation(ctx)); g != 0 {
		t.Errorf("an empty history is of generation %d", g)
	}
	s.put(positions, topic.Threads, 3, 0, 90, "done", 1, at(9)) // before a rebuild
	s.put(positions, topic.Threads, 3, 0, 5, "done", 2, at(1))
	s.put(positions, topic.Threads, 3, 5, 8, "done", 2, at(2))
	s.put(positions, topic.Threads, 3, 8, 12, "begun", 2, at(3)) // not there yet
	s.put(positions, topic.Receipts, 4, 0, 2, "done", 2, at(4))
	s.put(positions, 77, 4, 0, 2, "done", 2, at(5)) // of a later version
	same(t, "all", must[[]history.Freshness](t)(s.Freshness(ctx)), []history.Freshness{
		{Topic: topic.Threads, Slot: 3, Next: 8, Time: at(2)},
		{Topic: topic.Receipts, Slot: 4, Next: 2, Time: at(4)},
		{Slot: 4, Next: 2, Time: at(5)},
	})
	one := must[history.Freshness](t)
	same(
		t, "one", one(s.FreshnessOf(ctx, topic.Threads, 3)),
		history.Freshness{Topic: topic.Threads, Slot: 3, Next: 8, Time: at(2)},
	)
	same(
		t, "none", one(s.FreshnessOf(ctx, topic.Threads, 9)),
		history.Freshness{Topic: topic.Threads, Slot: 9, Time: time.Unix(0, 0).UTC()},
	)
	if g := must[uint32](t)(s.Generation(ctx)); g != 2 {
		t.Errorf("generation %d, want 2", g)
	}
	var done, begun topic.Position
	for _, r := range must[[]history.Range](t)(s.Ranges(ctx, 3, 2)) {
		switch {
		case r.Topic == topic.Threads && r.State == history.Done:
			done = max(done, r.Next)
		case r.Topic == topic.Threads && r.State == history.Begun && r.From == 8:
			begun = max(begun, r.Next)
		default:
			t.Errorf("range %+v", r)
		}
	}
	if done != 8 || begun != 12 {
		t.Errorf("done up to %d and begun up to %d, want 8 and 12", done, begun)
	}
	if r := must[[]history.Range](t)(s.Ranges(ctx, 3, 3)); len(r) != 0 {
		t.Errorf("ranges of a generation to come: %+v", r)
	}
}

func TestInvited(t *testing.T) {
	s := newStore(t)
	th, twin := id.NewGroup(), id.NewGroup()
	put := func(in id.ThreadID, u id.UserID, position int64, open bool, kind string, actor id.UserID) {
		s.put("invitations (thread_id, user_id, position, slot, open, kind, actor_id, log_time)",
			in, u, position, 3, open, kind, actor, at(position))
	}
	for range 2 { // a range that was inserted again
		put(th, userN(1), 1, true, "member_invited", userN(9))
	}
	put(th, userN(2), 2, true, "member_invited", userN(9))
	put(th, userN(2), 3, false, "invitation_declined", userN(2))
	put(th, userN(3), 4, true, "member_invited", userN(9))
	put(th, userN(3), 5, false, "invitation_withdrawn", userN(9))
	put(th, userN(3), 6, true, "member_invited", userN(8))
	put(th, userN(1), 9, false, "invitation_accepted", userN(1)) // behind what is asked
	put(twin, userN(1), 8, true, "member_invited", userN(9))
	asked := func(before history.Before) map[string]int64 {
		t.Helper()
		out := map[string]int64{}
		err := s.Invited(t.Context(), []id.ThreadID{th, twin}, before, func(r *history.Invitation) error {
			where := map[id.ThreadID]string{th: "group", twin: "twin"}[r.Thread]
			key := fmt.Sprintf("%s %d by %d", where, r.User[15], r.Actor[15])
			_, twice := out[key]
			if twice || !r.Open || r.Kind != "member_invited" || !r.Time.Equal(at(int64(r.Position))) {
				t.Errorf("%s: %+v", key, r)
			}
			out[key] = int64(r.Position)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	same(t, "before 9", asked(history.Before{All: 9}), map[string]int64{
		"group 1 by 9": 1, "group 3 by 8": 6, "twin 1 by 9": 8,
	})
	same(t, "each as of its own", asked(history.Before{All: 2, Each: map[id.ThreadID]topic.Position{th: 10}}),
		map[string]int64{"group 3 by 8": 6})
	var rows []history.Invitation
	if err := s.Tables(t.Context(), history.Tables{Invitations: into(&rows)}); err != nil || len(rows) != 8 {
		t.Errorf("%d rows, %v, want 8", len(rows), err)
	}
}

func TestMembersAndMessages(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	th, twin := id.NewGroup(), id.NewGroup()
	const memberships = "memberships (thread_id, user_id, position, kind, active, role, ordinal, log_time)"
	for range 2 { // a range that was inserted again
		s.put(memberships, th, userN(1), 1, 2, true, 2, 0, at(1))
	}
	s.put(memberships, th, userN(1), 5, 2, false, 2, 3, at(5))
	s.put(memberships, th, userN(1), 9, 2, true, 1, 4, at(9)) // behind what is asked
	var changes []history.Change
	threads := []id.ThreadID{th, twin}
	if err := s.Changes(ctx, threads, history.Before{All: 9}, into(&changes)); err != nil {
		t.Fatal(err)
	}
	same(t, "changes", changes, []history.Change{
		{Thread: th, User: userN(1), Position: 1, Kind: thread.Group, Active: true, Role: thread.RoleAdmin},
		{Thread: th, User: userN(1), Position: 5, Kind: thread.Group, Role: thread.RoleAdmin, Ordinal: 3},
	})

	// Each thread as of a position of its own.
	s.put(memberships, twin, userN(1), 5, 2, true, 2, 3, at(5))
	changes = nil
	each := history.Before{All: 2, Each: map[id.ThreadID]topic.Position{twin: 6}}
	if err := s.Changes(ctx, threads, each, into(&changes)); err != nil {
		t.Fatal(err)
	}
	ends := map[id.ThreadID]topic.Position{}
	for _, c := range changes {
		ends[c.Thread] = c.Position
	}
	same(t, "changes, each as of its own", ends, map[id.ThreadID]topic.Position{th: 1, twin: 5})

	last := int64(thread.Window/time.Second) + 3
	one, two, three := id.NewMessage(), id.NewMessage(), id.NewMessage()
	s.message(th, 2, 1, userN(1), one)
	s.message(th, 3, 2, userN(1), two)
	s.message(th, 5, 3, userN(2), two) // ids are unique per author only
	s.message(th, last, 4, userN(1), one)
	s.message(th, last+1, 5, userN(1), three) // behind what is asked
	s.message(twin, 4, 7, userN(1), three)
	recent := func(few int) (out []history.Recent) {
		t.Helper()
		if err := s.Recent(ctx, threads, history.Before{All: topic.Position(last) + 1}, few, into(&out)); err != nil {
			t.Fatal(err)
		}
		return out
	}
	places := map[id.ThreadID][]topic.Position{}
	for _, r := range recent(10) {
		places[r.Thread] = append(places[r.Thread], r.Position)
		clock, ordinal := at(last), int64(4)
		if r.Thread == twin {
			clock, ordinal = at(4), 7
		}
		if !r.LastTime.Equal(clock) || r.LastOrdinal != ordinal {
			t.Errorf("the clock of %+v is not %v, or the ordinal not %d", r, clock, ordinal)
		}
	}
	same(t, "those within the window", places, map[id.ThreadID][]topic.Position{
		th: {topic.Position(last), 5, 3}, twin: {4},
	})
	if got := recent(1); len(got) != 2 {
		t.Errorf("%d messages, want one of each thread", len(got))
	}

	var sent []history.Sent
	before := history.Before{All: topic.Position(last)}
	err := s.Sent(ctx, threads[:1], []id.MessageID{one, three}, before, at(2).UnixMilli(), into(&sent))
	if err != nil {
		t.Fatal(err)
	}
	first := history.Sent{Thread: th, Sender: userN(1), Message: one, Position: 2, Ordinal: 1, Time: at(2)}
	same(t, "sent", sent, []history.Sent{first})
	sent = nil
	err = s.Sent(ctx, threads, []id.MessageID{one}, before, at(3).UnixMilli(), into(&sent))
	if err != nil || len(sent) > 0 {
		t.Errorf("before the time that was asked for: %+v, %v", sent, err)
	}

	place, ok, err := s.Message(ctx, two)
	if err != nil || !ok {
		t.Fatalf("message: %v, %v", ok, err)
	}
	same(t, "message", place, history.Place{Thread: th, Position: 3, Ordinal: 2, Sender: userN(1)})
	if _, ok, err := s.Message(ctx, id.NewMessage()); ok || err != nil {
		t.Errorf("a message that was never sent: %v, %v", ok, err)
	}
}

func TestEvents(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	th := id.NewGroup()
	s.other(th, 10, 0)
	for i := int64(2); i <= 6; i++ {
		s.message(th, i*10, i-1, userN(1), id.NewMessage())
	}
	s.other(th, 40, 2) // in the place of a message: only here, to see that both tables are merged by position
	s.message(id.NewGroup(), 30, 1, userN(1), id.NewMessage())
	s.message(th, 20, 1, userN(1), id.NewMessage()) // inserted again

	stretch := func(after, upTo topic.Position, since int64, limit int) (out []int64) {
		t.Helper()
		events, err := s.Events(
			ctx, history.Stretch{Thread: th, After: after, UpTo: upTo, Since: at(since).UnixMilli()}, limit,
		)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if !e.Time.Equal(at(int64(e.Position))) || string(e.Event) != "0123456789" {
				t.Errorf("event %+v", e)
			}
			out = append(out, int64(e.Position))
		}
		return out
	}
	same(t, "all", stretch(-1, 60, 0, 99), []int64{10, 20, 30, 40, 40, 50, 60})
	same(t, "a part", stretch(10, 30, 0, 99), []int64{20, 30})
	same(t, "the first", stretch(-1, 60, 0, 2), []int64{10, 20})
	same(t, "from a moment on", stretch(-1, 60, 50, 99), []int64{50, 60})

	page := func(p history.Page) (out []int64) {
		t.Helper()
		p.Thread = th
		for _, e := range must[[]history.Event](t)(s.Page(ctx, p)) {
			out = append(out, int64(e.Position))
		}
		return out
	}
	spans := []thread.Span{{From: 10, To: 20}, {From: 50, To: 60}}
	same(t, "page", page(history.Page{Before: 60, Spans: spans, Limit: 9, Bytes: 999}), []int64{50, 20, 10})
	same(t, "limit", page(history.Page{Before: 60, Spans: spans, Limit: 2, Bytes: 999}), []int64{50, 20})
	floor := at(20).UnixMilli()
	same(t, "floor", page(history.Page{Before: 60, Spans: spans, Floor: floor, Limit: 9, Bytes: 999}), []int64{50, 20})
	same(t, "bytes", page(history.Page{Before: 61, Spans: spans, Limit: 9, Bytes: 29, PerEvent: 5}), []int64{60, 50})
}

func TestQuarantine(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	sick := topic.Subject(id.NewGroup())
	rows := []history.Quarantined{
		{Topic: topic.Threads, Slot: 1, Position: 0, Subject: sick, Reason: "undecodable", Time: at(1)},
		{Topic: topic.Threads, Slot: 1, Position: 5, Subject: sick, Reason: "parked", Time: at(2)},
		{Topic: topic.Threads, Slot: 2, Position: 0, Reason: "no subject", Time: at(3)},
		{Topic: topic.Receipts, Slot: 0, Position: 9, Subject: sick, Reason: "undecodable", Time: at(4)},
	}
	for _, r := range append(rows, rows[0]) { // one range was inserted again
		s.put("quarantine (topic, slot, position, subject, reason, log_time)",
			r.Topic, int32(r.Slot), int64(r.Position), r.Subject, r.Reason, r.Time)
	}
	list := must[[]history.Quarantined](t)
	same(t, "all", list(s.Quarantine(ctx, history.Quarantined{}, 10)), rows)
	same(t, "the first two", list(s.Quarantine(ctx, history.Quarantined{}, 2)), rows[:2])
	same(t, "those behind", list(s.Quarantine(ctx, rows[1], 10)), rows[2:])
	at5, ok, err := s.QuarantinedAt(ctx, topic.Threads, 1, 5)
	if err != nil || !ok {
		t.Fatalf("at 5: %v, %v", ok, err)
	}
	same(t, "at 5", at5, rows[1])
	if _, ok, err := s.QuarantinedAt(ctx, topic.Receipts, 1, 5); ok || err != nil {
		t.Errorf("in another topic: %v, %v", ok, err)
	}
	held := must[[]history.HeldRange](t)
	same(t, "held", held(s.Held(ctx, 1)), []history.HeldRange{
		{Topic: topic.Threads, Subject: sick, First: 0, Last: 5, Reason: "undecodable"},
	})
	same(t, "without a subject", held(s.Held(ctx, 2)), []history.HeldRange{
		{Topic: topic.Threads, First: 0, Last: 0, Reason: "no subject"},
	})
	stopped := must[[]history.Stopped](t)
	first := func(i int, last topic.Position, n uint64) history.Stopped { return history.Stopped{rows[i], last, n} }
	same(t, "stopped", stopped(s.Stopped(ctx, nil)),
		[]history.Stopped{first(0, 5, 2), first(2, 0, 1), first(3, 9, 1)})
	same(t, "stopped of one", stopped(s.Stopped(ctx, &sick)), []history.Stopped{first(0, 5, 2), first(3, 9, 1)})
	between := func(from, to topic.Position, limit int) []history.Quarantined {
		return list(s.QuarantineBetween(ctx, topic.Threads, 1, from, to, limit))
	}
	same(t, "between", between(0, 6, 10), rows[:2])
	same(t, "the first between", between(0, 6, 1), rows[:1])
	same(t, "up to an end", between(0, 5, 10), rows[:1])
	same(t, "from a place", between(1, 6, 10), rows[1:2])

	// What is released is no more in any answer, and what is put there again is.
	const columns = "quarantine (topic, slot, position, subject, reason, log_time, released)"
	put := func(r history.Quarantined, released bool) {
		s.put(columns, r.Topic, int32(r.Slot), int64(r.Position), r.Subject, r.Reason, r.Time, released)
	}
	put(rows[0], true)
	again := rows[1]
	again.Reason = "undecodable"
	put(again, true)
	put(again, false)
	same(t, "all but what is released", list(s.Quarantine(ctx, history.Quarantined{}, 10)),
		[]history.Quarantined{again, rows[2], rows[3]})
	if _, ok, err := s.QuarantinedAt(ctx, topic.Threads, 1, 0); ok || err != nil {
		t.Errorf("where an event was released: %v, %v", ok, err)
	}
	same(t, "between, but what is released", between(0, 6, 10), []history.Quarantined{again})
	same(t, "held behind it", held(s.Held(ctx, 1)), []history.HeldRange{
		{Topic: topic.Threads, Subject: sick, First: 5, Last: 5, Reason: "undecodable"},
	})
	var whole []history.Quarantined
	if err := s.Tables(ctx, history.Tables{Raw: true, Quarantined: into(&whole)}); err != nil {
		t.Fatal(err)
	}
	if len(whole) != 3 {
		t.Errorf("the table has %d rows that count, want 3", len(whole))
	}
}

func TestTables(t *testing.T) {
	s := newStore(t)
	th, m := id.NewGroup(), id.NewMessage()
	s.other(th, 1, 0)
	for range 2 { // a range that was inserted again
		s.message(th, 2, 1, userN(1), m)
	}
	s.put("receipts (thread_id, user_id, position, slot, delivered_position, delivered_ordinal, log_time)",
		th, userN(1), 7, 3, 2, 1, at(5))
	s.put(
		"message_changes (thread_id, author_id, message_id, position, slot, change, actor_id, log_time, key_id, emoji)",
		th, userN(1), m, 8, 3, "reaction", userN(2), at(6), 9, "+1",
	)
	s.put("memberships (thread_id, user_id, position, kind, active, role, ordinal, slot, log_time)",
		th, userN(2), 9, 2, true, 1, 4, 3, at(7))
	read := func(raw bool) (messages []history.Message, others []history.Other, receipts []history.Receipt) {
		t.Helper()
		err := s.Tables(t.Context(), history.Tables{
			Raw: raw, Messages: into(&messages), Others: into(&others), Receipts: into(&receipts),
		})
		if err != nil {
			t.Fatal(err)
		}
		return messages, others, receipts
	}
	messages, others, receipts := read(false)
	same(t, "messages", messages, []history.Message{{
		Thread: th, Position: 2, Ordinal: 1, Sender: userN(1), Message: m, Time: at(2), Counted: at(2),
		ClientTime: time.Unix(0, 0).UTC(), Event: []byte("0123456789"),
	}})
	same(t, "others", others, []history.Other{
		{Thread: th, Position: 1, Time: at(1), Event: []byte("0123456789")},
	})
	same(t, "receipts", receipts, []history.Receipt{{
		Thread: th, User: userN(1), Position: 7, Slot: 3, Time: at(5),
		Mark: thread.Watermark{DeliveredPosition: 2, DeliveredOrdinal: 1},
	}})
	var (
		changes     []history.MessageChange
		memberships []history.Membership
	)
	err := s.Tables(t.Context(), history.Tables{MessageChanges: into(&changes), Memberships: into(&memberships)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "changes of messages", changes, []history.MessageChange{{
		Thread: th, Author: userN(1), Message: m, Position: 8, Slot: 3, Change: "reaction", Actor: userN(2),
		Time: at(6), KeyID: 9, Emoji: "+1",
	}})
	same(t, "memberships", memberships, []history.Membership{{
		Change: history.Change{
			Thread: th, User: userN(2), Position: 9, Kind: thread.Group, Active: true, Role: thread.RoleMember,
			Ordinal: 4,
		},
		Slot: 3, Time: at(7),
	}})
	if raw, _, _ := read(true); len(raw) != 2 {
		t.Errorf("%d rows as they are there, want 2", len(raw))
	}
}

// TestQuarantineOfTheVersionBefore: what was in quarantine before anything could be released is there still.
func TestQuarantineOfTheVersionBefore(t *testing.T) {
	addr, password, db := enginetest.NewClickHouseDatabase(t)
	cfg := clickhouse.Config{Addr: []string{addr}, Database: db, Password: password}
	files, err := fs.Sub(schemas.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(files, "0000[1-4]_*.sql")
	if err != nil {
		t.Fatal(err)
	}
	before := fstest.MapFS{}
	for _, n := range names {
		data, err := fs.ReadFile(files, n)
		if err != nil {
			t.Fatal(err)
		}
		before[n] = &fstest.MapFile{Data: data}
	}
	if _, err := clickhouse.Migrate(t.Context(), cfg, before); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := store{history.New(conn), t, conn}
	old := history.Quarantined{
		Topic: topic.Threads, Slot: 1, Position: 7, Subject: topic.Subject(id.NewGroup()), Reason: "newer_version",
		Time: at(1),
	}
	s.put("quarantine", old.Topic, int32(old.Slot), int64(old.Position), old.Subject, old.Reason, old.Time)
	if _, err := clickhouse.Migrate(t.Context(), cfg, files); err != nil {
		t.Fatal(err)
	}
	got, err := s.Quarantine(t.Context(), history.Quarantined{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "quarantine", got, []history.Quarantined{old})
}
