package verify_test

import (
	"context"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/projector/history"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
	"heliograph/schemas/eventtest"
	pgschema "heliograph/schemas/postgres"
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
	r := rand.New(rand.NewPCG(1, 2))
	w := eventtest.NewWorld(8, r.IntN)
	w.Poison, w.Partitions = true, partitions
	produce := func(n int) {
		t.Helper()
		var recs []*kgo.Record
		for _, s := range w.Steps(n) {
			rec := kc.NewRecord(s.Topic, s.Slot, s.Key, s.Value)
			rec.Timestamp = time.UnixMilli(s.TimeMS)
			recs = append(recs, rec)
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}

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
	addr, database := enginetest.NewClickHouseDatabase(t)
	cc := clickhouse.Config{Addr: []string{addr}, Database: database}
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
	if _, err := pool.Exec(t.Context(), "UPDATE threads SET last_ordinal = last_ordinal + 1 WHERE thread_id = (SELECT min(thread_id::text)::uuid FROM threads)"); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "DELETE FROM messages WHERE (thread_id, position) IN (SELECT thread_id, position FROM messages LIMIT 1)"); err != nil {
		t.Fatal(err)
	}
	if diffs, err = verify.CompareThreads(t.Context(), pool, ref, 0); err != nil || len(diffs) != 2 {
		t.Errorf("after two changes: %v, %v", err, diffs)
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
