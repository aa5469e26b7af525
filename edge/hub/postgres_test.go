package hub

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
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
func (m *memStore) write(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(context.Background(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for s := range m.at {
		for i, p := range m.at[s] {
			exec(
				"INSERT INTO positions (topic, slot, next) VALUES ($1, $2, $3)", topic.Folded[i].Number(), s, int64(p),
			)
		}
	}
	for th, s := range m.threads {
		exec(
			"INSERT INTO threads VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", pgid(th), int16(s.Kind), s.Title,
			int64(s.LastPosition), s.LastOrdinal, time.UnixMilli(s.LastTimeMS), pgid(s.LastSender), s.Preview,
		)
		for u, mem := range s.Members {
			var spans []int64
			for _, sp := range mem.Spans {
				spans = append(spans, int64(sp.From), int64(sp.To))
			}
			exec(
				"INSERT INTO members (thread_id, user_id, role, active, spans, base_ordinal, end_ordinal) VALUES ($1, $2, $3, $4, $5, $6, $7)",
				pgid(th), pgid(u), int16(mem.Role), mem.Active(), spans, mem.BaseOrdinal, mem.EndOrdinal,
			)
		}
		for u, w := range s.watermarks {
			exec(
				"INSERT INTO watermarks VALUES ($1, $2, $3, $4, $5, $6)", pgid(th), pgid(u), int64(w.DeliveredPosition),
				w.DeliveredOrdinal, int64(w.ReadPosition), w.ReadOrdinal,
			)
		}
		for key, seen := range s.Recent {
			for _, r := range m.rows[th] {
				if r.position == seen.Position {
					exec(
						"INSERT INTO messages (thread_id, position, ordinal, kind, sender_id, message_id, log_time, slot, event) VALUES ($1, $2, $3, 10, $4, $5, $6, 0, $7)",
						pgid(
							th,
						),
						int64(r.position),
						r.ordinal,
						pgid(key.Sender),
						pgid(key.Message),
						time.UnixMilli(r.logTimeMS),
						r.event,
					)
				}
			}
		}
		for _, r := range m.rows[th] {
			exec(
				"INSERT INTO messages (thread_id, position, ordinal, kind, sender_id, log_time, slot, event) VALUES ($1, $2, $3, 14, $4, $5, 0, $6) ON CONFLICT DO NOTHING",
				pgid(th), int64(r.position), r.ordinal, pgid(s.LastSender), time.UnixMilli(r.logTimeMS), r.event,
			)
		}
	}
	for k, w := range m.devices_ {
		exec(
			"INSERT INTO device_watermarks VALUES ($1, $2, $3, $4, $5, $6, $7)", pgid(k.thread), pgid(k.device),
			pgid(k.user), int64(w.DeliveredPosition), w.DeliveredOrdinal, int64(w.ReadPosition), w.ReadOrdinal,
		)
	}
	for u, s := range m.users {
		exec(
			"INSERT INTO users VALUES ($1, $2, $3, $4, $5)", pgid(u), pgid(s.PhoneHash), int32(s.Generation), s.Name,
			time.UnixMilli(s.RegisteredMS),
		)
		for d, dev := range s.Devices {
			exec(
				"INSERT INTO devices VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", pgid(u), pgid(d), dev.Key[:], dev.Name,
				dev.Primary, dev.Revoked, int64(dev.Since), time.UnixMilli(dev.SinceMS),
			)
		}
		for th, j := range s.Threads {
			exec("INSERT INTO user_threads VALUES ($1, $2, $3, $4)", pgid(u), pgid(th), int64(j.At), j.Left)
		}
	}
}

// TestPostgresAnswersAsMemory compares the two stores query by query.
func TestPostgresAnswersAsMemory(t *testing.T) {
	pool := newViews(t)
	w := newWorld(1)
	ann, bob := userID(1), userID(2)
	annD, bobD, oldD := id.NewDevice(), id.NewDevice(), id.NewDevice()
	w.register(ann, oldD, 1)
	w.register(ann, annD, 2)
	w.register(bob, bobD, 1)
	group, direct, empty := id.NewGroup(), id.DirectThread(ann, bob), id.NewGroup()
	w.join(group, 0, ann, bob)
	w.join(direct, 0, ann, bob)
	w.create(group, ann, bob)
	for range 9 {
		w.send(group, ann, annD, id.NewMessage(), id.UserID{})
	}
	w.removeMember(group, ann, bob)
	w.addMember(group, ann, bob)
	w.send(direct, bob, bobD, id.NewMessage(), ann)
	w.watermark(
		group, bob, bobD, thread.Watermark{DeliveredPosition: 4, DeliveredOrdinal: 3, ReadPosition: 3, ReadOrdinal: 2},
	)
	// who claims another's device does not move his cursor
	w.watermark(group, ann, bobD, thread.Watermark{DeliveredPosition: 9, DeliveredOrdinal: 8})
	w.watermark(direct, ann, annD, thread.Watermark{ReadPosition: 1, ReadOrdinal: 1}) // no cursor
	mem := &w.views
	mem.fold(1000)
	mem.write(t, pool)
	ctx := t.Context()
	if _, err := pool.Exec(ctx, "INSERT INTO quarantine VALUES (1, 0, 99, $1, 'test', now())", pgid(empty)); err != nil {
		t.Fatal(err)
	}
	pg := &postgresStore{views: views.New(pool), partitions: testSlots}

	threads, users := []id.ThreadID{group, direct, empty}, []id.UserID{ann, bob, userID(3)}
	got, err := pg.snapshot(ctx, threads, users)
	if err != nil {
		t.Fatal(err)
	}
	want, err := mem.snapshot(ctx, threads, users)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "positions", got.at, want.at)
	mustBe(t, "threads", len(got.threads), len(want.threads))
	for th, a := range want.threads {
		b := got.threads[th]
		if b == nil {
			t.Fatalf("thread %v is missing", th)
		}
		b.Next = a.Next // the hub sets it from the positions
		b.Restore()
		same(t, "members", b.Members, a.Members)
		same(t, "recent", b.Recent, a.Recent)
		same(t, "watermarks", b.watermarks, a.watermarks)
		mustBe(t, "sent", len(b.sent), len(a.sent))
		for u, m := range a.sent {
			mustBe(t, "sent", b.sent[u], m)
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
	for _, s := range want.users {
		s.Next = 0
	}
	same(t, "users", got.users, want.users)
	mustBe(t, "poisoned", got.poisoned[poison{topic.Threads.Number(), topic.Subject(empty)}], true)

	compare(t, "positions", func(s store) (any, error) { return s.positions(ctx) }, pg, mem)
	compare(t, "cursors", func(s store) (any, error) {
		return s.cursors(
			ctx,
			[]deviceThread{
				{bob, bobD, group},
				{ann, annD, direct},
				{ann, annD, empty},
				{bob, bobD, group},
				{ann, bobD, group},
			},
		)
	}, pg, mem)
	compare(t, "devices", func(s store) (any, error) {
		return s.devices(ctx, []userDevice{{ann, oldD}, {ann, bobD}, {bob, bobD}})
	}, pg, mem)
	floor := mem.rows[group][5].logTimeMS
	if _, err := pool.Exec(ctx, "INSERT INTO trimmed VALUES ($1, 7, $2)", pgid(direct), time.UnixMilli(floor)); err != nil {
		t.Fatal(err)
	}
	const lots = 1 << 20
	tails, err := pg.tails(ctx, []tailRange{
		{
			thread: group,
			after:  -1,
			upTo:   100,
			limit:  3,
			bytes:  lots,
		}, {thread: empty, after: -1, upTo: 5, limit: 3, bytes: lots}, {thread: group, after: 2, upTo: 4, limit: 10, bytes: lots},
		{thread: group, after: -1, upTo: 100, floorMS: floor, limit: 2, bytes: lots},
		{thread: direct, after: 90, upTo: 100, limit: 2, bytes: lots},
		{thread: group, after: -1, upTo: 100, limit: 10, bytes: 1},
		{thread: group, after: -1, upTo: 100, limit: 10, bytes: len(mem.rows[group][0].event) + 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := mem.rows[group]
	for i, th := range []id.ThreadID{group, empty, group, group} {
		mustBe(t, "how far the views were", tails[i].next, mem.at[w.slot(topic.Subject(th))].At(topic.Threads))
	}
	for i, want := range []topic.Position{-1, -1, -1, -1, 7, -1, -1} {
		mustBe(t, "trimmed", tails[i].trimmed, want)
	}
	mustBe(t, "trimmed until", tails[4].trimmedMS, floor)
	for i, want := range [][]row{all[:3], nil, rowsBetween(all, 2, 4), all[5:7], nil, all[:1], all[:2]} {
		mustBe(t, "tail", len(tails[i].rows), len(want))
		for k := range want {
			same(
				t,
				"row",
				[]any{
					tails[i].rows[k].position,
					tails[i].rows[k].ordinal,
					tails[i].rows[k].logTimeMS,
					tails[i].rows[k].event,
				},
				[]any{want[k].position, want[k].ordinal, want[k].logTimeMS, want[k].event},
			)
		}
	}
	if _, err := pg.snapshot(ctx, nil, nil); err != nil {
		t.Errorf("empty snapshot: %v", err)
	}
	pool.Close()
	if _, err := pg.snapshot(ctx, threads, users); err == nil {
		t.Error("a snapshot from a closed pool")
	}
}

func rowsBetween(all []row, after, upTo topic.Position) (out []row) {
	for _, r := range all {
		if r.position > after && r.position <= upTo {
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

func compare(t *testing.T, what string, ask func(store) (any, error), pg, mem store) {
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
