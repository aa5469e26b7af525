package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func eachSinkCallFailsOnce(t *testing.T, cfg Config, cl *kgo.Client) {
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
	// Stored, but the answer was lost: the same batch comes again, the compare-and-set refuses it, and the slot is
	// opened anew.
	s.after = func(b Batch) error { return once("after", b.Slot, b, transient) }
	cc := consumerConfig(cfg)
	cc.MaxRecords = 20
	_, stop := start(t, cc, &noCheck{s})
	eventually(t, "all applied", func() bool { return s.count() >= n })
	stop()
	s.check(t, 50)
}

// noCheck runs the before hook only while the store stands at the batch's From, since a batch whose answer was lost
// does not.
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

func rebalanceMovesSlots(t *testing.T, cfg Config, cl *kgo.Client) {
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

func staticMembershipMovesNothing(t *testing.T, cfg Config, cl *kgo.Client) {
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
	if d := cmp.Diff(Positions{topic.Threads: 17, topic.Users: 31}, first.To); d != "" || len(first.From) != 0 ||
		len(first.Records) != 48 {
		t.Errorf("first batch: %d records from %v, to (-want +got):\n%s", len(first.Records), first.From, d)
	}
}

func replayEndsAtThePinnedEnd(t *testing.T, cfg Config, cl *kgo.Client) {
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
	cc := consumerConfig(cfg)
	cc.Group = "live" // it would take slots from those who serve them
	if err := Replay(t.Context(), cc, &sink{store: newStore()}); err == nil {
		t.Error("a replay joins a group")
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
		t.Errorf("gaps = %v, want 0", got)
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

func lag(t *testing.T, cfg Config, cl *kgo.Client) {
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
		return value(t, reg, "helio_kafka_lag_records") == float64(want) &&
			value(t, reg, "helio_kafka_lag_seconds") > 0 &&
			len(c.Stalled()) == testSlots
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

// A consumer that the log does not answer, or that its group does not take, has no lag to show: that it is unsure shows
// instead, and passes.
func TestUnsure(t *testing.T) {
	for name, grouped := range map[string]bool{"the log does not answer": false, "the group does not take it": true} {
		t.Run(name, func(t *testing.T) {
			fake, cfg, cl := cluster(t)
			produce(t, cl, cfg, 0, 1)
			var away atomic.Bool
			away.Store(true)
			network := &pausable{}
			cfg.Dial = network.dial
			reg := prometheus.NewRegistry()
			cfg.Registerer = reg
			conf := consumerConfig(cfg)
			if grouped {
				conf.Group, conf.InstanceID = "unsure", "one"
				fake.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
					fake.KeepControl()
					resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
					resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
					return resp, nil, away.Load()
				})
			}
			c, stop := start(t, conf, &sink{store: newStore()})
			if !grouped {
				eventually(
					t, "it is sure",
					func() bool { return c.Partitions() == testSlots && c.Unsure() < 100*time.Millisecond },
				)
				network.held.Store(true)
			}
			eventually(t, "it is unsure", func() bool {
				return c.Unsure() > 300*time.Millisecond && value(t, reg, "helio_kafka_lag_unsure_seconds") > 0.1
			})
			away.Store(false)
			network.held.Store(false)
			eventually(t, "it is sure again", func() bool {
				return c.Unsure() < 100*time.Millisecond && value(t, reg, "helio_kafka_lag_unsure_seconds") < 0.1
			})
			stop()
		})
	}
}
