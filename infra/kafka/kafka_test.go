package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	cfg := Config{Brokers: fake.ListenAddrs(), ClientID: "test", TopicPrefix: strings.NewReplacer("/", "-", "=", "-").Replace(t.Name()) + ".", Partitions: testSlots}
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
	return ConsumerConfig{Kafka: cfg, View: "test", BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		LagEvery: 20 * time.Millisecond, CommitEvery: 20 * time.Millisecond,
		SessionTimeout: 2 * time.Second, HeartbeatInterval: 100 * time.Millisecond}
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

func TestBacklogIsReadFromTheBeginning(t *testing.T) {
	for _, group := range []string{"", "fresh"} {
		t.Run("group="+group, func(t *testing.T) {
			_, cfg, cl := cluster(t)
			n := produce(t, cl, cfg, 0, 100)
			s := &sink{store: newStore()}
			cc := consumerConfig(cfg)
			cc.Group = group
			cc.MaxRecords = 7
			_, stop := start(t, cc, s)
			eventually(t, "backlog read", func() bool { return s.count() >= n })
			n += produce(t, cl, cfg, 100, 10)
			eventually(t, "new records read", func() bool { return s.count() >= n })
			stop()
			s.check(t, 110)
			if diff := cmp.Diff(map[bool]int{false: testSlots}, s.closed); diff != "" {
				t.Errorf("closes by lost (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachSinkCallFailsOnce(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 50)
	var mu sync.Mutex
	seen := make(map[string]bool)
	once := func(kind string, slot topic.Slot, b Batch, err error) error {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(kind, slot, b.From)
		if seen[key] {
			return nil
		}
		seen[key] = true
		return err
	}
	transient := errors.New("the store is away")
	s := &sink{store: newStore()}
	s.open = func(slot topic.Slot) error { return once("open", slot, Batch{}, transient) }
	s.before = func(_ context.Context, b Batch) error {
		before := s.read(b.Slot)
		if d := cmp.Diff(before, b.From); d != "" {
			t.Errorf("slot %d: the batch does not begin where the store stands (-store +batch):\n%s", b.Slot, d)
		}
		return once("before", b.Slot, b, transient)
	}
	// Stored, but the answer was lost: the same batch comes again, the compare-and-set refuses it, and the slot is opened anew.
	s.after = func(b Batch) error { return once("after", b.Slot, b, transient) }
	cc := consumerConfig(cfg)
	cc.MaxRecords = 20
	_, stop := start(t, cc, &noCheck{s})
	eventually(t, "all applied", func() bool { return s.count() >= n })
	stop()
	s.check(t, 50)
}

// noCheck runs the before hook only while the store stands at the batch's From, since a batch whose answer was lost does not.
type noCheck struct{ *sink }

func (s *noCheck) Apply(ctx context.Context, b Batch) error {
	if !cmp.Equal(s.read(b.Slot), b.From) {
		return s.write(b)
	}
	return s.sink.Apply(ctx, b)
}

func TestSameBatchAgainAfterTransient(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 30)
	var mu sync.Mutex
	tries := make(map[topic.Slot]int)
	first := make(map[topic.Slot]Batch)
	s := &sink{store: newStore()}
	s.before = func(_ context.Context, b Batch) error {
		mu.Lock()
		defer mu.Unlock()
		tries[b.Slot]++
		if tries[b.Slot] == 1 {
			first[b.Slot] = b
		}
		if tries[b.Slot] < 4 {
			return errors.New("not yet")
		}
		if tries[b.Slot] == 4 {
			if d := cmp.Diff(first[b.Slot], b); d != "" {
				t.Errorf("slot %d: another batch (-first +again):\n%s", b.Slot, d)
			}
		}
		return nil
	}
	c, stop := start(t, consumerConfig(cfg), s)
	eventually(t, "all applied", func() bool { return s.count() >= 30*12 })
	eventually(t, "nothing stalls", func() bool { return len(c.Stalled()) == 0 })
	stop()
	s.check(t, 30)
}

func TestCrashBetweenTwoSlots(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 40)
	st := newStore()
	for round := 0; st.count() < n && round < 500; round++ {
		// The process dies after the first batch that any slot stored: all other slots lose the batch in hand.
		dead, die := context.WithCancel(context.Background())
		s := &sink{store: st}
		s.before = func(context.Context, Batch) error {
			st.mu.Lock()
			defer st.mu.Unlock()
			if dead.Err() != nil {
				return errors.New("dead")
			}
			return nil
		}
		s.after = func(Batch) error { die(); return errors.New("died before it heard") }
		cc := consumerConfig(cfg)
		cc.MaxRecords = 25
		c, err := NewConsumer(cc, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(dead); err != nil {
			t.Fatal(err)
		}
		die()
	}
	st.check(t, 40)
}

func TestPanicDropsOneSlot(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 20)
	var once sync.Once
	s := &sink{store: newStore()}
	s.before = func(_ context.Context, b Batch) error {
		if b.Slot == 1 {
			once.Do(func() { panic("a broken invariant") })
		}
		return nil
	}
	_, stop := start(t, consumerConfig(cfg), s)
	eventually(t, "all applied", func() bool { return s.count() >= n })
	stop()
	s.check(t, 20)
	if got := s.closed[true]; got != 1 {
		t.Errorf("slots dropped = %d, want 1", got)
	}
}

func TestPermanentIsNotRetriedAtOnce(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 5)
	s := &sink{store: newStore()}
	broken := errors.New("does not decode")
	s.before = func(_ context.Context, b Batch) error {
		if b.Slot == 2 {
			return Permanent(broken)
		}
		return nil
	}
	cc := consumerConfig(cfg)
	c, stop := start(t, cc, s)
	eventually(t, "the others applied, slot 2 stalled", func() bool {
		return s.count() == 5*9 && errors.Is(c.Stalled()[2], broken)
	})
	stop()
	if err := Replay(t.Context(), cc, &sink{store: newStore(), before: s.before}); !errors.Is(err, broken) {
		t.Errorf("Replay = %v, want %v", err, broken)
	}
}

func TestRebalanceMovesSlots(t *testing.T) {
	_, cfg, cl := cluster(t)
	st := newStore()
	cc := consumerConfig(cfg)
	cc.Group = "moving"
	cc.MaxRecords = 10
	a, stopA := start(t, cc, &sink{store: st})
	n := produce(t, cl, cfg, 0, 50)
	eventually(t, "a owns all", func() bool { return len(a.Owned()) == testSlots })
	b, stopB := start(t, cc, &sink{store: st})
	i := 50
	eventually(t, "shared evenly, under traffic", func() bool {
		n += produce(t, cl, cfg, i, 1)
		i++
		return len(a.Owned()) == 2 && len(b.Owned()) == 2
	})
	owned := append(a.Owned(), b.Owned()...)
	slices.Sort(owned)
	if d := cmp.Diff([]topic.Slot{0, 1, 2, 3}, owned); d != "" {
		t.Errorf("owned (-want +got):\n%s", d)
	}
	members, err := DescribeGroup(t.Context(), cl, cfg, "moving")
	if err != nil {
		t.Fatal(err)
	}
	if len(members) != 2 || len(members[0].Slots) != 2 || members[0].ClientID != "test" || members[0].Host == "" {
		t.Errorf("members = %+v", members)
	}
	stopA()
	eventually(t, "b owns all, under traffic", func() bool {
		n += produce(t, cl, cfg, i, 1)
		i++
		return len(b.Owned()) == testSlots
	})
	eventually(t, "all applied", func() bool { return st.count() >= n })
	eventually(t, "Kafka's tools see no lag", func() bool {
		lags, err := kadm.NewClient(cl).Lag(t.Context(), "moving")
		if err != nil {
			t.Fatal(err)
		}
		l := lags["moving"].Lag
		for _, tp := range topic.Folded {
			for p := range int32(testSlots) {
				got, ok := l.Lookup(cfg.Name(tp), p)
				if !ok || got.Lag != 0 {
					return false
				}
			}
		}
		return true
	})
	stopB()
	st.check(t, i)
	if got := st.fenced(); got != 0 {
		t.Errorf("an orderly rebalance was fenced %d times, want 0", got)
	}
}

func TestStaticMembershipMovesNothing(t *testing.T) {
	_, cfg, cl := cluster(t)
	st := newStore()
	cc := consumerConfig(cfg)
	cc.Group = "static"
	cc.SessionTimeout = 30 * time.Second
	cc.InstanceID = "a"
	a, stopA := start(t, cc, &sink{store: st})
	cc.InstanceID = "b"
	b, stopB := start(t, cc, &sink{store: st})
	eventually(t, "shared", func() bool { return len(a.Owned()) == 2 && len(b.Owned()) == 2 })
	hadA, hadB := a.Owned(), b.Owned()
	stopA()
	n := produce(t, cl, cfg, 0, 10)
	cc.InstanceID = "a"
	a, stopA = start(t, cc, &sink{store: st})
	eventually(t, "a is back", func() bool { return len(a.Owned()) == 2 })
	eventually(t, "all applied", func() bool { return st.count() >= n })
	if d := cmp.Diff([][]topic.Slot{hadA, hadB}, [][]topic.Slot{a.Owned(), b.Owned()}); d != "" {
		t.Errorf("owned by a, b (-before +after):\n%s", d)
	}
	stopA()
	stopB()
	st.check(t, 10)
}

// pausable is a network that can be held still, as a stopped process's is: reads and writes wait, until their deadlines pass.
type pausable struct{ held atomic.Bool }

func (p *pausable) wait(c *pausedConn) error {
	for p.held.Load() {
		if at := c.deadline.Load(); at != nil && !at.IsZero() && time.Now().After(*at) {
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

type pausedConn struct {
	net.Conn
	p        *pausable
	deadline atomic.Pointer[time.Time] // the latest that was set, of whichever side
	closed   atomic.Bool
}

func (c *pausedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		err = c.p.wait(c)
	}
	return n, err
}

func (c *pausedConn) Write(b []byte) (int, error) {
	if err := c.p.wait(c); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *pausedConn) SetReadDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetReadDeadline(t)
}

func (c *pausedConn) SetWriteDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *pausedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

func TestZombieIsFenced(t *testing.T) {
	_, cfg, cl := cluster(t)
	st := newStore()
	network := &pausable{}
	defer network.held.Store(false)

	asleep := make(chan struct{})
	wake := make(chan struct{})
	wakeUp := sync.OnceFunc(func() { close(wake) })
	var once sync.Once
	var stopped atomic.Bool
	zombie := &sink{store: st}
	zombie.before = func(context.Context, Batch) error {
		if stopped.Load() { // in the middle of a batch
			once.Do(func() { network.held.Store(true); close(asleep) })
			<-wake
		}
		return nil
	}
	cc := consumerConfig(cfg)
	cc.Group = "zombie"
	cc.SessionTimeout = 400 * time.Millisecond
	cc.HeartbeatInterval = 50 * time.Millisecond
	cc.Kafka.Dial = network.dial
	_, stopZ := start(t, cc, zombie)
	n := produce(t, cl, cfg, 0, 10)
	defer wakeUp()
	eventually(t, "first records applied", func() bool { return st.count() >= n })
	stopped.Store(true)
	n += produce(t, cl, cfg, 10, 10)
	<-asleep

	cc.Kafka.Dial = nil
	heir, stopH := start(t, cc, &sink{store: st})
	eventually(t, "the heir owns all", func() bool { return len(heir.Owned()) == testSlots })
	eventually(t, "the heir has applied all", func() bool { return st.count() >= n })
	wakeUp() // the zombie goes on with the batches that it has in hand
	eventually(t, "the zombie is fenced", func() bool { return st.fenced() > 0 })
	network.held.Store(false)
	n += produce(t, cl, cfg, 20, 10)
	eventually(t, "all applied", func() bool { return st.count() >= n })
	stopZ()
	stopH()
	st.check(t, 30)
}

// announced is a sink that died after it had announced a batch of slot 0.
type announced struct {
	*sink
	mu      sync.Mutex
	pending Positions
	got     []Batch
}

func (a *announced) Pending(_ context.Context, slot topic.Slot) (Positions, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slot != 0 {
		return nil, nil
	}
	return a.pending, nil
}

func (a *announced) Apply(ctx context.Context, b Batch) error {
	if err := a.sink.Apply(ctx, b); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.Slot == 0 {
		a.got = append(a.got, b)
		a.pending = nil
	}
	return nil
}

func TestAnnouncedBatchComesAgainExactly(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 40)
	a := &announced{sink: &sink{store: newStore()}, pending: Positions{topic.Threads: 17, topic.Users: 31}}
	cc := consumerConfig(cfg)
	cc.MaxRecords, cc.QueueRecords = 5, 5
	_, stop := start(t, cc, a)
	eventually(t, "all applied", func() bool { return a.count() >= n })
	stop()
	a.check(t, 40)
	first := a.got[0]
	if d := cmp.Diff(Positions{topic.Threads: 17, topic.Users: 31}, first.To); d != "" || len(first.From) != 0 || len(first.Records) != 48 {
		t.Errorf("first batch: %d records from %v, to (-want +got):\n%s", len(first.Records), first.From, d)
	}
}

func TestReplayEndsAtThePinnedEnd(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 30)
	s := &sink{store: newStore()}
	var once sync.Once
	s.before = func(context.Context, Batch) error {
		once.Do(func() { produce(t, cl, cfg, 30, 10) }) // after the ends were pinned
		return nil
	}
	cc := consumerConfig(cfg)
	cc.MaxRecords, cc.QueueRecords = 8, 8
	if err := Replay(t.Context(), cc, s); err != nil {
		t.Fatal(err)
	}
	s.check(t, 30)
	if err := Replay(t.Context(), cc, s); err != nil { // from where it stood
		t.Fatal(err)
	}
	s.check(t, 40)
	if err := Replay(t.Context(), cc, s); err != nil { // nothing to do
		t.Fatal(err)
	}
	one := &sink{store: newStore()}
	cc.Slots = []topic.Slot{3}
	if err := Replay(t.Context(), cc, one); err != nil {
		t.Fatal(err)
	}
	if got, want := one.count(), 40*3; got != want {
		t.Errorf("records of one slot = %d, want %d", got, want)
	}
}

func TestReplayOfAnEmptyLog(t *testing.T) {
	_, cfg, _ := cluster(t)
	if err := Replay(t.Context(), consumerConfig(cfg), &sink{store: newStore()}); err != nil {
		t.Fatal(err)
	}
}

func TestSlowSinkBoundsTheQueue(t *testing.T) {
	_, cfg, cl := cluster(t)
	var n int
	for i := range 20 { // small fetches: a queue may overshoot by one
		n += produce(t, cl, cfg, i*100, 100)
	}
	hold := make(chan struct{})
	s := &sink{store: newStore()}
	s.before = func(ctx context.Context, _ Batch) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	cc := consumerConfig(cfg)
	cc.MaxRecords, cc.QueueRecords = 50, 200
	_, stop := start(t, cc, s)
	eventually(t, "every slot paused", func() bool { return value(t, reg, "helio_kafka_pauses_total") >= testSlots })
	close(hold)
	eventually(t, "all applied", func() bool { return s.count() >= n })
	eventually(t, "the queue is empty", func() bool { return value(t, reg, "helio_kafka_queue_records") == 0 })
	stop()
	s.check(t, 2000)
	if got := value(t, reg, "helio_kafka_position_gaps_total"); got != 0 {
		t.Errorf("holes = %v, want 0", got)
	}
}

// value sums a metric over its labels.
func value(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fams {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestLag(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 5)
	s := &sink{store: newStore()}
	hold := make(chan struct{})
	s.before = func(_ context.Context, b Batch) error {
		select {
		case <-hold:
			return nil
		default:
			return errors.New("the store is away")
		}
	}
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	c, stop := start(t, consumerConfig(cfg), s)
	want := 5 * testSlots * len(topic.Folded)
	eventually(t, "lag shows", func() bool {
		return value(t, reg, "helio_kafka_lag_records") == float64(want) && value(t, reg, "helio_kafka_lag_seconds") > 0 && len(c.Stalled()) == testSlots
	})
	if got := len(c.Lags()); got != testSlots*len(topic.Folded) {
		t.Errorf("lags = %d", got)
	}
	close(hold)
	eventually(t, "lag is gone", func() bool {
		return value(t, reg, "helio_kafka_lag_records") == 0 && value(t, reg, "helio_kafka_lag_seconds") == 0
	})
	stop()
}

func TestPositionOutsideTheLogStalls(t *testing.T) {
	_, cfg, cl := cluster(t)
	n := produce(t, cl, cfg, 0, 5)
	s := &sink{store: newStore()}
	s.next[1] = Positions{topic.Threads: 1000}
	c, stop := start(t, consumerConfig(cfg), s)
	eventually(t, "slot 1 stalls", func() bool { return errors.Is(c.Stalled()[1], ErrPositions) })
	eventually(t, "the others go on", func() bool { return s.count() >= n*3/4 })
	stop()
	if got := s.read(1)[topic.Threads]; got != 1000 {
		t.Errorf("stored position = %d, want it untouched", got)
	}
}

func TestBase(t *testing.T) {
	_, cfg, cl := cluster(t)
	base := func(b uint64) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: topic.BaseHeader, Value: binary.BigEndian.AppendUint64(nil, b)}}
	}
	first := cfg.NewRecord(topic.Threads, 1, nil, []byte("opened"))
	first.Headers = base(5000)
	if err := cl.ProduceSync(t.Context(), first, cfg.NewRecord(topic.Threads, 1, nil, []byte("next"))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b, err := LoadBases(t.Context(), cl, cfg, topic.Folded, testSlots)
	if err != nil {
		t.Fatal(err)
	}
	if got := []topic.Position{b.Of(topic.Threads, 1), b.Of(topic.Threads, 2), b.Of(topic.Users, 1), b.Of(topic.Presence, 1)}; !slices.Equal(got, []topic.Position{5000, 0, 0, 0}) {
		t.Errorf("bases = %v", got)
	}
	s := &sink{store: newStore()}
	_, stop := start(t, consumerConfig(cfg), s)
	eventually(t, "read", func() bool { return s.count() == 2 })
	// A base that is only learned while the loop runs: the partition was empty before.
	late := cfg.NewRecord(topic.Users, 2, nil, []byte("opened"))
	late.Headers = base(700)
	if err := cl.ProduceSync(t.Context(), late).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "read", func() bool { return s.count() == 3 })
	stop()
	if got := [2]topic.Position{s.read(1)[topic.Threads], s.read(2)[topic.Users]}; got != [2]topic.Position{5002, 701} {
		t.Errorf("next positions = %v", got)
	}
	again := &sink{store: s.store}
	_, stop = start(t, consumerConfig(cfg), again)
	if err := cl.ProduceSync(t.Context(), cfg.NewRecord(topic.Threads, 1, nil, []byte("third"))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "read on from the stored position", func() bool { return s.count() == 4 })
	stop()
	if d := cmp.Diff([]string{"opened", "next", "third"}, s.rows[1][topic.Threads]); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

func TestEnsureTopics(t *testing.T) {
	fake, cfg, cl := cluster(t)
	cfg.Partitions = 0
	p, err := EnsureTopics(t.Context(), cl, cfg)
	if err != nil || p != testSlots {
		t.Fatalf("adopt: %d, %v", p, err)
	}
	cfg.Partitions = 8
	var wrong *PartitionsError
	if _, err := EnsureTopics(t.Context(), cl, cfg); !errors.As(err, &wrong) || wrong.Have != testSlots || wrong.Want != 8 {
		t.Errorf("other count: %v", err)
	}
	cfg.TopicPrefix, cfg.Partitions = "other.", 0
	if err := fake.CreateTopic("other.users", 3, map[string]string{"retention.ms": "604800000"}); err != nil {
		t.Fatal(err)
	}
	if p, err := EnsureTopics(t.Context(), cl, cfg); err != nil || p != 3 {
		t.Fatalf("a topic that a broker made: %d, %v", p, err)
	}
	for tp, want := range map[topic.Topic][2]string{topic.Users: {"delete", "-1"}, topic.Receipts: {"compact", "-1"}, topic.Presence: {"compact,delete", presenceRetention}} {
		got := [2]string{"delete", "604800000"} // Kafka's defaults
		for i, k := range []string{"cleanup.policy", "retention.ms"} {
			if v := fake.TopicInfo(cfg.Name(tp)).Configs[k]; v != nil {
				got[i] = *v
			}
		}
		if got != want {
			t.Errorf("%s: settings = %v, want %v", tp, got, want)
		}
	}
	if err := fake.CreateTopic("third.users", 3, nil); err != nil {
		t.Fatal(err)
	}
	if err := fake.CreateTopic("third.threads", 2, nil); err != nil {
		t.Fatal(err)
	}
	cfg.TopicPrefix = "third."
	if _, err := EnsureTopics(t.Context(), cl, cfg); !errors.As(err, &wrong) {
		t.Errorf("two counts: %v", err)
	}
}

func TestProducerFailsWhenTheLogIsGone(t *testing.T) {
	fake, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 1)
	fake.Close()
	errs := make(chan error, 1)
	begin := time.Now()
	cl.TryProduce(context.Background(), cfg.NewRecord(topic.Threads, 0, nil, []byte("x")), func(_ *kgo.Record, err error) { errs <- err })
	if err := <-errs; err == nil {
		t.Error("a record was acknowledged without a log")
	}
	t.Logf("failed after %v", time.Since(begin))
}

func TestProducerFailsWhenTheLogIsMute(t *testing.T) {
	network := &pausable{}
	defer network.held.Store(false)
	_, cfg, first := cluster(t)
	first.Close()
	cfg.Dial = network.dial
	cl, err := Dial(cfg, ProducerOpts(ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	produce(t, cl, cfg, 0, 1)
	network.held.Store(true)
	errs := make(chan error, 1)
	begin := time.Now()
	cl.TryProduce(context.Background(), cfg.NewRecord(topic.Threads, 0, nil, []byte("x")), func(_ *kgo.Record, err error) { errs <- err })
	if err := <-errs; err == nil {
		t.Error("a record was acknowledged by a mute log")
	}
	t.Logf("failed after %v", time.Since(begin))
	network.held.Store(false)
	eventually(t, "the producer works again", func() bool {
		return cl.ProduceSync(t.Context(), cfg.NewRecord(topic.Threads, 0, nil, []byte("y"))).FirstErr() == nil
	})
}

func TestConfigValidate(t *testing.T) {
	bad := Config{Brokers: []string{"nowhere"}, Partitions: -1, TopicPrefix: "a/b", SASL: SASL{Mechanism: "kerberos"}}
	bad.TLS.CAFile = "x"
	err := bad.Validate()
	for _, want := range []string{"nowhere", "-1 partitions", "a/b", "kerberos", "TLS is not enabled"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
	good := Config{Brokers: []string{"a:1"}, SASL: SASL{Mechanism: MechanismScramSHA512, User: "u", Password: "hunter2"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, good); strings.Contains(s, "hunter2") {
			t.Errorf("%s shows the password: %s", verb, s)
		}
	}
}

func TestTwoClientsOfOneNameShareARegistry(t *testing.T) {
	_, cfg, _ := cluster(t)
	cfg.Registerer = prometheus.NewRegistry()
	for range 2 {
		cl, err := Dial(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
