package generation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"heliograph/infra/kafka"
	"heliograph/infra/views"
	"heliograph/projector/generation"
	"heliograph/projector/threads"
	"heliograph/schemas/topic"
)

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
	_, err = w.replay(t.Context(), nil)
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
			defer func() { _ = tx.Rollback(context.Background()) }() // it may have ended
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
