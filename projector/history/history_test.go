package history_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/projector/history"
	"heliograph/projector/sinktest"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// newHistory returns a connection to an empty history.
func newHistory(t testing.TB) driver.Conn {
	t.Helper()
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	return open(t, clickhouse.Config{Addr: []string{addr}, Database: database, Password: password})
}

// open brings a history up to date and returns a connection to it.
func open(t testing.TB, cfg clickhouse.Config) driver.Conn {
	t.Helper()
	dir, err := fs.Sub(chschema.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), cfg, dir); err != nil {
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
	return conn
}

func config() history.Config {
	return history.Config{
		Consumer: kafka.ConsumerConfig{Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Partitions: 2},
	}
}

func seeded(seed uint64) func(int) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(n int) int { return r.IntN(n) }
}

func world(seed uint64, n int) *sinktest.Log {
	return sinktest.NewLog(worldSteps(seed, n), history.Topics...)
}

func worldSteps(seed uint64, n int) []eventtest.Step {
	w := eventtest.NewWorld(5, seeded(seed))
	w.Unreadable, w.Partitions = true, 2
	return w.Steps(n)
}

// eventful is the first world, from a seed on, in which messages are changed and members invited: it has rows for every
// table.
func eventful(seed uint64, n int) *sinktest.Log {
	for ; ; seed++ {
		steps := worldSteps(seed, n)
		threads, changed, invited := map[topic.Subject]*thread.State{}, 0, 0
		for _, s := range steps {
			if s.Topic != topic.Threads || s.Event == nil {
				continue
			}
			if threads[s.Subject] == nil {
				threads[s.Subject] = thread.New(id.ThreadID(s.Subject))
			}
			v := threads[s.Subject].Apply(s.Event, s.Position, s.TimeMS)
			switch e := s.Event; {
			case v.Outcome != thread.Accepted:
			case e.HasMessageEdited(), e.HasMessageDeleted(), e.HasReactionSet():
				changed++
			case e.HasMemberInvited():
				invited++
			}
		}
		if changed >= 3 && invited >= 3 {
			return sinktest.NewLog(steps, history.Topics...)
		}
	}
}

func reference(t testing.TB, l *sinktest.Log) *verify.Reference {
	t.Helper()
	return fill(t, l, verify.NewReference(2))
}

// brokenReference is one whose fold is Brittle.
func brokenReference(t testing.TB, l *sinktest.Log) *verify.Reference {
	t.Helper()
	ref := verify.NewReference(2)
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

func mustEqual(t *testing.T, conn driver.Conn, ref *verify.Reference, final bool) {
	t.Helper()
	diffs, err := verify.CompareHistory(t.Context(), conn, ref, final)
	if err != nil {
		t.Fatal(err)
	}
	if len(diffs) > 0 {
		t.Fatalf("%d differences, the first: %v", len(diffs), diffs[0])
	}
}

func TestHistoryEqualsTheFoldWhereverTheLogIsCut(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			conn := newHistory(t)
			l := world(seed, 250)
			cfg := config()
			cfg.CacheBytes = []int{1, 10_000, 1 << 20}[seed%3]
			cfg.Recent = []int{1, 3, 0, 2}[seed%4]
			pick := seeded(seed + 100)
			err := sinktest.Feed(t.Context(), l, history.NewSink(cfg, conn, nil, nil), sinktest.Options{
				Cut: func() int { return 1 + pick(80) }, Reopen: func() bool { return pick(4) == 0 },
			})
			if err != nil {
				t.Fatal(err)
			}
			mustEqual(t, conn, reference(t, l), false)
		})
	}
}

// A message that comes again is found, whether its thread is in the cache, was loaded with all its recent messages, or
// with some.
func TestRetriesAreFoundInTheTables(t *testing.T) {
	for _, cache := range []int{1, 1 << 20} {
		for _, filler := range []int{5, 300} {
			t.Run(fmt.Sprintf("cache %d, %d others", cache, filler), func(t *testing.T) {
				conn := newHistory(t)
				cfg := config()
				cfg.CacheBytes = cache
				l, feed := sinktest.Retries(2, filler)
				if err := sinktest.Feed(t.Context(), l, history.NewSink(cfg, conn, nil, nil), feed); err != nil {
					t.Fatal(err)
				}
				mustEqual(t, conn, reference(t, l), false)
			})
		}
	}
}

// Who is invited is found in the tables, whoever was so before and however his invitation ended.
func TestInvitationsAreFoundInTheTables(t *testing.T) {
	l := sinktest.NewLog(sinktest.Invitations(2))
	for name, how := range map[string]sinktest.Options{"one by one": sinktest.OneByOne(), "at once": {}} {
		t.Run(name, func(t *testing.T) {
			conn := newHistory(t)
			if err := sinktest.Feed(t.Context(), l, history.NewSink(config(), conn, nil, nil), how); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, conn, reference(t, l), false)
		})
	}
}

// What holds over HTTP holds over the native protocol: the same statements, types and settings, in compressed blocks.
func TestNativeProtocol(t *testing.T) {
	addr, database := enginetest.NativeClickHouse(t, nil, "helio", "heliotrope")
	conn := open(t, clickhouse.Config{
		Addr:     []string{addr},
		Database: database,
		Protocol: clickhouse.Native,
		User:     "helio",
		Password: "heliotrope",
	})
	l := world(5, 250)
	pick := seeded(105)
	err := sinktest.Feed(t.Context(), l, history.NewSink(config(), conn, nil, nil), sinktest.Options{
		Cut: func() int { return 1 + pick(80) }, Reopen: func() bool { return pick(4) == 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, conn, reference(t, l), false)
}

// TestBrokenFoldStopsItsSubject: wherever the log is cut, history and reference put the same events into quarantine
// when the fold panics on some.
func TestBrokenFoldStopsItsSubject(t *testing.T) {
	conn, l, pick, reg := newHistory(t), world(2, 250), seeded(7), prometheus.NewRegistry()
	cfg := config()
	cfg.CacheBytes = 1 << 20
	sink := history.NewSink(cfg, conn, nil, reg)
	sink.OnFold(sinktest.Brittle)
	err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{
		Cut: func() int { return 1 + pick(20) }, Reopen: func() bool { return pick(9) == 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, conn, brokenReference(t, l), false)
	var stored uint64
	if err := conn.QueryRow(t.Context(), `SELECT count() FROM quarantine FINAL WHERE reason = ?`,
		projector.FoldPanicked).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if counted := sinktest.Counter(reg, "helio_history_fold_panics_total"); stored == 0 || uint64(counted) != stored {
		t.Errorf("%d events in quarantine because of the fold, %v counted", stored, counted)
	}
}

// failing is a connection that fails at an insert: before it, or after it was done, as when the answer is lost.
type failing struct {
	driver.Conn
	in    int // inserts until the failure; negative: none
	after bool
	fired int
}

var errInjected = errors.New("injected")

func (f *failing) PrepareBatch(
	ctx context.Context, query string, opts ...driver.PrepareBatchOption,
) (driver.Batch, error) {
	b, err := f.Conn.PrepareBatch(ctx, query, opts...)
	if err != nil || strings.Contains(query, "INTO owners ") { // opening is the consumer's to repeat
		return b, err
	}
	return &failingBatch{Batch: b, f: f}, nil
}

type failingBatch struct {
	driver.Batch
	f *failing
}

func (b *failingBatch) Send() error {
	b.f.in--
	if b.f.in != 0 {
		return b.Batch.Send()
	}
	b.f.fired++
	if b.f.after {
		if err := b.Batch.Send(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errInjected, context.DeadlineExceeded) // transient
}

func TestKilledBetweenBegunAndDone(t *testing.T) {
	l := eventful(43, 300)
	ref := reference(t, l)
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			conn := newHistory(t)
			stopMerges(t, conn)
			f := &failing{Conn: conn, after: after, in: 2}
			pick := seeded(8)
			cfg := config()
			cfg.CacheBytes = 20_000
			err := sinktest.Feed(t.Context(), l, history.NewSink(cfg, f, nil, nil), sinktest.Options{
				Cut: func() int { return 20 + pick(60) }, // another cut than before: the begun range must come exactly
				Fault: func(err error) bool {
					if !errors.Is(err, errInjected) || kafka.IsPermanent(err) {
						t.Fatal(err)
					}
					f.in = 1 + pick(9+f.fired/8) // more and more, or a batch with rows for all tables would never be in
					return pick(3) > 0           // a new owner, or the same one again
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if f.fired < 5 {
				t.Errorf("only %d failures", f.fired)
			}
			mustEqual(t, conn, ref, false)
			// Not one row came twice: what is summed up as rows come in, and not only merged away later, is right too.
			single(t, conn)
		})
	}
}

// single wants each row to have been inserted once. Merges must be stopped from the beginning, or they hide it.
func single(t *testing.T, conn driver.Conn) {
	t.Helper()
	for table, key := range map[string]string{
		"messages": "thread_id, position", "thread_events": "thread_id, position",
		"message_changes": "thread_id, author_id, message_id, position", "memberships": "thread_id, user_id, position",
		"invitations": "thread_id, user_id, position", "receipts": "thread_id, user_id, device_id, position",
	} {
		var rows, keys uint64
		q := fmt.Sprintf("SELECT count(), uniqExact(%s) FROM %s", key, table)
		if err := conn.QueryRow(t.Context(), q).Scan(&rows, &keys); err != nil {
			t.Fatal(err)
		}
		if rows != keys || rows == 0 {
			t.Errorf("%s: %d rows for %d keys", table, rows, keys)
		}
	}
}

// stopMerges keeps rows apart that were inserted apart.
func stopMerges(t *testing.T, conn driver.Conn) {
	t.Helper()
	for _, table := range []string{
		"messages", "thread_events", "message_changes", "memberships", "invitations", "receipts",
	} {
		if err := conn.Exec(t.Context(), "SYSTEM STOP MERGES "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// taker takes a slot over, by another sink, at the n-th insert into a table; before it reaches the engine.
type taker struct {
	driver.Conn
	table string
	in    int
	take  func()
}

func (k *taker) PrepareBatch(
	ctx context.Context, query string, opts ...driver.PrepareBatchOption,
) (driver.Batch, error) {
	if strings.Contains(query, "INTO "+k.table+" ") {
		if k.in--; k.in == 0 {
			k.take()
		}
	}
	return k.Conn.PrepareBatch(ctx, query, opts...)
}

// TestZombieIsFenced: a writer that another has taken the slot from, at whatever moment, stops with ErrFenced, and
// leaves behind no position and no row that the other has not, nor one of them twice.
func TestZombieIsFenced(t *testing.T) {
	l := world(22, 300)
	ref := reference(t, l)
	for _, c := range []struct {
		name, table string
		in          int
	}{
		{"before its batch is begun", "positions", 3},
		{"between begun and its rows", "messages", 2},
		{"amid its rows", "receipts", 2},
		{"before its batch is done", "positions", 4},
		{"between two batches", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newHistory(t)
			stopMerges(t, conn)
			heir := history.NewSink(config(), conn, nil, nil)
			cut := 40
			options := sinktest.Options{Cut: func() int { return cut }}
			k := &taker{Conn: conn, table: c.table, in: c.in, take: func() {
				cut = 55 // other batches than the zombie's
				if err := sinktest.Feed(t.Context(), l, heir, options); err != nil {
					t.Fatal(err)
				}
				cut = 40
			}}
			zombie := history.NewSink(config(), k, nil, nil)
			batches := 0
			var err error
			next, oerr := zombie.Open(t.Context(), 0)
			if oerr != nil {
				t.Fatal(oerr)
			}
			for ; err == nil && batches < 20; batches++ {
				if c.table == "" && batches == 2 {
					k.take()
				}
				b := l.Batch(0, next, nil, cut)
				if len(b.Records) == 0 {
					break
				}
				err = zombie.Apply(t.Context(), b)
				next = b.To
			}
			if !errors.Is(err, kafka.ErrFenced) {
				t.Fatalf("after %d batches: %v, want that it is fenced", batches, err)
			}
			mustEqual(t, conn, ref, false)
			single(t, conn)
		})
	}
}

// TestTakeOverSeesAll: what the owner of before has written until the moment in which the slot is taken from it, the
// new one finds.
func TestTakeOverSeesAll(t *testing.T) {
	conn := newHistory(t)
	stopMerges(t, conn)
	l := world(22, 300)
	before := history.NewSink(config(), conn, nil, nil)
	next, err := before.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// as the heir says that it takes over, and before that is so
	k := &taker{Conn: conn, table: "owners", in: 1, take: func() {
		for range 2 {
			b := l.Batch(0, next, nil, 15)
			if err := before.Apply(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			next = b.To
		}
	}}
	heir := history.NewSink(config(), k, nil, nil)
	cuts := sinktest.Options{Cut: func() int { return 40 }}
	if err := sinktest.Feed(t.Context(), l, heir, cuts); err != nil {
		t.Fatal(err)
	}
	if err := before.Apply(t.Context(), l.Batch(0, next, nil, 15)); !errors.Is(err, kafka.ErrFenced) {
		t.Errorf("the owner of before: %v, want ErrFenced", err)
	}
	mustEqual(t, conn, reference(t, l), false)
	single(t, conn)
}

func TestTwoWritersConverge(t *testing.T) {
	conn := newHistory(t)
	l := world(5, 200)
	a, b := seeded(1), seeded(2)
	for _, pick := range []func(int) int{a, b} {
		// The second does not know of the first: it begins at the beginning.
		cfg := config()
		if err := conn.Exec(t.Context(), "TRUNCATE TABLE positions"); err != nil {
			t.Fatal(err)
		}
		if err := conn.Exec(t.Context(), "TRUNCATE TABLE quarantine"); err != nil {
			t.Fatal(err)
		}
		sink := history.NewSink(cfg, conn, nil, nil)
		cuts := sinktest.Options{Cut: func() int { return 1 + pick(90) }}
		if err := sinktest.Feed(t.Context(), l, sink, cuts); err != nil {
			t.Fatal(err)
		}
	}
	mustEqual(t, conn, reference(t, l), true)
}

func TestRebuildUnderANewGeneration(t *testing.T) {
	conn := newHistory(t)
	l := world(6, 200)
	for generation := range uint32(2) {
		for _, table := range []string{
			"messages", "thread_events", "message_changes", "memberships", "invitations", "receipts", "quarantine",
		} {
			// Tokens outlive what they stood for.
			q := "ALTER TABLE " + table + " DELETE WHERE true SETTINGS mutations_sync = 2"
			if err := conn.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		cfg := config()
		cfg.Generation = generation + 1
		sink := history.NewSink(cfg, conn, nil, nil)
		if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{Cut: func() int { return 50 }}); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, conn, reference(t, l), false)
	}
}

// step makes a record of a small log written by hand.
func step(
	t *testing.T, tp topic.Topic, at topic.Position, ms int64, key []byte, e eventv1.Event_builder,
) eventtest.Step {
	t.Helper()
	value, err := proto.Marshal(e.Build())
	if err != nil {
		t.Fatal(err)
	}
	return eventtest.Step{Topic: tp, Position: at, TimeMS: ms, Key: key, Value: value}
}

func TestAnalystsViews(t *testing.T) {
	conn := newHistory(t)
	u := eventtest.NewWorld(3, seeded(0)).Users()
	a, b := u[0], u[1]
	th := id.DirectThread(a, b)
	m1, m2, dev := id.NewMessage(), id.NewMessage(), id.NewDevice()
	const t0 = 1_700_000_000_000
	sent := func(m id.MessageID, text string) *eventv1.MessageSent {
		return eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text(text), DirectPeer: b[:]}.Build()
	}
	steps := []eventtest.Step{
		step(t, topic.Threads, 0, t0, th[:], eventv1.Event_builder{UserId: a[:], MessageSent: sent(m1, "hello World")}),
		step(t, topic.Threads, 1, t0+1000, th[:], eventv1.Event_builder{UserId: a[:], MessageSent: sent(m2, "second")}),
		step(t, topic.Threads, 2, t0+2000, th[:], eventv1.Event_builder{
			UserId: a[:],
			MessageEdited: eventv1.MessageEdited_builder{
				MessageId: m1[:],
				Content:   eventtest.Text("hello all"),
			}.Build(),
		}),
		step(t, topic.Threads, 3, t0+3000, th[:], eventv1.Event_builder{
			UserId:         a[:],
			MessageDeleted: eventv1.MessageDeleted_builder{MessageId: m2[:]}.Build(),
		}),
		step(t, topic.Receipts, 0, t0+40, append(th[:], dev[:]...), eventv1.Event_builder{
			UserId:          b[:],
			DeviceId:        dev[:],
			WatermarksMoved: eventv1.WatermarksMoved_builder{DeliveredPosition: 0, DeliveredOrdinal: 1}.Build(),
		}),
		step(t, topic.Receipts, 1, t0+1100, append(th[:], dev[:]...), eventv1.Event_builder{
			UserId:   b[:],
			DeviceId: dev[:],
			WatermarksMoved: eventv1.WatermarksMoved_builder{
				DeliveredPosition: 1,
				DeliveredOrdinal:  2,
				ReadPosition:      1,
				ReadOrdinal:       2,
			}.Build(),
		}),
	}
	cfg := config()
	cfg.Consumer.Partitions = 0
	sink := history.NewSink(cfg, conn, nil, nil)
	if err := sinktest.Feed(t.Context(), sinktest.NewLog(steps), sink, sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	line := func(sql string) string {
		t.Helper()
		rows, err := conn.Query(t.Context(), "SELECT toString(tuple(*)) FROM ("+sql+")")
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		defer rows.Close()
		var out []string
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct{ sql, want string }{
		{"SELECT position, body, edited, deleted FROM messages_current ORDER BY position",
			"(0,'hello all',1,0) (1,'',0,1)"},
		{"SELECT position, delivered_ms, read_ms FROM delivery_latency ORDER BY position", "(0,40,1100) (1,100,100)"},
		{"SELECT day, users FROM daily_active_users", "('2023-11-14',2)"},
		{"SELECT month, users FROM monthly_active_users", "('2023-11-01',2)"},
		{"SELECT messages, senders, threads FROM messages_per_minute", "(2,1,1)"},
		{"SELECT messages, senders FROM busiest_threads", "(2,1)"},
		{"SELECT position FROM messages WHERE hasAllTokens(body, 'world hello')", "(0)"},
	} {
		if got := line(c.sql); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.sql, got, c.want)
		}
	}
}

// An engine that falls silent holds nobody for longer than its timeout, and counts as a transient failure.
func TestSilentEngineIsGivenUp(t *testing.T) {
	conn := newHistory(t)
	l := world(3, 50)
	cfg := config()
	cfg.SetTimeout(time.Second)
	cfg.SetInserts(1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // the test's own end
	defer cancel()
	for _, c := range []struct {
		name string
		mute mute
	}{
		{"query", mute{queries: true}},
		{"insert", mute{inserts: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.mute.Conn = conn
			err := sinktest.Feed(ctx, l, history.NewSink(cfg, &c.mute, nil, nil), sinktest.Options{})
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || kafka.IsPermanent(err) {
				t.Errorf("got %v, want a transient failure before the test's end", err)
			}
		})
	}
	cfg.SetTimeout(0) // the default; the one insert that may run is free again
	if err := sinktest.Feed(ctx, l, history.NewSink(cfg, conn, nil, nil), sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, conn, reference(t, l), true)
}

// mute is a connection on which queries, or inserts into the messages, are never answered.
type mute struct {
	driver.Conn
	queries, inserts bool
}

func (m *mute) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	if m.queries {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.Conn.Query(ctx, query, args...)
}

func (m *mute) PrepareBatch(
	ctx context.Context, query string, opts ...driver.PrepareBatchOption,
) (driver.Batch, error) {
	if m.inserts && strings.Contains(query, "INTO messages") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.Conn.PrepareBatch(ctx, query, opts...)
}

func TestBrokenEngineIsTransient(t *testing.T) {
	conn, err := clickhouse.Open(clickhouse.Config{Addr: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = history.NewSink(config(), conn, nil, nil).Open(t.Context(), 0)
	if err == nil || !clickhouse.Transient(err) {
		t.Errorf("got %v, want a transient error", err)
	}
}

// A projector of a higher generation rebuilds the history in place; one of a lower generation than the history's
// refuses, and says both.
func TestGeneration(t *testing.T) {
	conn := newHistory(t)
	l := world(3, 50)
	cfg := config()
	if err := sinktest.Feed(t.Context(), l, history.NewSink(cfg, conn, nil, nil), sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	cfg.Generation = 2
	if err := sinktest.Feed(t.Context(), l, history.NewSink(cfg, conn, nil, nil), sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, conn, reference(t, l), true)
	cfg.Generation = 1
	_, err := history.NewSink(cfg, conn, nil, nil).Open(t.Context(), l.Slots()[0])
	var other *history.GenerationError
	if !errors.As(err, &other) || *other != (history.GenerationError{Have: 2, Want: 1}) {
		t.Errorf("a projector of generation 1 opened a slot of generation 2: %v", err)
	}
}

// TestQuarantineIsSaidAgain: what was in quarantine and was taken back is in quarantine again when the same is said
// once more, in the same words.
func TestQuarantineIsSaidAgain(t *testing.T) {
	conn := newHistory(t)
	l := world(3, 200)
	ref := reference(t, l)
	for round := range 2 {
		sink := history.NewSink(config(), conn, nil, nil)
		if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, conn, ref, true)
		var n uint64
		const count = "SELECT count() FROM quarantine FINAL WHERE NOT released"
		if err := conn.QueryRow(t.Context(), count).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatalf("round %d: nothing is in quarantine", round)
		}
		for _, q := range []string{
			"INSERT INTO quarantine SELECT * REPLACE (true AS released) FROM quarantine FINAL",
			"ALTER TABLE positions DELETE WHERE true SETTINGS mutations_sync = 2", // what follows is taken in again
		} {
			if err := conn.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
}
