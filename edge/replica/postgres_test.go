package replica_test

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/postgres"
	"heliograph/schemas/id"
	schemas "heliograph/schemas/postgres"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// newViews makes a database with the thread views.
func newViews(t *testing.T) *pgxpool.Pool {
	url := enginetest.NewDatabase(t)
	fsys, err := fs.Sub(schemas.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url, fsys, schemas.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": schemas.ViewsSchema}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func pgid[T ~[16]byte](v T) pgtype.UUID { return pgtype.UUID{Bytes: v, Valid: true} }

// write puts what the store in memory has into Postgres.
func write(t *testing.T, m *replicatest.Store, pool *pgxpool.Pool) {
	t.Helper()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(context.Background(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for s := range m.Cursors {
		for i, p := range m.Cursors[s] {
			exec(
				"INSERT INTO positions (topic, slot, next) VALUES ($1, $2, $3)", topic.Folded[i].Number(), s, int64(p),
			)
		}
	}
	for th, s := range m.Threads {
		exec("INSERT INTO threads VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", pgid(th), int16(s.Kind), s.Title,
			int64(s.LastPosition), s.LastOrdinal, time.UnixMilli(s.LastTimeMS), pgid(s.LastSender), s.Preview)
		for u, mem := range s.Members {
			var spans []int64
			for _, sp := range mem.Spans {
				spans = append(spans, int64(sp.From), int64(sp.To))
			}
			exec(`
				INSERT INTO members (thread_id, user_id, role, active, spans, base_ordinal, end_ordinal)
				VALUES ($1, $2, $3, $4, $5, $6, $7)`,
				pgid(th), pgid(u), int16(mem.Role), mem.Active(), spans, mem.BaseOrdinal, mem.EndOrdinal)
		}
		for u, in := range s.Invited {
			exec("INSERT INTO invitations VALUES ($1, $2, $3, $4, $5)",
				pgid(th), pgid(u), pgid(in.By), int64(in.At), time.UnixMilli(in.TimeMS))
		}
		for u, w := range s.Marks {
			exec("INSERT INTO watermarks VALUES ($1, $2, $3, $4, $5, $6)", pgid(th), pgid(u),
				int64(w.DeliveredPosition), w.DeliveredOrdinal, int64(w.ReadPosition), w.ReadOrdinal)
		}
		for key, seen := range s.Recent {
			for _, r := range m.Rows[th] {
				if r.Position == seen.Position {
					exec(`
						INSERT INTO messages
							(thread_id, position, ordinal, kind, sender_id, message_id, log_time, slot, event)
						VALUES ($1, $2, $3, 10, $4, $5, $6, 0, $7)`,
						pgid(th), int64(r.Position), r.Ordinal, pgid(key.Sender), pgid(key.Message),
						time.UnixMilli(r.LogTimeMS), r.Event)
				}
			}
		}
		for _, r := range m.Rows[th] {
			exec(`
				INSERT INTO messages (thread_id, position, ordinal, kind, sender_id, log_time, slot, event)
				VALUES ($1, $2, $3, 14, $4, $5, 0, $6) ON CONFLICT DO NOTHING`,
				pgid(th), int64(r.Position), r.Ordinal, pgid(s.LastSender), time.UnixMilli(r.LogTimeMS), r.Event)
		}
	}
	for k, list := range m.Refused {
		for _, r := range list {
			exec("INSERT INTO rejected VALUES ($1, $2, $3, $4, $5, $6, now(), 0)", pgid(k.User), pgid(k.Device),
				pgid(r.Thread), int64(r.Position), pgid(id.MessageID(r.Message)), string(r.Reason))
		}
	}
	for k, w := range m.Marks {
		exec("INSERT INTO device_watermarks VALUES ($1, $2, $3, $4, $5, $6, $7)",
			pgid(k.Thread), pgid(k.Device), pgid(k.User),
			int64(w.DeliveredPosition), w.DeliveredOrdinal, int64(w.ReadPosition), w.ReadOrdinal)
	}
	for u, s := range m.Users {
		exec("INSERT INTO users VALUES ($1, $2, $3, $4, $5)",
			pgid(u), pgid(s.PhoneHash), int32(s.Generation), s.Name, time.UnixMilli(s.RegisteredMS))
		for d, dev := range s.Devices {
			exec("INSERT INTO devices VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", pgid(u), pgid(d), dev.Key[:], dev.Name,
				dev.Primary, dev.Revoked, int64(dev.Since), time.UnixMilli(dev.SinceMS))
		}
		for th, j := range s.Threads {
			exec("INSERT INTO user_threads VALUES ($1, $2, $3, $4)", pgid(u), pgid(th), int64(j.At), j.Left)
		}
		for th, i := range s.Invitations {
			exec("INSERT INTO user_invitations VALUES ($1, $2, $3, $4, $5, $6)",
				pgid(u), pgid(th), pgid(i.By), i.Title, int64(i.At), time.UnixMilli(i.TimeMS))
		}
	}
}

// TestPostgresAnswersAsMemory compares the two stores query by query.
func TestPostgresAnswersAsMemory(t *testing.T) {
	pool := newViews(t)
	w := replicatest.NewWorld(1)
	ann, bob := replicatest.User(1), replicatest.User(2)
	annD, bobD, oldD := id.NewDevice(), id.NewDevice(), id.NewDevice()
	w.Register(ann, oldD, 1)
	w.Register(ann, annD, 2)
	w.Register(bob, bobD, 1)
	group, direct, empty := id.NewGroup(), id.DirectThread(ann, bob), id.NewGroup()
	w.Join(group, 0, ann, bob)
	w.Join(direct, 0, ann, bob)
	w.Create(group, ann, bob)
	w.TellInvited(bob, ann, empty, "empty")
	w.TellInvited(bob, replicatest.User(3), id.NewGroup(), "")
	w.Invite(group, ann, replicatest.User(3))
	w.Invite(group, ann, replicatest.User(4))
	for range 9 {
		w.Send(group, ann, annD, id.NewMessage(), id.UserID{})
	}
	w.RemoveMember(group, ann, bob)
	w.Send(group, bob, bobD, id.NewMessage(), id.UserID{})
	w.Send(group, bob, bobD, id.NewMessage(), id.UserID{})
	w.AddMember(group, ann, bob)
	w.Send(direct, bob, bobD, id.NewMessage(), ann)
	w.Watermark(
		group, bob, bobD, thread.Watermark{DeliveredPosition: 4, DeliveredOrdinal: 3, ReadPosition: 3, ReadOrdinal: 2},
	)
	// who claims another's device does not move his cursor
	w.Watermark(group, ann, bobD, thread.Watermark{DeliveredPosition: 9, DeliveredOrdinal: 8})
	w.Watermark(direct, ann, annD, thread.Watermark{ReadPosition: 1, ReadOrdinal: 1}) // no cursor
	mem := &w.Views
	mem.Fold(1000)
	write(t, mem, pool)
	ctx := t.Context()
	const held = "INSERT INTO quarantine VALUES (1, 0, 99, $1, 'test', now())"
	if _, err := pool.Exec(ctx, held, pgid(empty)); err != nil {
		t.Fatal(err)
	}
	pg := replica.NewPostgres(pool, pool, replicatest.Slots)

	threads, users := []id.ThreadID{group, direct, empty}, []id.UserID{ann, bob, replicatest.User(3)}
	got, err := pg.Snapshot(ctx, threads, users)
	if err != nil {
		t.Fatal(err)
	}
	want, err := mem.Snapshot(ctx, threads, users)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "positions", got.At, want.At)
	mustBe(t, "threads", len(got.Threads), len(want.Threads))
	for th, a := range want.Threads {
		b := got.Threads[th]
		if b == nil {
			t.Fatalf("thread %v is missing", th)
		}
		b.Next = a.Next // the replica sets it from the positions
		b.Restore()
		same(t, "members", b.Members, a.Members)
		same(t, "invited", b.Invited, a.Invited)
		same(t, "recent", b.Recent, a.Recent)
		same(t, "watermarks", b.Marks, a.Marks)
		mustBe(t, "sent", len(b.Sent), len(a.Sent))
		for u, m := range a.Sent {
			mustBe(t, "sent", b.Sent[u], m)
		}
		mustBe(t, "kind", b.Kind, a.Kind)
		mustBe(t, "title", b.Title, a.Title)
		mustBe(t, "last", b.LastPosition, a.LastPosition)
		mustBe(t, "ordinal", b.LastOrdinal, a.LastOrdinal)
		mustBe(t, "time", b.LastTimeMS, a.LastTimeMS)
		mustBe(t, "sender", b.LastSender, a.LastSender)
		mustBe(t, "preview", b.Preview, a.Preview)
		mustBe(t, "active", b.ActiveMembers(), a.ActiveMembers())
	}
	replica.SetRecent(pg, 3)
	mem.Recent = 3
	few, err := pg.Snapshot(ctx, threads, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFew, err := mem.Snapshot(ctx, threads, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "some of the recent", few.Threads[group].Recent, wantFew.Threads[group].Recent)
	mustBe(t, "how many", len(few.Threads[group].Recent), 3)
	mustBe(t, "up to when some lack", few.Threads[group].LacksMS, wantFew.Threads[group].LacksMS)
	mustBe(t, "nothing lacks", few.Threads[direct].LacksMS, int64(0))
	keys := []replica.MessageKey{
		{Thread: direct, Key: thread.Key{Sender: bob, Message: id.NewMessage()}, Before: 100},
		{Thread: empty, Key: thread.Key{Sender: ann, Message: id.NewMessage()}, Before: 100},
	}
	for k, at := range want.Threads[group].Recent {
		keys = append(keys,
			replica.MessageKey{Thread: group, Key: k, Before: 100},
			replica.MessageKey{Thread: group, Key: k, Before: at.Position + 1},
			replica.MessageKey{Thread: group, Key: k, Before: at.Position},
			replica.MessageKey{Thread: direct, Key: k, Before: 100})
	}
	compare(t, "looked up", func(s replica.Store) (any, error) { return s.Sent(ctx, keys) }, pg, mem)
	for _, s := range want.Users {
		s.Next = 0
	}
	same(t, "users", got.Users, want.Users)
	in := replica.Quarantined{Topic: topic.Threads.Number(), Subject: topic.Subject(empty)}
	mustBe(t, "in quarantine", got.Quarantined[in], true)

	heldNow, at, err := pg.Quarantine(ctx, threads, users)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "in quarantine", heldNow, map[replica.Quarantined]bool{in: true})
	for _, th := range threads {
		n := w.Slot(topic.Subject(th))
		mustBe(t, "the slot's place", at[n], mem.Cursors[n])
	}
	compare(t, "positions", func(s replica.Store) (any, error) { return s.Positions(ctx) }, pg, mem)
	compare(t, "cursors", func(s replica.Store) (any, error) {
		return s.Delivered(ctx, []replica.DeviceThread{
			{User: bob, Device: bobD, Thread: group},
			{User: ann, Device: annD, Thread: direct},
			{User: ann, Device: annD, Thread: empty},
			{User: bob, Device: bobD, Thread: group},
			{User: ann, Device: bobD, Thread: group},
		})
	}, pg, mem)
	compare(t, "rejected", func(s replica.Store) (any, error) {
		return s.Rejected(ctx, []replica.DeviceKey{{User: ann, Device: annD}, {User: bob, Device: bobD}})
	}, pg, mem)
	compare(t, "unread", func(s replica.Store) (any, error) {
		var keys []replica.Unread
		for _, of := range []struct {
			u    id.UserID
			th   id.ThreadID
			last int64
		}{{ann, group, 9}, {bob, group, 9}, {ann, direct, 1}, {bob, direct, 1}} {
			m, mark := want.Threads[of.th].Members[of.u], want.Threads[of.th].Marks[of.u]
			for _, floor := range []int64{0, mem.Rows[of.th][len(mem.Rows[of.th])/2].LogTimeMS} {
				keys = append(keys, replica.Unread{
					User: of.u, Thread: of.th, Unread: m.Unread(of.last, mark), First: m.Spans[0].From, FloorMS: floor,
				})
			}
		}
		return s.Unread(ctx, keys)
	}, pg, mem)
	compare(t, "devices", func(s replica.Store) (any, error) {
		return s.Devices(
			ctx, []replica.DeviceKey{{User: ann, Device: oldD}, {User: ann, Device: bobD}, {User: bob, Device: bobD}},
		)
	}, pg, mem)
	floor := mem.Rows[group][5].LogTimeMS
	const trimmed = "INSERT INTO trimmed VALUES ($1, 7, $2)"
	if _, err := pool.Exec(ctx, trimmed, pgid(direct), time.UnixMilli(floor)); err != nil {
		t.Fatal(err)
	}
	const lots = 1 << 20
	tails, err := pg.Tails(ctx, []replica.Range{
		{Thread: group, After: -1, UpTo: 100, Limit: 3, Bytes: lots},
		{Thread: empty, After: -1, UpTo: 5, Limit: 3, Bytes: lots},
		{Thread: group, After: 2, UpTo: 4, Limit: 10, Bytes: lots},
		{Thread: group, After: -1, UpTo: 100, FloorMS: floor, Limit: 2, Bytes: lots},
		{Thread: direct, After: 90, UpTo: 100, Limit: 2, Bytes: lots},
		{Thread: group, After: -1, UpTo: 100, Limit: 10, Bytes: 1},
		{Thread: group, After: -1, UpTo: 100, Limit: 10, Bytes: len(mem.Rows[group][0].Event) + 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := mem.Rows[group]
	for i, th := range []id.ThreadID{group, empty, group, group} {
		mustBe(t, "how far the views were", tails[i].Next, mem.Cursors[w.Slot(topic.Subject(th))].At(topic.Threads))
	}
	for i, want := range []topic.Position{-1, -1, -1, -1, 7, -1, -1} {
		mustBe(t, "trimmed", tails[i].Trimmed, want)
	}
	mustBe(t, "trimmed until", tails[4].TrimmedMS, floor)
	for i, want := range [][]replica.Row{all[:3], nil, rowsBetween(all, 2, 4), all[5:7], nil, all[:1], all[:2]} {
		mustBe(t, "tail", len(tails[i].Rows), len(want))
		for k := range want {
			row := tails[i].Rows[k]
			same(t, "row", []any{row.Position, row.Ordinal, row.LogTimeMS, row.Event},
				[]any{want[k].Position, want[k].Ordinal, want[k].LogTimeMS, want[k].Event})
		}
	}
	if _, err := pg.Snapshot(ctx, nil, nil); err != nil {
		t.Errorf("empty snapshot: %v", err)
	}
	pool.Close()
	if _, err := pg.Snapshot(ctx, threads, users); err == nil {
		t.Error("a snapshot from a closed pool")
	}
}

func rowsBetween(all []replica.Row, after, upTo topic.Position) (out []replica.Row) {
	for _, r := range all {
		if r.Position > after && r.Position <= upTo {
			out = append(out, r)
		}
	}
	return out
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func compare(t *testing.T, what string, ask func(replica.Store) (any, error), pg, mem replica.Store) {
	t.Helper()
	got, err := ask(pg)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	want, err := ask(mem)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	same(t, what, got, want)
}

// TestCatchUpsKeepNobodyOut: whatever goes on in the pool of catch-ups, devices are found and the views' positions
// read, on which logging in and cutting off depend.
func TestCatchUpsKeepNobodyOut(t *testing.T) {
	doors := newViews(t)
	busy, err := postgres.Open(t.Context(), postgres.Config{URL: doors.Config().ConnString(), MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(busy.Close)
	held, err := busy.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	store := replica.NewPostgres(busy, doors, replicatest.Slots)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	device := replica.DeviceKey{User: replicatest.User(1), Device: id.NewDevice()}
	if _, err := store.Devices(ctx, []replica.DeviceKey{device}); err != nil {
		t.Errorf("devices: %v", err)
	}
	if _, err := store.Positions(ctx); err != nil {
		t.Errorf("positions: %v", err)
	}
	if _, _, err := store.Quarantine(ctx, nil, []id.UserID{device.User}); err != nil {
		t.Errorf("quarantine: %v", err)
	}
}
