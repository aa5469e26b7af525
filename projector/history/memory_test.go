package history_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/budget"
	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector/history"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// The scenario of TestBacklogFitsIntoMemory. The deployment that it stands for: 64 slots, 2 GiB, 1.8 M events.
const (
	backlogSlots  = 64
	backlogMemory = 160 << 20
	backlogEnv    = "HELIO_TEST_BACKLOG"
)

// backlogEvents may be raised by hand.
func backlogEvents() int {
	n := 64_000
	_, _ = fmt.Sscan(os.Getenv("HELIO_TEST_BACKLOG_EVENTS"), &n)
	return n
}

func backlogBytes() int64 {
	n := int64(backlogMemory)
	if raceEnabled { // the detector's own memory is several times that of the process, and the same cgroup's
		n *= 10
	}
	_, _ = fmt.Sscan(os.Getenv("HELIO_TEST_BACKLOG_MEMORY"), &n)
	return n
}

// TestBacklogChild is the other process of TestBacklogFitsIntoMemory: a projector that begins when a line comes in, and
// ends with its standard input.
func TestBacklogChild(t *testing.T) {
	env := strings.Fields(os.Getenv(backlogEnv))
	if len(env) == 0 {
		t.Skip("runs as a child of TestBacklogFitsIntoMemory")
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	memory, bounded, err := budget.Memory()
	if err != nil || !bounded {
		t.Fatalf("the memory is not bounded: %v", err)
	}
	budget.Apply(memory, bounded, slog.New(slog.DiscardHandler))
	conn, err := clickhouse.Open(clickhouse.Config{Addr: env[2:3], Database: env[3], Password: run.Secret(env[4])})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cfg := kafka.Config{Brokers: env[:1], TopicPrefix: env[1], Partitions: backlogSlots}
	if os.Getenv("HELIO_TEST_UNBOUNDED") == "" { // what the test would catch
		cfg.Budget = budget.New(memory, nil)
	}
	p, err := history.New(history.Config{Consumer: kafka.ConsumerConfig{Kafka: cfg}}, conn, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { _, _ = io.Copy(io.Discard, in); stop() }()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestBacklogFitsIntoMemory: a projector that has far more to catch up with than its memory holds gets through within
// it. Every slot has enough for a batch of its own, all at once, as after an outage of the store.
func TestBacklogFitsIntoMemory(t *testing.T) {
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	conn := open(t, clickhouse.Config{Addr: []string{addr}, Database: database, Password: password})
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	log := kafka.Config{Brokers: fake.ListenAddrs(), TopicPrefix: "backlog.", Partitions: backlogSlots}
	produceBacklog(t, log)
	bound := newCgroup(t, backlogBytes())
	child := exec.Command(os.Args[0], "-test.run=^TestBacklogChild$")
	child.Env = append(append(os.Environ(), bound.env(backlogBytes())...), fmt.Sprintf(
		"%s=%s %s %s %s %s", backlogEnv, log.Brokers[0], log.TopicPrefix, addr, database, password.Reveal(),
	))
	out := &strings.Builder{}
	child.Stdout, child.Stderr = out, out
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	defer func() { _ = child.Process.Kill() }()
	bound.add(t, child.Process.Pid)
	if _, err := io.WriteString(in, "begin\n"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for have := uint64(0); have < uint64(backlogEvents()); {
		select {
		case err := <-ended:
			t.Fatalf("the projector ended with %d of %d events: %v\n%s", have, backlogEvents(), err, out)
		case <-look.C:
		}
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM messages").Scan(&have); err != nil {
			t.Fatal(err)
		}
	}
	peak := bound.peakOf(t, child)
	t.Logf("%d events in %v, at most %d MiB of %d", backlogEvents(), time.Since(begun).Round(time.Millisecond),
		peak>>20, backlogBytes()>>20)
	if peak > backlogBytes() {
		t.Errorf("%d MiB were used of %d", peak>>20, backlogBytes()>>20)
	}
	in.Close()
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	bound.skipUnbounded(t)
}

// produceBacklog fills the log with messages of many direct threads, evenly over the slots.
func produceBacklog(t *testing.T, cfg kafka.Config) {
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kafka.EnsureTopics(t.Context(), cl, cfg); err != nil {
		t.Fatal(err)
	}
	content := eventtest.Text(strings.Repeat("what was said ", 12))
	for n := range backlogEvents() {
		a, b := id.UserID{1, byte(n), byte(n >> 8)}, id.UserID{2, byte(n)} // some 60,000 threads
		th, m := id.DirectThread(a, b), id.NewMessage()
		value, err := proto.Marshal(eventv1.Event_builder{
			UserId: a[:], Rules: 2,
			MessageSent: eventv1.MessageSent_builder{MessageId: m[:], Content: content, DirectPeer: b[:]}.Build(),
		}.Build())
		if err != nil {
			t.Fatal(err)
		}
		cl.Produce(t.Context(), cfg.NewRecord(
			topic.Threads, topic.SlotOf(topic.Subject(th), backlogSlots), th[:], value,
		), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}
