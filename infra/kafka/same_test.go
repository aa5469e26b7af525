package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka/kafkatest"
	"heliograph/schemas/topic"
)

// aged is the log of a broker that has accidents.
type aged struct {
	*kafkatest.Broker
	t   *testing.T
	cfg Config
}

func newAged(t *testing.T) *aged {
	t.Helper()
	a := &aged{Broker: kafkatest.Start(t), t: t}
	a.cfg = Config{Brokers: []string{a.Addr()}, ClientID: "test", Partitions: testSlots}
	cl := a.client()
	defer cl.Close()
	if _, err := EnsureTopics(t.Context(), cl, a.cfg); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *aged) client() *kgo.Client {
	a.t.Helper()
	cl, err := Dial(a.cfg, ProducerOpts(ProducerConfig{})...)
	if err != nil {
		a.t.Fatal(err)
	}
	return cl
}

func (a *aged) produce(from, n int) {
	a.t.Helper()
	cl := a.client()
	defer cl.Close()
	produce(a.t, cl, a.cfg, from, n)
}

// marked is a sink that keeps marks.
type marked struct {
	*memorySink
	mu    sync.Mutex
	marks map[topic.Slot]Marks
}

func newMarked() *marked {
	return &marked{memorySink: &memorySink{store: newStore()}, marks: make(map[topic.Slot]Marks)}
}

func (m *marked) Marks(_ context.Context, s topic.Slot) (Marks, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks[s].Clone(), nil
}

func (m *marked) Apply(ctx context.Context, b Batch) error {
	if err := m.memorySink.Apply(ctx, b); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[b.Slot] = b.Marks.Clone()
	return nil
}

type memorySink struct{ store *store }

func (m *memorySink) Open(_ context.Context, s topic.Slot) (Positions, error) {
	return m.store.read(s), nil
}
func (m *memorySink) Apply(_ context.Context, b Batch) error { return m.store.write(b) }
func (m *memorySink) Close(topic.Slot, bool)                 {}

// gate is a dial that can be shut.
type gate struct {
	mu   sync.Mutex
	shut bool
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
}

func (g *gate) dial(ctx context.Context, network, host string) (net.Conn, error) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut {
		return nil, errors.New("shut")
	}
	return (&net.Dialer{}).DialContext(ctx, network, host)
}

// TestAnotherLogIsNoticed: a view that has read a log, and then meets one that was set back, changed, made anew or cut,
// takes in nothing of it, whether it runs meanwhile or not, and whether the other log has grown past it or not.
func TestAnotherLogIsNoticed(t *testing.T) {
	for _, c := range []struct {
		name string
		// what becomes of the log after 20 records in each partition were read; kept has the first 10
		accident func(t *testing.T, a *aged, kept string)
		want     Fault
	}{
		{"set back", func(_ *testing.T, a *aged, kept string) { a.SetBack(kept) }, FaultSetBack},
		{"set back and grown to where it was", func(_ *testing.T, a *aged, kept string) {
			a.SetBack(kept)
			a.produce(100, 10)
		}, FaultChanged},
		{"set back and grown past it", func(_ *testing.T, a *aged, kept string) {
			a.SetBack(kept)
			a.produce(100, 25)
		}, FaultChanged},
		{"set back by one", func(t *testing.T, a *aged, _ string) {
			kept := a.Keep()
			a.produce(20, 1)
			a.SetBack(kept)
		}, ""},
		{"made anew", func(t *testing.T, a *aged, _ string) {
			cl := a.client()
			defer cl.Close()
			adm := kadm.NewClient(cl)
			for _, tp := range topic.All {
				if _, err := adm.DeleteTopics(t.Context(), a.cfg.Name(tp)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := EnsureTopics(t.Context(), cl, a.cfg); err != nil {
				t.Fatal(err)
			}
			a.produce(100, 25)
		}, FaultReplaced},
		{"cut", func(t *testing.T, a *aged, _ string) {
			cl := a.client()
			defer cl.Close()
			for s := range topic.Slot(testSlots) {
				cut(t, cl, a.cfg, topic.Threads, s, 5)
			}
		}, FaultCut},
	} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/running=%t", c.name, running), func(t *testing.T) {
				t.Parallel()
				a := newAged(t)
				a.produce(0, 10)
				kept := a.Keep()
				a.produce(10, 10)
				g := &gate{}
				cfg := ConsumerConfig{Kafka: a.cfg, View: "test", layoutEvery: 50 * time.Millisecond}
				cfg.Kafka.Dial = g.dial
				sink := newMarked()
				con, stop := begin(t, cfg, sink)
				all := 20 * testSlots * len(topic.Folded)
				eventually(t, "all is read", func() bool { return sink.store.count() == all })
				if c.want == "" { // what was never read may go
					stop()
					c.accident(t, a, kept)
					con, stop = begin(t, cfg, sink)
					a.produce(30, 1)
					eventually(t, "the log goes on", func() bool {
						return sink.store.count() == all+testSlots*len(topic.Folded)
					})
					stop()
					return
				}
				if !running {
					stop()
				}
				g.set(true) // who runs does not see the log before the accident is over
				c.accident(t, a, kept)
				g.set(false)
				if !running {
					con, stop = begin(t, cfg, sink)
				}
				defer stop()
				eventually(t, "every slot says what is wrong", func() bool {
					for _, err := range con.Stalled() {
						var wrong *LogError
						// While it happens it may look like something else.
						if !errors.As(err, &wrong) || !errors.Is(err, ErrPositions) || wrong.Fault != c.want {
							return false
						}
					}
					return len(con.Stalled()) == testSlots
				})
				if n := sink.store.count(); n != all {
					t.Errorf("%d records were taken in, want %d and none of the other log", n, all)
				}
			})
		}
	}
}

// cut takes the head of a partition away.
func cut(t *testing.T, cl *kgo.Client, cfg Config, tp topic.Topic, s topic.Slot, to int64) {
	t.Helper()
	var off kadm.Offsets
	off.AddOffset(cfg.Name(tp), int32(s), to, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), off); err != nil {
		t.Fatal(err)
	}
}

// TestNoViewIsMadeOfACutLog: what lacks its head cannot be folded from its beginning.
func TestNoViewIsMadeOfACutLog(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 10)
	cut(t, cl, cfg, topic.Threads, 1, 10)
	err := Replay(t.Context(), ConsumerConfig{Kafka: cfg, View: "test"}, &memorySink{store: newStore()})
	var wrong *LogError
	if !errors.As(err, &wrong) || wrong.Fault != FaultCut || wrong.Slot != 1 {
		t.Errorf("a rebuild from a log without its head: %v, want that slot 1 is cut", err)
	}
}

// One slot alone, in which there is little, is read by a consumer that lets the log gather: its only fetch waits while
// the log is looked at.
func TestOneSlotOfAQuietLogIsRead(t *testing.T) {
	a := newAged(t)
	a.produce(0, 20)
	sink := newMarked()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := Replay(ctx, ConsumerConfig{
		Kafka: a.cfg, View: "test", Slots: []topic.Slot{1}, Topics: []topic.Topic{topic.Threads},
		Linger: 500 * time.Millisecond,
	}, sink)
	if err != nil {
		t.Fatal(err)
	}
	if next := sink.store.read(1); next[topic.Threads] == 0 {
		t.Errorf("nothing was read: %v", next)
	}
}

// begunSink has begun more than it has stored.
type begunSink struct {
	*marked
	begun Positions
}

func (b *begunSink) Pending(context.Context, topic.Slot) (Positions, error) { return b.begun, nil }

// A batch that was begun before the log was set back is not waited for in silence, nor made of other records.
func TestBegunBatchOfAnotherLog(t *testing.T) {
	a := newAged(t)
	a.produce(0, 20)
	sink := &begunSink{newMarked(), Positions{topic.Threads: 25}}
	con, stop := begin(t, ConsumerConfig{Kafka: a.cfg, View: "test", Slots: []topic.Slot{1}}, sink)
	defer stop()
	eventually(t, "the slot says what is wrong", func() bool {
		var wrong *LogError
		return errors.As(con.Stalled()[1], &wrong) && wrong.Fault == FaultSetBack
	})
	if n := sink.store.count(); n != 0 {
		t.Errorf("%d records were taken in, want none", n)
	}
}
