package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

const testSlots = 4

// cluster starts a broker of our own and creates the topics under a prefix of the test.
func cluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, Config, *kgo.Client) {
	t.Helper()
	opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}, opts...)
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := Config{
		Brokers:     fake.ListenAddrs(),
		ClientID:    "test",
		TopicPrefix: strings.NewReplacer("/", "-", "=", "-").Replace(t.Name()) + ".",
		Partitions:  testSlots,
	}
	cl, err := Dial(cfg, ProducerOpts(ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if _, err := EnsureTopics(t.Context(), cl, cfg); err != nil {
		t.Fatal(err)
	}
	return fake, cfg, cl
}

// produce writes n records to every slot of every folded topic and returns how many that are in all.
func produce(t *testing.T, cl *kgo.Client, cfg Config, from, n int) int {
	t.Helper()
	var recs []*kgo.Record
	for i := from; i < from+n; i++ {
		for s := range topic.Slot(testSlots) {
			for _, tp := range topic.Folded {
				recs = append(recs, cfg.NewRecord(tp, s, []byte("k"), fmt.Appendf(nil, "%s/%d/%d", tp, s, i)))
			}
		}
	}
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return len(recs)
}

// eventually polls cond until it holds; the deadline is only for a test that fails.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// store is a view in memory: rows and next positions, moved together by compare-and-set.
type store struct {
	mu   sync.Mutex
	next map[topic.Slot]Positions
	rows map[topic.Slot]map[topic.Topic][]string
	n    int
	cas  int // refused writes
}

func newStore() *store {
	return &store{next: make(map[topic.Slot]Positions), rows: make(map[topic.Slot]map[topic.Topic][]string)}
}

func (s *store) read(slot topic.Slot) Positions {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next[slot].Clone()
}

func (s *store) write(b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, p := range b.From {
		if s.next[b.Slot][t] != p {
			s.cas++
			return fmt.Errorf("slot %d at %v, batch from %v: %w", b.Slot, s.next[b.Slot], b.From, ErrFenced)
		}
	}
	if len(b.From) != len(s.next[b.Slot]) {
		s.cas++
		return ErrFenced
	}
	if s.rows[b.Slot] == nil {
		s.rows[b.Slot] = make(map[topic.Topic][]string)
	}
	for _, r := range b.Records {
		s.rows[b.Slot][r.Topic] = append(s.rows[b.Slot][r.Topic], string(r.Value))
		s.n++
	}
	s.next[b.Slot] = b.To.Clone()
	return nil
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func (s *store) fenced() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cas
}

// check wants each slot of each folded topic to hold records 0..n-1, each once and in order.
func (s *store) check(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot := range topic.Slot(testSlots) {
		for _, tp := range topic.Folded {
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("%s/%d/%d", tp, slot, i))
			}
			if d := cmp.Diff(want, s.rows[slot][tp]); d != "" {
				t.Errorf("%s slot %d (-want +got):\n%s", tp, slot, d)
			}
		}
	}
}

// sink writes into a store, with hooks for faults.
type sink struct {
	*store
	open   func(topic.Slot) error
	before func(ctx context.Context, b Batch) error // instead of the write, when it fails
	after  func(b Batch) error                      // after a write that succeeded

	smu    sync.Mutex
	closed map[bool]int
}

func (s *sink) Open(_ context.Context, slot topic.Slot) (Positions, error) {
	if s.open != nil {
		if err := s.open(slot); err != nil {
			return nil, err
		}
	}
	return s.read(slot), nil
}

func (s *sink) Apply(ctx context.Context, b Batch) error {
	if s.before != nil {
		if err := s.before(ctx, b); err != nil {
			return err
		}
	}
	if err := s.write(b); err != nil {
		return err
	}
	if s.after != nil {
		return s.after(b)
	}
	return nil
}

func (s *sink) Close(_ topic.Slot, lost bool) {
	s.smu.Lock()
	defer s.smu.Unlock()
	if s.closed == nil {
		s.closed = make(map[bool]int)
	}
	s.closed[lost]++
}

func consumerConfig(cfg Config) ConsumerConfig {
	return ConsumerConfig{Kafka: cfg, View: "test", backoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		lagEvery: 20 * time.Millisecond, CommitEvery: 20 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 100 * time.Millisecond}
}

// start runs a consumer until the returned function is called, which waits for its end.
func start(t *testing.T, cfg ConsumerConfig, s Sink) (*Consumer, func()) {
	t.Helper()
	c, err := NewConsumer(cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// pausable is a network that can be held still, as a stopped process's is: reads and writes wait, until their deadlines
// pass.
type pausable struct{ held atomic.Bool }

func (p *pausable) wait(c *pausedConn, deadline *deadline) error {
	for p.held.Load() {
		if at := deadline.Load(); at != nil && !at.IsZero() && time.Now().After(*at) {
			return os.ErrDeadlineExceeded
		}
		if c.closed.Load() {
			return net.ErrClosed
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (p *pausable) dial(ctx context.Context, network, host string) (net.Conn, error) {
	var d net.Dialer // a stopped process's kernel still takes connections
	c, err := d.DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &pausedConn{Conn: c, p: p}, nil
}

// deadline is the last that was set.
type deadline struct{ atomic.Pointer[time.Time] }

type pausedConn struct {
	net.Conn
	p      *pausable
	reads  deadline
	writes deadline
	closed atomic.Bool
}

func (c *pausedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		err = c.p.wait(c, &c.reads)
	}
	return n, err
}

func (c *pausedConn) Write(b []byte) (int, error) {
	if err := c.p.wait(c, &c.writes); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *pausedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *pausedConn) SetReadDeadline(t time.Time) error {
	c.reads.Store(&t)
	return c.Conn.SetReadDeadline(t)
}

func (c *pausedConn) SetWriteDeadline(t time.Time) error {
	c.writes.Store(&t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *pausedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}
