package threads_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/projector"
	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	"heliograph/schemas/eventtest"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

// newViews returns a pool over an empty schema of the views.
func newViews(t testing.TB) *pgxpool.Pool {
	t.Helper()
	url := enginetest.NewDatabase(t)
	dir, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url, dir, pgschema.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": pgschema.ViewsSchema}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func empty(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), `
		TRUNCATE positions, quarantine, users, devices, contacts, blocks, user_threads,
			threads, members, watermarks, device_watermarks, messages, trimmed, rejected, invitations,
			user_invitations`); err != nil {
		t.Fatal(err)
	}
}

func config(partitions int) threads.Config {
	return threads.Config{
		Consumer: kafka.ConsumerConfig{Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Partitions: partitions},
	}
}

func seeded(seed uint64) func(int) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(n int) int { return r.IntN(n) }
}

func world(seed uint64, n int) []eventtest.Step {
	w := eventtest.NewWorld(5, seeded(seed))
	w.Unreadable, w.Partitions = true, 3
	return w.Steps(n)
}

func reference(t testing.TB, l *sinktest.Log) *verify.Reference {
	t.Helper()
	return fill(t, l, verify.NewReference(3))
}

// brokenReference is one whose fold is Brittle.
func brokenReference(t testing.TB, l *sinktest.Log) *verify.Reference {
	t.Helper()
	ref := verify.NewReference(3)
	ref.OnFold(sinktest.Brittle)
	return fill(t, l, ref)
}

func fill(t testing.TB, l *sinktest.Log, ref *verify.Reference) *verify.Reference {
	t.Helper()
	if err := sinktest.Feed(context.Background(), l, ref, sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	return ref
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func mustEqual(t fataler, pool *pgxpool.Pool, ref *verify.Reference, retention time.Duration) {
	t.Helper()
	diffs, err := verify.CompareThreads(context.Background(), pool, ref, retention)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if len(diffs) > 0 {
		t.Fatalf("%d differences, the first: %v", len(diffs), diffs[0])
	}
}

func TestViewsEqualTheFoldWhereverTheLogIsCut(t *testing.T) {
	pool := newViews(t)
	rapid.Check(t, func(rt *rapid.T) {
		empty(t, pool)
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") }
		w := eventtest.NewWorld(4, pick)
		w.Unreadable, w.Partitions = true, 3
		l := sinktest.NewLog(w.Steps(rapid.IntRange(1, 120).Draw(rt, "steps")))
		cfg := config(3)
		cfg.CacheBytes = rapid.SampledFrom([]int{1, 4000, 1 << 20}).Draw(rt, "cache")
		cfg.CopyRows = rapid.SampledFrom([]int{1, 10, 2000}).Draw(rt, "copy")
		sink := threads.NewSink(cfg, pool, nil, nil)
		err := sinktest.Feed(context.Background(), l, sink, sinktest.Options{
			Cut:    func() int { return rapid.IntRange(1, 40).Draw(rt, "cut") },
			Reopen: func() bool { return rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 },
		})
		if err != nil {
			rt.Fatalf("feed: %v", err)
		}
		mustEqual(rt, pool, reference(t, l), 0)
	})
}

// A message that comes again is found, whether its thread is in the cache, was loaded, or was loaded before others
// came.
func TestRetriesAreFoundInTheTables(t *testing.T) {
	pool := newViews(t)
	for _, cache := range []int{1, 1 << 20} {
		empty(t, pool)
		cfg := config(3)
		cfg.CacheBytes = cache
		l, feed := sinktest.Retries(3, 5)
		if err := sinktest.Feed(t.Context(), l, threads.NewSink(cfg, pool, nil, nil), feed); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, pool, reference(t, l), 0)
	}
}

// Who is invited is found in the tables, whoever was so before and however his invitation ended.
func TestInvitationsAreFoundInTheTables(t *testing.T) {
	pool := newViews(t)
	l := sinktest.NewLog(sinktest.Invitations(3))
	for name, how := range map[string]sinktest.Options{"one by one": sinktest.OneByOne(), "at once": {}} {
		t.Run(name, func(t *testing.T) {
			empty(t, pool)
			if err := sinktest.Feed(t.Context(), l, threads.NewSink(config(3), pool, nil, nil), how); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, pool, reference(t, l), 0)
			var open int
			err := pool.QueryRow(t.Context(), "SELECT count(*) FROM invitations").Scan(&open)
			if err != nil || open != 3 {
				t.Errorf("%d are invited, %v, want 3", open, err)
			}
		})
	}
}

// What a batch reads does not grow with what its thread has seen within the window.
func TestBusyThreadIsNotReadAgain(t *testing.T) {
	pool := newViews(t)
	l, _ := sinktest.Retries(3, 1000)
	cfg := config(3)
	cfg.CacheBytes = 1
	sink := threads.NewSink(cfg, pool, nil, nil)
	if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{Cut: func() int { return 10 }}); err != nil {
		t.Fatal(err)
	}
	pool.Close() // its connections tell what they did when they end
	after, err := pgxpool.NewWithConfig(t.Context(), pool.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	var wrote, read int64
	for wrote < 3000 {
		const q = `
			SELECT sum(n_tup_ins), sum(seq_tup_read + idx_tup_fetch)
			FROM pg_stat_user_tables WHERE relname LIKE 'messages%'`
		if err := after.QueryRow(t.Context(), q).Scan(&wrote, &read); err != nil {
			t.Fatal(err)
		}
	}
	if read > wrote {
		t.Errorf("%d messages were read to store %d, in batches of 10", read, wrote)
	}
}

// TestBrokenFoldStopsItsSubject: wherever the log is cut, views and reference put the same events into quarantine when
// the fold panics on some.
func TestBrokenFoldStopsItsSubject(t *testing.T) {
	pool := newViews(t)
	for seed := range uint64(4) {
		empty(t, pool)
		l := sinktest.NewLog(world(seed, 300))
		cfg := config(3)
		cfg.CacheBytes = []int{1, 1 << 20}[seed%2]
		pick, reg, reported := seeded(seed+100), prometheus.NewRegistry(), 0
		cfg.Report = func(_ string, q projector.Quarantined) {
			if q.Reason == projector.FoldPanicked {
				reported++
			}
		}
		sink := threads.NewSink(cfg, pool, nil, reg)
		sink.OnFold(sinktest.Brittle)
		err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{
			Cut: func() int { return 1 + pick(60) }, Reopen: func() bool { return pick(9) == 0 },
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		mustEqual(t, pool, brokenReference(t, l), 0)
		var stored int
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM quarantine WHERE reason = $1`,
			projector.FoldPanicked).Scan(&stored); err != nil {
			t.Fatal(err)
		}
		if counted := sinktest.Counter(reg, "helio_threads_fold_panics_total"); stored == 0 || reported != stored ||
			int(counted) != stored {
			t.Errorf("seed %d: %d events in quarantine because of the fold, %d reported, %v counted",
				seed, stored, reported, counted)
		}
	}
}

// fault breaks connections, in the middle of whatever they are at.
type fault struct {
	in    atomic.Int64 // reads and writes until the failure; negative: none
	fired atomic.Int64
}

func (f *fault) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &breakable{Conn: c, f: f}, nil
}

type breakable struct {
	net.Conn
	f *fault
}

func (b *breakable) count() error {
	if b.f.in.Add(-1) != 0 {
		return nil
	}
	b.f.fired.Add(1)
	// should the pool swallow this one, for it was found on an idle connection, then a later one
	b.f.in.CompareAndSwap(0, 500)
	return errors.Join(net.ErrClosed, b.Conn.Close())
}

func (b *breakable) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if ferr := b.count(); ferr != nil {
		return 0, ferr // what the server has done by now the client does not learn
	}
	return n, err
}

func (b *breakable) Write(p []byte) (int, error) {
	if err := b.count(); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

func TestEveryConnectionMayBreakAtAnyStatement(t *testing.T) {
	pool := newViews(t)
	f := &fault{}
	pc := pool.Config()
	pc.ConnConfig.DialFunc = f.dial
	breaking, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	defer breaking.Close()
	l := sinktest.NewLog(world(7, 600))
	ref := reference(t, l)
	for copyRows, breaks := range map[int]int64{2000: 60, 1: 20} { // ten did not show a position that is ahead
		// How many breaks a life of the view sees hangs on how the pool shares out its connections: it lives again,
		// from nothing, until there were enough.
		f.fired.Store(0)
		fenced := 0
		pick := seeded(uint64(copyRows))
		for life := 0; f.fired.Load() < breaks; life++ {
			if life == 20 {
				t.Fatalf("only %d breaks in %d lives", f.fired.Load(), life)
			}
			empty(t, pool)
			cfg := config(3)
			cfg.CopyRows = copyRows
			cfg.CacheBytes = 20_000
			sink := threads.NewSink(cfg, breaking, nil, nil)
			f.in.Store(1)
			for {
				err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{
					Cut: func() int { return 1 + pick(60) },
					Fault: func(err error) bool {
						f.in.Store(int64(1 + pick(25)))
						if errors.Is(err, kafka.ErrFenced) {
							fenced++ // the transaction was there, only its answer was lost
							return true
						}
						if kafka.IsPermanent(err) {
							t.Fatalf("a broken connection counts as permanent: %v", err)
						}
						return false
					},
				})
				if err == nil {
					break
				}
				f.in.Store(int64(1 + pick(25))) // Open failed
			}
			f.in.Store(-1)
			mustEqual(t, pool, ref, 0)
		}
		t.Logf("copy from %d rows: %d breaks, %d found committed", copyRows, f.fired.Load(), fenced)
	}
}

// hole is a dialer whose connections can be made to swallow all that is sent, as a network does that has lost a server.
type hole struct{ open atomic.Bool }

func (h *hole) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &swallowing{Conn: c, h: h}, nil
}

type swallowing struct {
	net.Conn
	h *hole
}

func (s *swallowing) Write(p []byte) (int, error) {
	if s.h.open.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// A server that falls silent in the middle holds a slot for Timeout at most; the attempt is transient, and the rows are
// right once it speaks again.
func TestSilentServerIsGivenUp(t *testing.T) {
	pool := newViews(t)
	h := &hole{}
	pc := pool.Config()
	pc.ConnConfig.DialFunc = h.dial
	pc.ConnConfig.ConnectTimeout = time.Second
	silent, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	l := sinktest.NewLog(world(11, 200))
	cfg := config(3)
	cfg.SetTimeout(time.Second)
	sink := threads.NewSink(cfg, silent, nil, nil)
	batches, failures := 0, 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // the test's own end
	defer cancel()
	err = sinktest.Feed(ctx, l, sink, sinktest.Options{
		Cut: func() int {
			batches++
			h.open.Store(batches == 2)
			return 20
		},
		Fault: func(err error) bool {
			failures++
			h.open.Store(false)
			if kafka.IsPermanent(err) {
				t.Errorf("a silent server counts as permanent: %v", err)
			}
			return ctx.Err() != nil || errors.Is(err, kafka.ErrFenced)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if failures == 0 {
		t.Error("no attempt failed")
	}
	mustEqual(t, pool, reference(t, l), 0)

	h.open.Store(true)
	if _, err := sink.Open(ctx, l.Slots()[0]); err == nil || ctx.Err() != nil {
		t.Errorf("a slot was opened at a silent server: %v", err)
	}
	h.open.Store(false)
}

func TestZombieIsFenced(t *testing.T) {
	pool := newViews(t)
	l := sinktest.NewLog(world(3, 120))
	ctx := t.Context()
	slot := l.Slots()[0]
	open := func() (*threads.Sink, kafka.Positions) {
		s := threads.NewSink(config(3), pool, nil, nil)
		next, err := s.Open(ctx, slot)
		if err != nil {
			t.Fatal(err)
		}
		return s, next
	}
	zombie, at := open()
	first := l.Batch(slot, at, nil, 10)
	if err := zombie.Apply(ctx, first); err != nil {
		t.Fatal(err)
	}
	heir, next := open()
	if err := heir.Apply(ctx, l.Batch(slot, next, nil, 7)); err != nil {
		t.Fatal(err)
	}
	err := zombie.Apply(ctx, l.Batch(slot, first.To, nil, 9))
	if !errors.Is(err, kafka.ErrFenced) {
		t.Fatalf("the zombie got %v, want ErrFenced", err)
	}
	// A third that never saw a position cannot begin anew either.
	if err := zombie.Apply(ctx, first); !errors.Is(err, kafka.ErrFenced) {
		t.Fatalf("the zombie got %v, want ErrFenced", err)
	}
	zombie.Close(slot, true)
	heir.Close(slot, false)
	if err := sinktest.Feed(ctx, l, threads.NewSink(config(3), pool, nil, nil), sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, pool, reference(t, l), 0)
}

func TestPoisonParksItsSubjectAndIsReportedOnce(t *testing.T) {
	pool := newViews(t)
	l := sinktest.NewLog(world(11, 300))
	var reported []projector.Quarantined
	cfg := config(3)
	cfg.Report = func(view string, q projector.Quarantined) {
		if view != "threads" {
			t.Errorf("view %q", view)
		}
		reported = append(reported, q)
	}
	pick := seeded(5)
	err := sinktest.Feed(
		t.Context(), l, threads.NewSink(cfg, pool, nil, nil),
		sinktest.Options{Cut: func() int { return 1 + pick(20) }, Reopen: func() bool { return pick(4) == 0 }},
	)
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, pool, reference(t, l), 0)
	var parked, first int
	if err := pool.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE reason = 'parked'), count(*) FILTER (WHERE reason <> 'parked')
		FROM quarantine`).Scan(&parked, &first); err != nil {
		t.Fatal(err)
	}
	if parked == 0 || first == 0 || len(reported) != first {
		t.Errorf("%d parked, %d first, %d reported", parked, first, len(reported))
	}
}

func TestRebuildGivesTheSameRows(t *testing.T) {
	pool := newViews(t)
	l := sinktest.NewLog(world(13, 2500))
	ref := reference(t, l)
	for _, cut := range []int{17, 100_000} { // as it came, and in one go through COPY
		empty(t, pool)
		cfg := config(3)
		cfg.CopyRows = 500
		sink := threads.NewSink(cfg, pool, nil, nil)
		if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{Cut: func() int { return cut }}); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, pool, ref, 0)
	}
}

func TestTrimTakesOnlyTheTail(t *testing.T) {
	pool := newViews(t)
	steps := world(18, 1500) // months of log time
	half := len(steps) / 2
	cfg := config(3)
	cfg.Retention, cfg.CacheBytes = 72*time.Hour, 1
	cfg.SetTrimRows(10)
	sink := threads.NewSink(cfg, pool, nil, nil)
	count := func() (n int) {
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM messages").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	rejected := func() (old int) {
		if err := pool.QueryRow(t.Context(), `
			SELECT count(*) FROM rejected r JOIN positions p USING (slot)
			 WHERE p.topic = $1 AND r.log_time < p.log_time - interval '72 hours'`,
			topic.Threads.Number()).Scan(&old); err != nil {
			t.Fatal(err)
		}
		return old
	}
	gone := 0 // rejected messages
	trim := func(l *sinktest.Log) {
		for _, s := range l.Slots() {
			if _, err := sink.Open(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			defer sink.Close(s, false)
		}
		before := count()
		gone += rejected()
		const snapshot = "CREATE TABLE were AS SELECT thread_id, position, log_time FROM messages"
		if _, err := pool.Exec(t.Context(), snapshot); err != nil {
			t.Fatal(err)
		}
		if err := sink.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		// What is noted of a thread is exactly what has gone.
		var wrong, noted int
		if err := pool.QueryRow(t.Context(), `
			SELECT count(*) FILTER (WHERE (n.position, n.log_time) IS DISTINCT FROM (g.position, g.log_time)),
			       count(n.position)
			  FROM (SELECT w.thread_id, max(w.position) AS position, max(w.log_time) AS log_time FROM were w
			         WHERE NOT EXISTS (
			               SELECT 1 FROM messages m WHERE m.thread_id = w.thread_id AND m.position = w.position)
			         GROUP BY 1) g
			  LEFT JOIN trimmed n USING (thread_id)`).Scan(&wrong, &noted); err != nil {
			t.Fatal(err)
		}
		if wrong > 0 || noted == 0 {
			t.Errorf("of %d threads that were trimmed, %d are noted wrongly", noted, wrong)
		}
		if _, err := pool.Exec(t.Context(), "DROP TABLE were"); err != nil {
			t.Fatal(err)
		}
		if after := count(); after >= before {
			t.Errorf("%d messages before trimming, %d after", before, after)
		}
		if old := rejected(); old > 0 {
			t.Errorf("%d rejected messages are left from before the tail", old)
		}
	}
	// States are loaded again for every batch, after trimming: verdicts must not change.
	first, whole := sinktest.NewLog(steps[:half]), sinktest.NewLog(steps)
	if err := sinktest.Feed(t.Context(), first, sink, sinktest.Options{Cut: func() int { return 40 }}); err != nil {
		t.Fatal(err)
	}
	trim(first)
	mustEqual(t, pool, reference(t, first), cfg.Retention)
	if err := sinktest.Feed(t.Context(), whole, sink, sinktest.Options{Cut: func() int { return 40 }}); err != nil {
		t.Fatal(err)
	}
	trim(whole)
	mustEqual(t, pool, reference(t, whole), cfg.Retention)
	// The migration that made the table finds the same threads by what is left of them.
	migration, err := fs.ReadFile(pgschema.FS, "views/00003_trimmed.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, insert, _ := strings.Cut(string(migration), "INSERT INTO")
	for _, sql := range []string{
		"CREATE TABLE noted AS SELECT * FROM trimmed", "TRUNCATE trimmed", "INSERT INTO" + insert,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var missing, extra int
	if err := pool.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE n.position IS NOT NULL
		           AND (t.position IS NULL OR t.position < n.position OR t.log_time < n.log_time)),
		       count(*) FILTER (WHERE n.position IS NULL)
		  FROM noted n FULL JOIN trimmed t USING (thread_id)`).Scan(&missing, &extra); err != nil {
		t.Fatal(err)
	}
	if missing+extra > 0 {
		t.Errorf("the migration misses %d threads that were trimmed, and finds %d that were not", missing, extra)
	}
	var oldest time.Time
	for _, s := range whole.Slots() {
		var latest time.Time
		err := pool.QueryRow(t.Context(), `
			SELECT p.log_time, min(m.log_time) FROM positions p JOIN messages m USING (slot)
			WHERE p.topic = $2 AND p.slot = $1
				AND m.thread_id NOT IN (SELECT subject FROM quarantine WHERE topic = $2)
			GROUP BY 1`, int32(s), topic.Threads.Number()).Scan(&latest, &oldest)
		if err != nil {
			t.Fatal(err)
		}
		if latest.Sub(oldest) > cfg.Retention {
			t.Errorf("slot %d keeps a message of %v, its latest is %v", s, oldest, latest)
		}
	}
	if gone == 0 {
		t.Error("nothing was rejected long before the end")
	}
}

// A plan of trimming that was made over an empty table is not used for a full one.
func TestTrimReadsWhatItRemoves(t *testing.T) {
	admin := newViews(t)
	pc := admin.Config()
	pc.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	exec := func(q string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	const slots, rows = 8, 4000
	exec("ANALYZE messages")
	exec("INSERT INTO positions SELECT 1, s, 1, '2026-03-01' FROM generate_series(0, 7) s")
	sink := threads.NewSink(config(slots), pool, nil, nil)
	trim := func() {
		t.Helper()
		for n := range topic.Slot(slots) {
			if _, err := sink.Open(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	trim() // a statement for each slot: enough to settle on one plan
	exec(fmt.Sprintf(`
		INSERT INTO messages
		SELECT md5('t'||(i%%200))::uuid, i, i/200+1, 10, md5('u')::uuid, md5('m'||i)::uuid,
			'2026-01-01'::timestamptz, i%%8, ''
		FROM generate_series(1, %d) i`, rows))
	trim()
	pool.Close() // its connection tells what it read when it ends
	var gone, read int64
	for gone < rows {
		if err := admin.QueryRow(t.Context(), `
			SELECT sum(n_tup_del), sum(seq_tup_read + idx_tup_fetch)
			FROM pg_stat_user_tables WHERE relname LIKE 'messages%'`).Scan(&gone, &read); err != nil {
			t.Fatal(err)
		}
	}
	if read > 2*slots*rows {
		t.Errorf("%d rows were read to remove %d", read, gone)
	}
}

func TestMissingTableIsPermanent(t *testing.T) {
	pool := newViews(t)
	l := sinktest.NewLog(world(19, 50))
	if _, err := pool.Exec(t.Context(), "DROP TABLE members"); err != nil {
		t.Fatal(err)
	}
	err := sinktest.Feed(t.Context(), l, threads.NewSink(config(3), pool, nil, nil), sinktest.Options{})
	var pg *pgconn.PgError
	if !kafka.IsPermanent(err) || !errors.As(err, &pg) {
		t.Errorf("got %v, want a permanent error of Postgres", err)
	}
}

func TestConfig(t *testing.T) {
	if err := (threads.Config{Retention: time.Hour}).Validate(); err == nil {
		t.Error("a retention of an hour was accepted")
	}
	if err := config(3).Validate(); err != nil {
		t.Error(err)
	}
}
