package generation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	"heliograph/projector/generation"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

const partitions = 4

// world is a log that grows, with the live thread views of it.
type world struct {
	order

	t     *testing.T
	kafka kafka.Config
	cl    *kgo.Client
	pool  *pgxpool.Pool // of the live schema
	made  *eventtest.World
	steps map[topic.Slot][]int64 // the log times of helio.threads, as they were appended
}

// newLog makes a log.
func newLog(t *testing.T, seed uint64) *world {
	t.Helper()
	brokers, prefix := enginetest.Kafka(t)
	w := &world{t: t, steps: map[topic.Slot][]int64{}, order: order{Brokers: brokers, Prefix: prefix}}
	w.kafka = w.config().Kafka
	// Without a delivery timeout, which counts from the records' stamps: those are in the past here.
	var err error
	if w.cl, err = kafka.Dial(w.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	if _, err := kafka.EnsureTopics(t.Context(), w.cl, w.kafka); err != nil {
		t.Fatal(err)
	}
	w.made = eventtest.NewWorld(8, rand.New(rand.NewPCG(seed, 2)).IntN)
	w.made.Unreadable, w.made.Partitions = true, partitions
	return w
}

// newWorld makes a log and empty thread views.
func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := newLog(t, seed)
	w.URL = enginetest.NewDatabase(t)
	files, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), w.URL, files, pgschema.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	w.pool = w.open(pgschema.ViewsSchema)
	return w
}

// open returns a pool over a schema, as roles have it.
func (w *world) open(schema string) *pgxpool.Pool {
	w.t.Helper()
	pool, err := postgres.Open(w.t.Context(), postgres.Config{
		URL: w.URL, MaxConns: 6, Params: map[string]string{"search_path": schema, "synchronous_commit": "off"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

func (w *world) produce(ctx context.Context, n int) error {
	var recs []*kgo.Record
	for _, s := range w.made.Steps(n) {
		rec := w.kafka.NewRecord(s.Topic, s.Slot, s.Key, s.Value)
		rec.Timestamp = time.UnixMilli(s.TimeMS)
		recs = append(recs, rec)
		if s.Topic == topic.Threads {
			w.steps[s.Slot] = append(w.steps[s.Slot], s.TimeMS)
		}
	}
	return w.cl.ProduceSync(ctx, recs...).FirstErr()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// live runs a projector of the live views until the returned function is called, which reports how it ended.
func (w *world) live() (stop func()) {
	w.t.Helper()
	p, err := threads.New(threads.Config{
		Consumer:  kafka.ConsumerConfig{Kafka: w.kafka, Linger: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond},
		Retention: forever,
	}, w.pool, nil, nil)
	w.must(err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the live projector ended: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

// caughtUp waits until the live views have taken in the whole log.
func (w *world) caughtUp() {
	w.t.Helper()
	bases, err := kafka.LoadBases(w.t.Context(), w.cl, w.kafka, threads.Topics, partitions)
	w.must(err)
	for deadline := time.Now().Add(time.Minute); ; {
		behind := 0
		got, err := views.New(w.pool).Freshness(w.t.Context())
		w.must(err)
		next := map[string]topic.Position{}
		for _, f := range got {
			next[fmt.Sprint(f.Topic, f.Slot)] = f.Next
		}
		for _, t := range threads.Topics {
			ends, err := bases.Ends(w.t.Context(), w.cl, t)
			w.must(err)
			for s, end := range ends {
				if next[fmt.Sprint(t, s)] < end {
					behind++
				}
			}
		}
		if behind == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the live views are behind in %d partitions of topics", behind)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// equal compares the live views with the log, when they have caught up.
func (w *world) equal() {
	w.t.Helper()
	w.caughtUp()
	r, err := verify.Threads(w.t.Context(), verify.Config{Kafka: w.kafka, Partitions: partitions}, w.pool)
	w.must(err)
	if !r.Equal() {
		w.t.Fatalf("%d differences, the first: %v", len(r.Differences), r.Differences[0])
	}
}

// reader reads the live views over and over, as edges do, and says when what it sees does not fit together or goes
// back.
func (w *world) reader(ctx context.Context) error {
	v := views.New(w.pool)
	last := map[string]topic.Position{}
	for ctx.Err() == nil {
		next := map[string]topic.Position{}
		lastOf := map[id.ThreadID]topic.Position{}
		there := map[string]bool{}
		var fault error
		err := v.Tables(ctx, views.Tables{
			Freshness: func(f *views.Freshness) error { next[fmt.Sprint(f.Topic, f.Slot)] = f.Next; return nil },
			Threads:   func(t *views.Thread) error { lastOf[t.ID] = t.LastPosition; return nil },
			Messages: func(m *views.Message) error {
				there[fmt.Sprint(m.Thread, m.Position)] = true
				if m.Position >= next[fmt.Sprint(topic.Threads, m.Slot)] {
					fault = fmt.Errorf("a message at %d of slot %d, of which the positions know nothing", m.Position, m.Slot)
				}
				return nil
			},
		})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("a read failed: %w", err)
		}
		for t, at := range lastOf {
			if !there[fmt.Sprint(t, at)] {
				fault = fmt.Errorf("thread %v ends at %d, and there is no such event", t, at)
			}
		}
		for where, at := range last {
			if next[where] < at {
				fault = fmt.Errorf("%s went back from %d to %d", where, at, next[where])
			}
		}
		if fault != nil {
			return fault
		}
		last = next
		// a question by itself, whose plan is kept
		if _, err := v.FreshnessOf(ctx, topic.Threads, 1); err != nil && ctx.Err() == nil {
			return fmt.Errorf("a read failed: %w", err)
		}
	}
	return nil
}

// traffic appends to the log and reads the live views until the returned function is called.
func (w *world) traffic() (stop func()) { return w.flow(2) }

// quiet is traffic that nobody reads.
func (w *world) quiet() (stop func()) { return w.flow(0) }

func (w *world) flow(readers int) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := w.produce(context.WithoutCancel(ctx), 20); err != nil {
				w.t.Errorf("append: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	for range readers {
		wg.Go(func() {
			if err := w.reader(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	w.t.Cleanup(stop)
	return stop
}

func (w *world) generations() map[int]string {
	w.t.Helper()
	store, err := w.order.open(w.t.Context(), nil)
	w.must(err)
	defer store.Close()
	all, err := store.Generations(w.t.Context())
	w.must(err)
	out := map[int]string{}
	for _, g := range all {
		out[g.Number] = g.State
	}
	return out
}

// A generation is built, compared and switched to under traffic, with whoever reads and writes the live one going on;
// and so is the way back, twice.
func TestReplayOfThreadViewsUnderTraffic(t *testing.T) {
	w := newWorld(t, 1)
	w.must(w.produce(t.Context(), 3000))
	stopLive := w.live()
	w.caughtUp()
	stopLive()
	w.spoil()
	stopLive = w.live() // which loads what is wrong, and keeps it in its cache
	stopTraffic := w.traffic()
	sum, err := w.replay(t.Context(), nil)
	w.must(err)
	if !sum.Switched || !sum.Verified || sum.Resumed || sum.Records < 3000 {
		t.Errorf("%+v", sum)
	}
	stopTraffic()
	w.equal()
	if diff := cmp.Diff(map[int]string{1: generation.Retired, 2: generation.Live}, w.generations()); diff != "" {
		t.Error(diff)
	}
	// Back to one that is right, and forth.
	w.must(w.drop(1))
	stopTraffic = w.traffic()
	sum, err = w.replay(t.Context(), nil)
	w.must(err)
	for i := range 4 {
		back := w.order
		back.Rollback = true
		sum, err = back.replay(t.Context(), nil)
		w.must(err)
		if want := 2 + i%2; sum.Generation.Number != want || !sum.Switched {
			t.Errorf("rolled back to %d, want %d: %+v", sum.Generation.Number, want, sum)
		}
	}
	stopTraffic()
	w.equal()
	stopLive()
}

// spoil makes the live views wrong, which is why they are rebuilt.
func (w *world) spoil() {
	w.t.Helper()
	_, err := w.pool.Exec(w.t.Context(), `UPDATE threads SET title = 'spoilt', last_ordinal = last_ordinal + 1000`)
	w.must(err)
}

// spoilt tells whether a transaction reads what was spoilt.
func spoilt(t *testing.T, tx pgx.Tx) bool {
	t.Helper()
	var is bool
	if err := tx.QueryRow(t.Context(), `SELECT bool_and(title = 'spoilt') FROM threads`).Scan(&is); err != nil {
		t.Fatal(err)
	}
	return is
}

// The switch waits for a transaction that has read one of the live tables, and for one that has a moment of its own and
// has read none yet: either goes on to read the same generation.
func TestSwitchWaitsForReaders(t *testing.T) {
	for name, c := range map[string]struct {
		level pgx.TxIsoLevel
		begin string
	}{
		"a table was read": {pgx.ReadCommitted, `SELECT count(*) FROM users`},
		"none was":         {pgx.RepeatableRead, `SELECT 1`},
	} {
		t.Run(name, func(t *testing.T) {
			waiting := make(chan struct{}, 1)
			defer generation.SetWaits(time.Minute, func() {
				select {
				case waiting <- struct{}{}:
				default:
				}
			})()
			w := newWorld(t, 7)
			w.must(w.produce(t.Context(), 200))
			w.live()
			w.caughtUp()
			w.spoil()
			tx, err := w.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: c.level})
			w.must(err)
			defer tx.Rollback(context.Background())
			_, err = tx.Exec(t.Context(), c.begin)
			w.must(err)
			done := make(chan error, 1)
			go func() { _, err := w.replay(t.Context(), nil); done <- err }()
			select {
			case <-waiting:
			case err := <-done:
				t.Fatalf("the switch did not wait; it ended with %v", err)
			}
			if !spoilt(t, tx) {
				t.Error("the transaction reads another generation than it began with")
			}
			w.must(tx.Commit(t.Context()))
			w.must(<-done)
			w.equal()
		})
	}
}

// What the live projector has in its caches was read from what is replaced, and goes with it, also where the new
// generation stands at the same positions.
func TestNothingSpoiltIsCarriedOver(t *testing.T) {
	w := newWorld(t, 8)
	w.must(w.produce(t.Context(), 300))
	stop := w.live()
	w.caughtUp()
	stop()
	w.spoil()
	w.live()
	w.must(w.produce(t.Context(), 200)) // what is wrong is loaded
	w.caughtUp()
	_, err := w.replay(t.Context(), nil)
	w.must(err)
	w.must(w.produce(t.Context(), 200))
	w.equal()
}

func (w *world) drop(number int) error {
	store, err := w.order.open(w.t.Context(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	all, err := store.Generations(w.t.Context())
	if err != nil {
		return err
	}
	for _, g := range all {
		if g.Number == number {
			return store.Drop(w.t.Context(), g)
		}
	}
	return fmt.Errorf("there is no generation %d", number)
}

// A replay appends nothing to the log, and joins nobody's group.
func TestReplayHasNoSideEffects(t *testing.T) {
	w := newWorld(t, 2)
	w.must(w.produce(t.Context(), 500))
	w.live()
	w.caughtUp()
	before := w.ends()
	sum, err := w.replay(t.Context(), nil)
	w.must(err)
	if !sum.Switched {
		t.Errorf("%+v", sum)
	}
	w.equal()
	if diff := cmp.Diff(before, w.ends()); diff != "" {
		t.Errorf("the log has grown (-before +after):\n%s", diff)
	}
}

func (w *world) ends() map[topic.Topic][]topic.Position {
	w.t.Helper()
	bases, err := kafka.LoadBases(w.t.Context(), w.cl, w.kafka, topic.All, partitions)
	w.must(err)
	out := map[topic.Topic][]topic.Position{}
	for _, t := range topic.All {
		out[t], err = bases.Ends(w.t.Context(), w.cl, t)
		w.must(err)
	}
	return out
}

// Only one replays at a time; the other is told so, and may come later.
func TestSecondReplayIsRefused(t *testing.T) {
	w := newWorld(t, 3)
	w.must(w.produce(t.Context(), 100))
	w.live()
	w.caughtUp()
	first, err := w.order.open(t.Context(), nil)
	w.must(err)
	defer first.Close()
	_, err = w.replay(t.Context(), nil)
	var busy *generation.BusyError
	if !errors.As(err, &busy) {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	first.Close()
	if _, err := w.replay(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A projector that is given the schema of a generation that is not live ends and says which it is, and writes nothing.
func TestProjectorOfAnotherGenerationEnds(t *testing.T) {
	w := newWorld(t, 4)
	w.must(w.produce(t.Context(), 200))
	w.live()
	w.caughtUp()
	_, err := w.replay(t.Context(), nil)
	w.must(err)
	p, err := threads.New(threads.Config{Consumer: kafka.ConsumerConfig{Kafka: w.kafka}}, w.open("views_g1"), nil, nil)
	w.must(err)
	err = p.Run(t.Context())
	var other *threads.GenerationError
	if !errors.As(err, &other) || other.Number != 1 || other.State != generation.Retired {
		t.Errorf("error %v", err)
	}
}

// A generation that ends at a place holds what the views held there, and is never switched to.
func TestReplayUpToAPlace(t *testing.T) {
	w := newWorld(t, 5)
	w.must(w.produce(t.Context(), 400))
	stop := w.live()
	w.caughtUp()
	stop()
	w.must(w.produce(t.Context(), 400))
	store, err := w.order.open(t.Context(), nil)
	w.must(err)
	defer store.Close()
	const slot, position = 2, 10
	sum, err := generation.Replay(t.Context(), store, w.config(), generation.Options{
		Until: &generation.Until{Text: "2:10", Slot: slot, Position: position},
	})
	w.must(err)
	if sum.Switched || !sum.Verified || sum.Generation.State != generation.AsOf {
		t.Errorf("%+v", sum)
	}
	when := w.steps[slot][position]
	found, err := views.New(w.open(sum.Generation.Place)).Freshness(t.Context())
	w.must(err)
	got := map[topic.Slot]topic.Position{}
	for _, f := range found {
		if f.Topic == topic.Threads {
			got[f.Slot] = f.Next
		}
	}
	want := map[topic.Slot]topic.Position{}
	for s, times := range w.steps {
		for at, ms := range times {
			if ms >= when {
				break
			}
			want[s] = topic.Position(at + 1)
		}
	}
	want[slot] = position + 1
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
	w.live()
	w.equal()
}

// One thread and one user are mended in place, under traffic; what the live projector knew of them is not carried over,
// and nothing else is touched.
func TestMendThreadViews(t *testing.T) {
	w := newWorld(t, 9)
	w.must(w.produce(t.Context(), 1500))
	stop := w.live()
	w.caughtUp()
	stop()
	pick := func(table string) topic.Subject {
		var key [16]byte
		w.must(w.pool.QueryRow(t.Context(), `SELECT `+table+`_id FROM `+table+`s ORDER BY 1 LIMIT 1`).Scan(&key))
		return key
	}
	thread, user := pick("thread"), pick("user")
	for _, sql := range []string{
		`UPDATE threads SET last_ordinal = last_ordinal + 7 WHERE thread_id = $1`,
		`DELETE FROM members WHERE thread_id = $1`,
		`DELETE FROM messages WHERE thread_id = $1 AND position % 2 = 0`,
		`UPDATE watermarks SET read_position = read_position + 1 WHERE thread_id = $1`,
	} {
		_, err := w.pool.Exec(t.Context(), sql, [16]byte(thread))
		w.must(err)
	}
	for _, sql := range []string{
		`UPDATE users SET name = 'spoilt' WHERE user_id = $1`,
		`INSERT INTO contacts (user_id, phone_hash, name) VALUES ($1, $1, 'nobody')`,
	} {
		_, err := w.pool.Exec(t.Context(), sql, [16]byte(user))
		w.must(err)
	}
	w.live()
	w.must(w.produce(t.Context(), 500)) // what is wrong is loaded
	w.caughtUp()
	stopTraffic := w.quiet()
	for _, s := range []generation.Subject{
		{Kind: generation.ThreadSubject, ID: thread}, {Kind: generation.UserSubject, ID: user},
	} {
		store, err := w.order.open(t.Context(), nil)
		w.must(err)
		got, err := generation.Mend(t.Context(), store, w.config(), s)
		store.Close()
		w.must(err)
		wrong := int64(0)
		for _, m := range got {
			wrong += m.Wrong + m.Undue
		}
		if wrong == 0 {
			t.Errorf("%v: nothing was found wrong: %+v", s, got)
		}
		t.Logf("%v: %+v", s, got)
	}
	stopTraffic()
	w.equal()
	if diff := cmp.Diff(map[int]string{1: generation.Live}, w.generations()); diff != "" {
		t.Error(diff)
	}
}

// rounds is how often a process is killed; HELIO_REPLAY_KILLS says otherwise.
func rounds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("HELIO_REPLAY_KILLS"))
	if err != nil {
		return 6
	}
	return n
}

// A replay that is killed at any moment, the switch included, leaves the live views whole, and the next goes on. Then
// it is killed on its way back.
func TestReplayIsKilled(t *testing.T) {
	w := newWorld(t, 6)
	w.must(w.produce(t.Context(), 4000))
	w.live()
	w.caughtUp()
	self, err := os.Executable()
	w.must(err)
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	stop := w.traffic()
	w.must(func() error { _, err := w.replay(t.Context(), nil); return err }()) // there is something to go back to
	for round := range rounds(t) {
		o := w.order
		o.Rollback, o.Fast = round%2 == 1, round%3 > 0
		if !o.Rollback && len(w.generations()) > 2 {
			for number, state := range w.generations() {
				if state == generation.Retired {
					w.must(w.drop(number))
				}
			}
		}
		text, err := json.Marshal(o)
		w.must(err)
		for try, ended := 0, false; !ended; try++ {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), replayEnv+"="+string(text))
			cmd.Stderr = os.Stderr
			w.must(cmd.Start())
			ended = true
			late := time.AfterFunc(time.Duration(200+r.IntN(1500))*time.Millisecond, func() {
				if try < 3 {
					_ = cmd.Process.Kill() // it may have ended
				}
			})
			if err := cmd.Wait(); err != nil {
				if ended = cmd.ProcessState.ExitCode() >= 0; ended {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			late.Stop()
			got := w.generations()
			live := 0
			for _, state := range got {
				if state == generation.Live {
					live++
				}
			}
			if live != 1 {
				t.Fatalf("round %d: %v", round, got)
			}
			t.Logf("round %d, rollback %v: ended %v, %v", round, o.Rollback, ended, got)
			if o.Rollback && !ended && try > 0 {
				break // whether it was made is not known, and a second would lead forth again
			}
		}
	}
	stop()
	w.equal()
}
