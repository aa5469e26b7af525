package generation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/projector/generation"
	projection "heliograph/projector/history"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
	"heliograph/schemas/topic"
)

// past is a world with the live history of it.
type past struct {
	*world

	conn driver.Conn
}

func newPast(t *testing.T, seed uint64) *past {
	t.Helper()
	w := newLog(t, seed)
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	w.ClickHouse, w.Password, w.Database = addr, password.Reveal(), database
	files, err := fs.Sub(chschema.FS, "history")
	w.must(err)
	_, err = clickhouse.Migrate(t.Context(), w.history(), files)
	w.must(err)
	conn, err := clickhouse.Open(w.history())
	w.must(err)
	t.Cleanup(func() { w.must(conn.Close()) })
	t.Cleanup(func() { // what is beside
		ctx := context.Background()
		store, err := generation.OpenClickHouse(ctx, generation.ClickHouseConfig{ClickHouse: w.history(), Look: true})
		w.must(err)
		defer store.Close()
		all, err := store.Generations(ctx)
		w.must(err)
		for _, g := range all {
			if g.State != generation.Live {
				w.must(store.Drop(ctx, g))
			}
		}
	})
	return &past{w, conn}
}

// live runs a projector of the live history until the returned function is called.
func (p *past) live() (stop func()) {
	p.t.Helper()
	proj, err := projection.New(projection.Config{Consumer: kafka.ConsumerConfig{
		Kafka: p.kafka, Linger: 20 * time.Millisecond, LingerBusy: 100 * time.Millisecond,
		BackoffMax: 100 * time.Millisecond,
	}}, p.conn, nil, nil)
	p.must(err)
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- proj.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				p.t.Errorf("the live projector ended: %v", err)
			}
		})
	}
	p.t.Cleanup(stop)
	return stop
}

// caughtUp waits until the live history has taken in the whole log.
func (p *past) caughtUp() {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := history.New(p.conn).Freshness(p.t.Context())
		p.must(err)
		next := map[string]topic.Position{}
		for _, f := range got {
			next[fmt.Sprint(f.Topic, f.Slot)] = f.Next
		}
		behind := 0
		for t, ends := range p.ends() {
			for s, end := range ends {
				if (t == topic.Threads || t == topic.Receipts) && next[fmt.Sprint(t, s)] < end {
					behind++
				}
			}
		}
		if behind == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the live history is behind in %d partitions of topics", behind)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (p *past) equal() {
	p.t.Helper()
	p.caughtUp()
	r, err := verify.History(p.t.Context(), verify.Config{Kafka: p.kafka, Partitions: partitions}, p.conn)
	p.must(err)
	if !r.Equal() {
		p.t.Fatalf("%d differences, the first: %v", len(r.Differences), r.Differences[0])
	}
}

// reader asks the live history over and over, and says when an answer goes back or a table is not there.
func (p *past) reader(ctx context.Context) error {
	h := history.New(p.conn)
	last := map[string]topic.Position{}
	count := uint64(0)
	for ctx.Err() == nil {
		got, err := h.Freshness(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the test has ended
			}
			return fmt.Errorf("a read failed: %w", err)
		}
		for _, f := range got {
			where := fmt.Sprint(f.Topic, f.Slot)
			if f.Next < last[where] {
				return fmt.Errorf("%s went back from %d to %d", where, last[where], f.Next)
			}
			last[where] = f.Next
		}
		var n uint64
		err = p.conn.QueryRow(ctx, `SELECT count() FROM messages_current`).Scan(&n) // as analysts do
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("a read failed: %w", err)
		}
		if err == nil && n < count {
			return fmt.Errorf("%d messages were there, and %d are", count, n)
		}
		count = max(count, n)
	}
	return nil
}

func (p *past) traffic() (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := p.produce(context.WithoutCancel(ctx), 20); err != nil {
				p.t.Errorf("append: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	wg.Go(func() {
		if err := p.reader(ctx); err != nil {
			p.t.Error(err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	p.t.Cleanup(stop)
	return stop
}

func (p *past) generations() map[int]string {
	p.t.Helper()
	store, err := generation.OpenClickHouse(
		p.t.Context(), generation.ClickHouseConfig{ClickHouse: p.order.history(), Look: true},
	)
	p.must(err)
	defer store.Close()
	all, err := store.Generations(p.t.Context())
	p.must(err)
	out := map[int]string{}
	for _, g := range all {
		out[g.Number] = g.State
	}
	return out
}

// spoil makes the live history wrong, which is why it is rebuilt.
func (p *past) spoil() {
	p.t.Helper()
	p.must(p.conn.Exec(p.t.Context(), `
		ALTER TABLE messages UPDATE ordinal = ordinal + 1000 WHERE 1 SETTINGS mutations_sync = 2`))
}

// The history is built, compared and switched to under traffic, with whoever reads and writes the live one going on;
// and so is the way back. What is spoilt is not carried over by the projector's caches.
func TestReplayOfHistoryUnderTraffic(t *testing.T) {
	p := newPast(t, 21)
	p.must(p.produce(t.Context(), 1500))
	stop := p.live()
	p.caughtUp()
	stop()
	p.spoil()
	p.live()
	p.must(p.produce(t.Context(), 100))
	p.caughtUp()
	before := p.ends()
	sum, err := p.replay(t.Context(), nil)
	p.must(err)
	if !sum.Switched || !sum.Verified || sum.Generation.Number != 2 || sum.Generation.Place != p.Database {
		t.Errorf("%+v", sum)
	}
	if diff := cmp.Diff(before, p.ends()); diff != "" {
		t.Errorf("the log has grown (-before +after):\n%s", diff)
	}
	p.must(p.produce(t.Context(), 100))
	p.equal()
	p.must(p.drop(1))
	stop = p.traffic()
	_, err = p.replay(t.Context(), nil)
	p.must(err)
	back := p.order
	back.Rollback = true
	sum, err = back.replay(t.Context(), nil)
	p.must(err)
	if sum.Generation.Number != 2 || !sum.Switched {
		t.Errorf("%+v", sum)
	}
	stop()
	p.equal()
	if diff := cmp.Diff(map[int]string{3: generation.Retired, 2: generation.Live}, p.generations()); diff != "" {
		t.Error(diff)
	}
}

// A thread is mended in place, while the projector goes on; what it knew of it is not carried over.
func TestMendHistory(t *testing.T) {
	p := newPast(t, 23)
	p.must(p.produce(t.Context(), 1200))
	stop := p.live()
	p.caughtUp()
	stop()
	var key uuid.UUID
	p.must(p.conn.QueryRow(t.Context(), `
		SELECT thread_id FROM messages WHERE thread_id NOT IN (SELECT subject FROM quarantine)
		 GROUP BY thread_id HAVING countIf(position % 2 = 0) > 2 ORDER BY count() DESC LIMIT 1`).Scan(&key))
	for _, sql := range []string{
		`ALTER TABLE messages UPDATE ordinal = ordinal + 7 WHERE thread_id = ? SETTINGS mutations_sync = 2`,
		`DELETE FROM messages WHERE thread_id = ? AND position % 2 = 0`,
		`DELETE FROM memberships WHERE thread_id = ?`,
	} {
		p.must(p.conn.Exec(t.Context(), sql, key))
	}
	p.must(p.conn.Exec(t.Context(), `
		INSERT INTO thread_events (thread_id, position, kind, log_time)
		VALUES (?, 1, 'never', toDateTime64(0, 3))`, key))
	p.live()
	p.must(p.produce(t.Context(), 400)) // what is wrong is loaded
	p.caughtUp()
	store, err := p.openHistory(t.Context())
	p.must(err)
	cfg := p.config()
	cfg.Topics = projection.Topics
	got, err := generation.Mend(t.Context(), store, cfg, generation.Subject{
		Kind: generation.ThreadSubject, ID: topic.Subject(key),
	})
	store.Close()
	p.must(err)
	found := map[string]bool{}
	for _, m := range got {
		found[m.Table] = m.Wrong+m.Undue > 0
	}
	want := map[string]bool{
		"messages": true, "memberships": true, "thread_events": true,
		"message_changes": found["message_changes"], "invitations": false, "receipts": false, "quarantine": false,
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("what was wrong (-want +got):\n%s\n%+v", diff, got)
	}
	p.must(p.produce(t.Context(), 200))
	p.equal()
	if diff := cmp.Diff(map[int]string{1: generation.Live}, p.generations()); diff != "" {
		t.Error(diff)
	}
}

func (p *past) drop(number int) error {
	store, err := p.openHistory(p.t.Context())
	if err != nil {
		return err
	}
	defer store.Close()
	all, err := store.Generations(p.t.Context())
	if err != nil {
		return err
	}
	for _, g := range all {
		if g.Number == number {
			return store.Drop(p.t.Context(), g)
		}
	}
	return fmt.Errorf("there is no generation %d", number)
}

// steps of a switch of the history.
var steps = []string{
	"seal", "halt", "exchange invitations", "exchange memberships", "exchange message_changes", "exchange messages",
	"exchange quarantine", "exchange receipts", "exchange thread_events", "exchange positions", "exchange owners",
	"exchange generation", "mark", "unseal",
}

// A replay of the history that is killed at any step of the switch leaves complete tables to whoever reads, and the
// next brings the switch to its end.
func TestReplayOfHistoryIsKilled(t *testing.T) {
	p := newPast(t, 22)
	p.must(p.produce(t.Context(), 300))
	p.live()
	p.caughtUp()
	self, err := os.Executable()
	p.must(err)
	stop := p.traffic()
	chosen := rand.Perm(len(steps))
	chosen = chosen[:min(len(steps), max(3, rounds(t)-2))]
	for round, n := range chosen {
		o := p.order
		o.Fast, o.Die, o.Rollback = true, steps[n], round%2 == 1
		text, err := json.Marshal(o)
		p.must(err)
		cmd := exec.Command(self)
		cmd.Env, cmd.Stderr = append(os.Environ(), replayEnv+"="+string(text)), os.Stderr
		if err := cmd.Run(); cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("%s: the process was not killed: %v", steps[n], err)
		}
		again := p.order
		again.Fast, again.Rollback = true, o.Rollback
		sum, err := again.replay(t.Context(), nil)
		p.must(err)
		if !sum.Switched || !sum.Resumed && !o.Rollback {
			t.Errorf("%s: %+v", steps[n], sum)
		}
		got := p.generations()
		t.Logf("killed at %q, rollback %v: %v", steps[n], o.Rollback, got)
		live := 0
		for number, state := range got {
			if state == generation.Live {
				live++
			} else if o.Rollback {
				p.must(p.drop(number))
			}
		}
		if live != 1 {
			t.Fatalf("%s: %v", steps[n], got)
		}
	}
	stop()
	p.equal()
}
