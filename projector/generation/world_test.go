package generation_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
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
	return newLogAt(t, seed, brokers, prefix)
}

func newLogAt(t *testing.T, seed uint64, brokers []string, prefix string) *world {
	t.Helper()
	w := &world{t: t, steps: map[topic.Slot][]int64{}, order: order{Brokers: brokers, Prefix: prefix}}
	w.kafka = w.config().Kafka
	w.dial()
	if _, err := kafka.EnsureTopics(t.Context(), w.cl, w.kafka); err != nil {
		t.Fatal(err)
	}
	w.made = eventtest.NewWorld(8, rand.New(rand.NewPCG(seed, 2)).IntN)
	w.made.Unreadable, w.made.Partitions = true, partitions
	return w
}

// dial connects to the log anew.
func (w *world) dial() {
	w.t.Helper()
	// Without a delivery timeout, which counts from the records' stamps: those are in the past here.
	cl, err := kafka.Dial(w.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.must(err)
	w.t.Cleanup(cl.Close)
	w.cl = cl
}

// newWorld makes a log and empty thread views.
func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	return newLog(t, seed).withViews()
}

// withViews makes empty thread views.
func (w *world) withViews() *world {
	t := w.t
	t.Helper()
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
		Consumer: kafka.ConsumerConfig{
			Kafka: w.kafka, Linger: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		},
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
					fault = fmt.Errorf("a message at %d of slot %d, of which the positions know nothing",
						m.Position, m.Slot)
				}
				return nil
			},
		})
		if err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the test has ended
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
