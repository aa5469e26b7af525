package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"heliograph/infra/embedded/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running runs a broker and returns its address and a function that stops it and returns its error.
func running(t testing.TB, cfg Config) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, func(addr string) { ready <- addr }) }()
	stop = func() error { cancel(); return <-done }
	select {
	case addr = <-ready:
		return addr, stop
	case err := <-done:
		cancel()
		t.Fatal(err)
		return "", nil
	}
}

// quietly stops a broker whose end is not what the test is about.
func quietly(stop func() error) { _ = stop() }

func dial(t testing.TB, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.ProducerLinger(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestRestartKeepsRecords(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, noSync := range []bool{false, true} {
		t.Run(fmt.Sprint("nosync=", noSync), func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), NoSync: noSync}
			addr, stop := running(t, cfg)
			cl := dial(t, addr, kgo.ProducerBatchMaxBytes(4<<20))
			if _, err := kadm.NewClient(cl).CreateTopic(ctx, 2, -1, nil, "t"); err != nil {
				t.Fatal(err)
			}
			large := bytes.Repeat([]byte{7}, 3<<20)
			if err := cl.ProduceSync(ctx,
				&kgo.Record{Topic: "t", Value: []byte("small")},
				&kgo.Record{Topic: "t", Value: large},
			).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			cfg.Listen = addr
			again, stop := running(t, cfg)
			if again != addr {
				t.Errorf("got address %s, want %s", again, addr)
			}
			defer quietly(stop)
			reader := dial(t, again, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			var got []int
			for len(got) < 2 {
				fetches := reader.PollFetches(ctx)
				if ctx.Err() != nil {
					t.Fatal("records are missing: ", fetches.Err())
				}
				fetches.EachRecord(func(r *kgo.Record) { got = append(got, len(r.Value)) })
			}
		})
	}
}

// Records of a topic that asks for nothing stay, however old, while others' are cleaned; also by a broker that was
// started again and makes no topic.
func TestRecordsStayForEver(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := Config{DataDir: t.TempDir()}
	addr, stop := running(t, cfg)
	cl := dial(t, addr)
	adm := kadm.NewClient(cl)
	soon, compacted := "20", "compact"
	old := time.Now().Add(-365 * 24 * time.Hour)
	topics := map[string]map[string]*string{
		"forever":   nil,
		"brief":     {"retention.ms": &soon},
		"compacted": {"cleanup.policy": &compacted},
	}
	for name, config := range topics {
		if _, err := adm.CreateTopic(ctx, 1, 1, config, name); err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // batches of their own: the last one is never cleaned
			r := &kgo.Record{Topic: name, Key: []byte("k"), Value: []byte{byte(i)}, Timestamp: old}
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cfg.compactEvery = 200 * time.Millisecond
	addr, stop = running(t, cfg)
	defer quietly(stop)
	first := func(topic string) byte { // of the records that are left
		cl := dial(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		fs := cl.PollRecords(ctx, 1)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		return fs.Records()[0].Value[0]
	}
	adm = kadm.NewClient(dial(t, addr))
	start := func(topic string) int64 {
		offsets, err := adm.ListStartOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := offsets.Lookup(topic, 0)
		return o.Offset
	}
	for start("brief") == 0 {
		if ctx.Err() != nil {
			t.Fatal("nothing was cleaned")
		}
	}
	if got := first("compacted"); got != 1 { // of what is behind the last batch the latest stays
		t.Errorf("the compacted topic begins with record %d, want 1", got)
	}
	if got := start("forever"); got != 0 || first("forever") != 0 {
		t.Errorf("the log begins at %d, want 0, with its first record", got)
	}
}

func TestNoTopicOnFirstUse(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addr, stop := running(t, Config{DataDir: t.TempDir()})
	defer quietly(stop)
	cl := dial(t, addr, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := cl.ProduceSync(ctx, &kgo.Record{Topic: "typo", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("got %v, want %v", err, kerr.UnknownTopicOrPartition)
	}
}

func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	_, stop := running(t, Config{DataDir: newer})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(newer, "log", "meta.json"), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		cfg   Config
		fault engine.Fault
		says  string
	}{
		{"port in use", Config{DataDir: t.TempDir(), Listen: taken.Addr().String()}, engine.PortInUse, "--listen"},
		{"unwritable", Config{DataDir: filepath.Join(file, "data")}, engine.Unwritable, "--data"},
		{"newer log", Config{DataDir: newer}, engine.WrongVersion, "99"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Run(context.Background(), tc.cfg, func(string) { t.Error("ready") })
			if !errors.Is(err, tc.fault) || !strings.Contains(fmt.Sprint(err), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.fault, tc.says)
			}
		})
	}
	if err := Run(context.Background(), Config{}, nil); err == nil {
		t.Error("an empty configuration runs")
	}
}

// A batch that cannot be written ends the broker with the reason; what it acknowledged before is there afterwards.
func TestFullDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("cannot mount a small disk:", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() { done <- Run(ctx, Config{DataDir: dir}, func(addr string) { ready <- addr }) }()
	addr := <-ready
	// As ingest's: else an idempotent producer waits for ever for the answer that an ended broker did not give.
	cl := dial(t, addr, kgo.RecordDeliveryTimeout(5*time.Second), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.AllowIdempotentProduceCancellation())
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	acked := 0
	value := bytes.Repeat([]byte("x"), 100<<10)
	for cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: value}).FirstErr() == nil {
		acked++
	}
	if err := <-done; !errors.Is(err, engine.NoSpace) {
		t.Fatalf("got %v after %d records, want %v", err, acked, engine.NoSpace)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	addr, stop := running(t, Config{DataDir: dir})
	defer quietly(stop)
	ends, err := kadm.NewClient(dial(t, addr)).ListEndOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if end, ok := ends.Lookup("t", 0); !ok || end.Offset != int64(acked) {
		t.Errorf("got the end %d, want the %d acknowledged records", end.Offset, acked)
	}
}

func TestLoggerNoticesFailedWrites(t *testing.T) {
	for _, tc := range []struct {
		level kfake.LogLevel
		msg   string
		err   error
		want  bool
	}{
		{kfake.LogLevelWarn, "persist batch %s: %v", errors.New("odd"), true},
		{kfake.LogLevelWarn, "persist group entry write: %v", &os.PathError{Err: syscall.ENOSPC}, true},
		{kfake.LogLevelError, "persist to disk: %v", syscall.EROFS, true},
		{kfake.LogLevelWarn, "session_state.json: corrupt, ignoring: %v", errors.New("odd"), false},
		{kfake.LogLevelInfo, "client %v", syscall.EIO, false},
	} {
		l := &logger{to: discard, broken: make(chan error, 1)}
		l.Logf(tc.level, tc.msg, tc.err)
		if got := l.failure("/d") != nil; got != tc.want {
			t.Errorf("%s with %v: got %v, want %v", tc.msg, tc.err, got, tc.want)
		}
	}
}
