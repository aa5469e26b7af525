package verify_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/projector/history"
	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
	"heliograph/schemas/eventtest"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

const partitions = 4

// TestBothViewsOverTheLog runs both projectors over a real log, stops and starts them on the way, and compares the
// views with a replay.
func TestBothViewsOverTheLog(t *testing.T) {
	brokers, prefix := enginetest.Kafka(t)
	kc := kafka.Config{Brokers: brokers, TopicPrefix: prefix, Partitions: partitions}
	// Without a delivery timeout, which counts from the records' stamps: those are in the past here.
	cl, err := kafka.Dial(kc, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kafka.EnsureTopics(t.Context(), cl, kc); err != nil {
		t.Fatal(err)
	}
	w := eventtest.NewWorld(8, rand.New(rand.NewPCG(1, 2)).IntN)
	w.Unreadable, w.Newer, w.Partitions = true, true, partitions
	add := func(steps []eventtest.Step) {
		t.Helper()
		var recs []*kgo.Record
		for _, s := range steps {
			rec := kc.NewRecord(s.Topic, s.Slot, s.Key, s.Value)
			rec.Timestamp = time.UnixMilli(s.TimeMS)
			recs = append(recs, rec)
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce := func(n int) {
		t.Helper()
		add(w.Steps(n))
	}
	add(sinktest.Invitations(partitions))

	url := enginetest.NewDatabase(t)
	views, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url, views, pgschema.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": pgschema.ViewsSchema}},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	cc := clickhouse.Config{Addr: []string{addr}, Database: database, Password: password}
	hist, err := fs.Sub(chschema.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), cc, hist); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// A comparison while everything goes on takes a moment of each view.
	cfg := verify.Config{Kafka: kc, Partitions: partitions}
	traffic, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	th, err := threads.New(threads.Config{Consumer: kafka.ConsumerConfig{Kafka: kc}}, pool, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	hi, err := history.New(
		history.Config{Consumer: kafka.ConsumerConfig{Kafka: kc, Linger: 20 * time.Millisecond}}, conn, nil, nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = th.Run(traffic) })
	running.Go(func() { _ = hi.Run(traffic) })
	judged := map[string]map[topic.Position]bool{"threads": {}, "history": {}}
	for range 6 {
		produce(200)
		for view, compare := range map[string]func() (*verify.Report, error){
			"threads": func() (*verify.Report, error) { return verify.Threads(t.Context(), cfg, pool) },
			"history": func() (*verify.Report, error) { return verify.History(t.Context(), cfg, conn) },
		} {
			r, err := compare()
			if err != nil || !r.Equal() {
				t.Fatalf("%s under traffic: %v, %d differences: %+v", view, err, len(r.Differences), r)
			}
			var sum topic.Position
			for _, p := range r.Places {
				sum += p.Next
			}
			judged[view][sum] = true
		}
	}
	stop()
	running.Wait()
	for view, moments := range judged {
		if len(moments) < 2 {
			t.Errorf("the %s did not move while they were compared", view)
		}
	}

	for range 3 { // three lives of each projector, each with something new to take in
		produce(700)
		th, err := threads.New(threads.Config{Consumer: kafka.ConsumerConfig{Kafka: kc}}, pool, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		hi, err := history.New(
			history.Config{Consumer: kafka.ConsumerConfig{Kafka: kc, Linger: 50 * time.Millisecond}}, conn, nil, nil,
		)
		if err != nil {
			t.Fatal(err)
		}
		runUntilCaughtUp(t, th.Run, th.Consumer())
		runUntilCaughtUp(t, hi.Run, hi.Consumer())
	}

	ref := verify.NewReference(partitions)
	if err := kafka.Replay(t.Context(), kafka.ConsumerConfig{Kafka: kc, View: "reference"}, ref); err != nil {
		t.Fatal(err)
	}
	diffs, err := verify.CompareThreads(t.Context(), pool, ref, 0)
	if err != nil || len(diffs) > 0 {
		t.Fatalf("thread views: %v, %d differences: %v", err, len(diffs), first(diffs))
	}
	if diffs, err = verify.CompareHistory(t.Context(), conn, ref, false); err != nil || len(diffs) > 0 {
		t.Fatalf("history: %v, %d differences: %v", err, len(diffs), first(diffs))
	}

	// The comparison sees what is wrong.
	if _, err := pool.Exec(t.Context(), `
		UPDATE threads SET last_ordinal = last_ordinal + 1
		WHERE thread_id = (SELECT min(thread_id::text)::uuid FROM threads)`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `
		DELETE FROM messages
		WHERE (thread_id, position) IN (SELECT thread_id, position FROM messages LIMIT 1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `
		UPDATE invitations SET inviter_id = gen_random_uuid()
		WHERE (thread_id, user_id) IN (SELECT thread_id, user_id FROM invitations LIMIT 1)`); err != nil {
		t.Fatal(err)
	}
	if diffs, err = verify.CompareThreads(t.Context(), pool, ref, 0); err != nil || len(diffs) != 3 {
		t.Errorf("after three changes: %v, %v", err, diffs)
	}

	// So does a comparison of each partition for itself, with the columns.
	if _, err := pool.Exec(t.Context(), `
		UPDATE threads SET title = title || '!', last_time = last_time + interval '1 ms'
		WHERE thread_id = (SELECT min(thread_id::text)::uuid FROM threads)`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), `
		ALTER TABLE messages UPDATE body = 'changed', counted_time = addMilliseconds(counted_time, 1)
		WHERE (thread_id, position) = (SELECT thread_id, position FROM messages ORDER BY thread_id, position LIMIT 1)
		SETTINGS mutations_sync = 2`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), `
		ALTER TABLE invitations UPDATE open = NOT open
		WHERE (thread_id, position) = (SELECT thread_id, position FROM invitations ORDER BY thread_id, position LIMIT 1)
			AND user_id = (SELECT user_id FROM invitations ORDER BY thread_id, position, user_id LIMIT 1)
		SETTINGS mutations_sync = 2`); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for n := range topic.Slot(partitions) {
		one := cfg
		one.Slots = []topic.Slot{n}
		r, err := verify.Threads(t.Context(), one, pool)
		if err != nil {
			t.Fatal(err)
		}
		h, err := verify.History(t.Context(), one, conn)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range append(r.Differences, h.Differences...) {
			for _, c := range d.Columns {
				found[d.Table] = append(found[d.Table], c.Name)
			}
		}
	}
	for _, names := range found { // by partition, and in which of them a group lies is chance
		slices.Sort(names)
	}
	want := map[string][]string{
		"threads": {"last_ordinal", "last_time", "title"}, "invitations": {"inviter_id", "open"},
		"messages": {"body", "counted_time"},
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("columns that differ (-want +got):\n%s", d)
	}
	// A row of the history beyond the log is of no event, one before the log's end may have come meanwhile.
	h, err := verify.History(t.Context(), cfg, conn)
	if err != nil {
		t.Fatal(err)
	}
	before := len(h.Differences)
	var slot int32
	if err := conn.QueryRow(t.Context(), "SELECT slot FROM messages LIMIT 1").Scan(&slot); err != nil {
		t.Fatal(err)
	}
	end := topic.Position(0)
	for _, p := range h.Places {
		if p.Topic == topic.Threads && p.Slot == topic.Slot(slot) {
			end = p.Log
		}
	}
	if err := conn.Exec(t.Context(), fmt.Sprintf(`
		INSERT INTO messages SELECT * REPLACE (%d AS position) FROM messages
		WHERE slot = %d LIMIT 1`, end, slot)); err != nil {
		t.Fatal(err)
	}
	if h, err = verify.History(t.Context(), cfg, conn); err != nil || len(h.Differences) != before+1 || h.Equal() {
		t.Errorf("a message beyond the log: %v, %d differences, want %d", err, len(h.Differences), before+1)
	}
	// A view that a newer version keeps has taken in what this one cannot read.
	const newest = "(topic, slot, position) = (SELECT topic, slot, position FROM quarantine " +
		"WHERE reason LIKE 'newer_version%' ORDER BY topic, slot, position LIMIT 1)"
	if _, err := pool.Exec(t.Context(), "DELETE FROM quarantine WHERE "+newest); err != nil {
		t.Fatal(err)
	}
	err = conn.Exec(t.Context(), "ALTER TABLE quarantine DELETE WHERE "+newest+" SETTINGS mutations_sync = 2")
	if err != nil {
		t.Fatal(err)
	}
	before = h.Newer
	r, err := verify.Threads(t.Context(), cfg, pool)
	if err != nil {
		t.Fatal(err)
	}
	if h, err = verify.History(t.Context(), cfg, conn); err != nil {
		t.Fatal(err)
	}
	if before != 0 || r.Newer != 1 || h.Newer != 1 || r.Equal() || h.Equal() {
		t.Errorf("with events of a newer version: %d, then %d and %d, want 0, 1 and 1", before, r.Newer, h.Newer)
	}
	// A view that is ahead of the log cannot be compared.
	const ahead = "UPDATE positions SET next = next + 1 WHERE topic = $1 AND slot = 0"
	if _, err := pool.Exec(t.Context(), ahead, topic.Threads.Number()); err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Threads(t.Context(), cfg, pool); err != nil || r.Comparable() {
		t.Errorf("a view ahead of the log: %v, %+v", err, r)
	}
}

func first(d []verify.Difference) any {
	if len(d) == 0 {
		return nil
	}
	return d[0]
}

func runUntilCaughtUp(t *testing.T, run func(context.Context) error, c *kafka.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			t.Fatalf("the projector ended: %v, stalled: %v", err, c.Stalled())
		case <-tick.C:
		}
		lags, behind := c.Lags(), int64(0)
		for _, l := range lags {
			behind += l.Records
			if l.Next == 0 && l.End > 0 {
				behind++
			}
		}
		if len(lags) > 0 && len(c.Owned()) == partitions && behind == 0 {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
