package projector_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	inhistory "heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	"heliograph/projector"
	"heliograph/projector/history"
	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

const partitions = 3

// version is how a version reads events.
type version = func(raw []byte) (*event.Event, error)

// versions are this one and two before it, from the oldest: what one did not know, the next does.
var versions = []version{
	event.As(1, lacking(
		eventv1.Event_ThreadRenamed_case, eventv1.Event_MemberLeft_case, eventv1.Event_ReactionSet_case,
		eventv1.Event_ContactSaved_case, eventv1.Event_DeviceLinked_case,
	)),
	event.As(event.Reader, lacking(eventv1.Event_ThreadRenamed_case, eventv1.Event_DeviceLinked_case)),
	event.Decode,
}

func lacking[T ~int32](types ...T) func(event.Type) bool {
	return func(t event.Type) bool { return event.Known(t) && !slices.Contains(types, T(t)) }
}

// laterOf makes an event one that only a reader of a version may apply.
func laterOf(value []byte, reader uint32) []byte {
	more, err := proto.Marshal(eventv1.Event_builder{MinReader: reader}.Build())
	if err != nil {
		panic(err) // a broken test
	}
	return slices.Concat(value, more)
}

// view is one of the stores, with what a test asks of it.
type view struct {
	topics []topic.Topic
	// open returns a sink of a version that knows nothing yet; with breaks its connections break.
	open func(v version, log projector.Log, breaks bool) kafka.Sink
	// arm has the next connection break after so many steps; negative: none.
	arm   func(steps int, done bool) // done: what breaks was done, and only its answer is lost
	empty func()
	diff  func(ref *verify.Reference) ([]verify.Difference, error)
	count func(sql string) int // a number
	// held is what is in quarantine: topic's number, position and the reason up to a colon.
	held    func() string
	parked  func() []projector.Quarantined // all, in order
	written string                         // counts what was ever written into quarantine
	pool    *pgxpool.Pool                  // of the thread views
	log     *slog.Logger
	// projector is the whole of this version, over a real log.
	projector func(cfg kafka.Config) (interface{ Run(context.Context) error }, error)
	portion   int // by which is drained; 0: now this, now that
	fences    bool
	reg       *prometheus.Registry // of all sinks
	kind      string
	cut       int // lives that ended while quarantine was drained
}

// counted is the sum of a counter over its labels.
func (v *view) counted(t *testing.T, name string) int {
	t.Helper()
	families, err := v.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "helio_"+v.kind+"_"+name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int(sum)
}

func (v *view) logOf(steps []eventtest.Step) *sinktest.Log {
	return sinktest.NewLog(steps, v.topics...)
}

// gauge is a gauge by its label.
func (v *view) gauge(t *testing.T, name string) string {
	t.Helper()
	families, err := v.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() == "helio_"+v.kind+"_"+name {
			for _, m := range f.GetMetric() {
				out = append(out, fmt.Sprintf("%s=%v", m.GetLabel()[0].GetValue(), m.GetGauge().GetValue()))
			}
		}
	}
	return strings.Join(out, " ")
}

// TestNewerVersionTakesOver: versions follow each other over one log, each killed anywhere, and what the last one
// leaves are the rows of a fold that knew everything from the beginning.
func TestNewerVersionTakesOver(t *testing.T) {
	t.Run("threads", func(t *testing.T) {
		v := threadViews(t)
		rapid.Check(t, func(rt *rapid.T) {
			takeOver(rt, v, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") })
		})
		v.mustHaveDrained(t)
	})
	t.Run("history", func(t *testing.T) {
		v := historyView(t)
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 4))
				takeOver(t, v, r.IntN)
			})
		}
		v.mustHaveDrained(t)
	})
}

// mustHaveDrained refuses a test that has shown nothing.
func (v *view) mustHaveDrained(t *testing.T) {
	t.Helper()
	drained, kept := v.counted(t, "drained_events_total"), v.counted(t, "undrained_subjects_total")
	t.Logf("%d events drained, %d times not to the end, %d times cut off", drained, kept, v.cut)
	if drained < 40 || kept < 1 || v.cut < 3 {
		t.Error("too little was drained to show anything")
	}
}

// exec runs a statement over the thread views.
func (v *view) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := v.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

func takeOver(t failer, v *view, pick func(n int) int) {
	ctx := context.Background()
	v.empty()
	w := eventtest.NewWorld(4, pick)
	w.Unreadable, w.Newer, w.Partitions = pick(2) == 0, pick(2) == 0, partitions
	steps := w.Steps(20 + pick(200))
	for i := range steps {
		if s := &steps[i]; pick(12) == 0 && !(len(s.Value) > 0 && s.Value[0] == 0xff) {
			s.Value = laterOf(s.Value, event.Reader)
		}
	}
	end := 0
	for n, decode := range versions {
		last := n == len(versions)-1
		if !last && pick(4) == 0 {
			continue // this version was passed over
		}
		if end += pick(len(steps) - end + 1); last {
			end = len(steps)
		}
		// The log is there as a whole: how far a version has come is when it was taken away.
		l := v.logOf(steps[:end])
		for lives := pick(6); ; lives-- {
			broken := lives > 0
			var again projector.Log = l
			if broken {
				again = brittle{l, pick}
			}
			sink := v.open(decode, again, broken)
			if broken {
				v.arm(1+pick(60), pick(2) == 0)
			}
			err := sinktest.Feed(ctx, l, sink, sinktest.Options{
				Cut: func() int { return 1 + pick(30) }, Reopen: func() bool { return pick(6) == 0 },
			})
			v.arm(-1, false)
			if err != nil && strings.Contains(err.Error(), "drain quarantine") {
				v.cut++
			}
			if err == nil && (!broken || pick(2) == 0) {
				break
			}
			if err != nil && !broken {
				t.Fatalf("version %d of %d: %v", n+1, len(versions), err)
			}
			if err != nil && kafka.IsPermanent(err) {
				t.Fatalf("a broken connection counts as permanent: %v", err)
			}
			if err != nil && !last && pick(3) == 0 {
				break // the next version comes to what this one has left
			}
		}
	}
	v.mustEqual(t, steps)
}

// brittle is a log that breaks off.
type brittle struct {
	projector.Log
	pick func(n int) int
}

// Records implements projector.Log.
func (b brittle) Records(
	ctx context.Context, t topic.Topic, s topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for r, err := range b.Log.Records(ctx, t, s, from, to) {
			if b.pick(60) == 0 {
				r, err = kafka.Record{}, errors.New("the log broke off")
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// mustEqual compares the view with a fold by this version of the whole log.
func (v *view) mustEqual(t failer, steps []eventtest.Step) {
	t.Helper()
	ref := verify.NewReference(partitions)
	if err := sinktest.Feed(context.Background(), v.logOf(steps), ref, sinktest.Options{}); err != nil {
		t.Fatalf("reference: %v", err)
	}
	diffs, err := v.diff(ref)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for i, d := range diffs {
		if i == 5 {
			break
		}
		t.Logf("%v", d)
	}
	if len(diffs) > 0 {
		t.Fatalf("%d differences", len(diffs))
	}
}

func threadViews(t *testing.T) *view {
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
	f := &fault{}
	f.in.Store(-1)
	pc := pool.Config()
	pc.ConnConfig.DialFunc = f.dial
	breaking, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(breaking.Close)
	n, reg := 0, prometheus.NewRegistry()
	v := &view{
		topics: threads.Topics, kind: "threads", reg: reg, pool: pool, fences: true,
		written: "SELECT sum(xmin::text::bigint) FROM quarantine",
		arm:     func(steps int, _ bool) { f.in.Store(int64(steps)) },
		empty: func() {
			const q = `TRUNCATE positions, quarantine, users, devices, contacts, blocks, user_threads, threads, members,
				watermarks, device_watermarks, messages, trimmed, rejected, invitations, user_invitations`
			if _, err := pool.Exec(context.Background(), q); err != nil {
				t.Fatal(err)
			}
		},
		diff: func(ref *verify.Reference) ([]verify.Difference, error) {
			return verify.CompareThreads(context.Background(), pool, ref, 0)
		},
		count: func(sql string) (n int) {
			if err := pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		},
	}
	v.open = func(as version, log projector.Log, breaks bool) kafka.Sink {
		n++
		cfg := threads.Config{Log: log, CopyRows: []int{2000, 5}[n%2], CacheBytes: []int{1, 5000, 1 << 20}[n%3]}
		cfg.Consumer.Partitions = partitions
		on := pool
		if breaks {
			on = breaking
		}
		s := threads.NewSink(cfg, on, v.log, reg)
		s.ReadAs(as)
		s.DrainBy(v.by(n))
		return s
	}
	v.projector = func(kc kafka.Config) (interface{ Run(context.Context) error }, error) {
		return threads.New(threads.Config{Consumer: kafka.ConsumerConfig{Kafka: kc}}, pool, v.log, reg)
	}
	v.held = func() (out string) {
		const q = `
			SELECT coalesce(string_agg(topic || '/' || position || ' ' || split_part(reason, ':', 1), ' '
			                           ORDER BY topic, position), '')
			  FROM quarantine`
		if err := pool.QueryRow(context.Background(), q).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	v.parked = func() (out []projector.Quarantined) {
		all, err := views.New(pool).Quarantine(context.Background(), views.Quarantined{}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			out = append(out, projector.Quarantined{
				Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject, Reason: q.Reason,
			})
		}
		return out
	}
	return v
}

// by is the size of the parts in which the n-th sink drains.
func (v *view) by(n int) (rows, bytes int) {
	if v.portion > 0 {
		return v.portion, 1 << 20
	}
	return []int{1, 3, 1000}[n%3], []int{1, 300, 1 << 20}[n/3%3]
}

func historyView(t *testing.T) *view {
	t.Helper()
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	cfg := clickhouse.Config{Addr: []string{addr}, Database: database, Password: password}
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
	f := &failing{Conn: conn, in: -1}
	generation, n, reg := uint32(0), 0, prometheus.NewRegistry()
	v := &view{
		topics: history.Topics, kind: "history", reg: reg, fences: true,
		written: `SELECT sum(rows) FROM system.parts
			WHERE table = 'quarantine' AND database = currentDatabase() AND active`,
		arm: func(steps int, done bool) { f.in, f.after = steps, done },
		empty: func() {
			generation++ // the engine remembers the tokens of rows that are gone
			for _, table := range []string{
				"messages", "thread_events", "message_changes", "memberships", "invitations", "receipts", "quarantine",
				"positions",
			} {
				if err := conn.Exec(context.Background(), "TRUNCATE TABLE "+table); err != nil {
					t.Fatal(err)
				}
			}
		},
		diff: func(ref *verify.Reference) ([]verify.Difference, error) {
			return verify.CompareHistory(context.Background(), conn, ref, true)
		},
		count: func(sql string) int {
			var n uint64
			if err := conn.QueryRow(context.Background(), sql).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return int(n)
		},
	}
	v.open = func(as version, log projector.Log, breaks bool) kafka.Sink {
		n++
		cfg := history.Config{
			Log: log, Generation: generation, CacheBytes: []int{1, 5000, 1 << 20}[n%3], Recent: []int{1, 3, 256}[n/3%3],
		}
		cfg.Consumer.Partitions = partitions
		on := conn
		if breaks {
			on = f
		}
		s := history.NewSink(cfg, on, v.log, reg)
		s.ReadAs(as)
		s.DrainBy(v.by(n))
		return s
	}
	v.projector = func(kc kafka.Config) (interface{ Run(context.Context) error }, error) {
		cfg := history.Config{Consumer: kafka.ConsumerConfig{Kafka: kc}, Generation: generation}
		return history.New(cfg, conn, v.log, reg)
	}
	v.held = func() (out string) {
		const q = `
			SELECT arrayStringConcat(arrayMap(x -> x.3, arraySort(groupArray((topic, position,
			       concat(toString(topic), '/', toString(position), ' ', splitByChar(':', reason)[1]))))), ' ')
			  FROM quarantine FINAL WHERE NOT released`
		if err := conn.QueryRow(context.Background(), q).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	v.parked = func() (out []projector.Quarantined) {
		all, err := inhistory.New(conn).Quarantine(context.Background(), inhistory.Quarantined{}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			out = append(out, projector.Quarantined{
				Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject, Reason: q.Reason,
			})
		}
		return out
	}
	return v
}

// fault breaks a connection in the middle of whatever it is at.
type fault struct {
	in atomic.Int64 // reads and writes until the failure; negative: none
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

// failing is a connection that fails at an insert: before it, or after it was done, as when the answer is lost.
type failing struct {
	driver.Conn
	in    int // inserts until the failure; negative: none
	after bool
}

func (f *failing) PrepareBatch(
	ctx context.Context, query string, opts ...driver.PrepareBatchOption,
) (driver.Batch, error) {
	b, err := f.Conn.PrepareBatch(ctx, query, opts...)
	if err != nil {
		return nil, err
	}
	return &failingBatch{Batch: b, f: f}, nil
}

type failingBatch struct {
	driver.Batch
	f *failing
}

func (b *failingBatch) Send() error {
	if b.f.in--; b.f.in != 0 {
		return b.Batch.Send()
	}
	if b.f.after {
		if err := b.Batch.Send(); err != nil {
			return err
		}
	}
	return fmt.Errorf("injected: %w", context.DeadlineExceeded) // transient
}
