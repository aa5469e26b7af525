package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/topic"
)

// begin runs a consumer until stop.
func begin(t *testing.T, cfg ConsumerConfig, sink Sink) (con *Consumer, stop func()) {
	t.Helper()
	con, err := NewConsumer(cfg, sink)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := con.Run(ctx); err != nil {
			t.Errorf("consumer: %v", err)
		}
	})
	return con, func() { cancel(); wg.Wait() }
}

// placed is a sink that keeps each record's position too.
type placed struct {
	*marked
	at map[topic.Topic]map[topic.Slot][]topic.Position
}

func newPlaced() *placed {
	return &placed{newMarked(), make(map[topic.Topic]map[topic.Slot][]topic.Position)}
}

func (p *placed) Apply(ctx context.Context, b Batch) error {
	if err := p.marked.Apply(ctx, b); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range b.Records {
		if p.at[r.Topic] == nil {
			p.at[r.Topic] = make(map[topic.Slot][]topic.Position)
		}
		p.at[r.Topic][r.Slot] = append(p.at[r.Topic][r.Slot], r.Position)
	}
	return nil
}

// rows returns what lies where, of one slot.
func (p *placed) rows(tp topic.Topic, s topic.Slot) (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	for i, v := range p.store.rows[s][tp] {
		out = append(out, fmt.Sprintf("%d %s", p.at[tp][s][i], v))
	}
	return out
}

// TestAdoptedLogGoesOn: after an operator has adopted a log that was set back and has grown since, a view that had not
// read further than what is left goes on, one that had says what it has read and takes in nothing, and a fresh one has
// exactly the log, with positions that only grow, past all that were told before.
func TestAdoptedLogGoesOn(t *testing.T) {
	for _, grown := range []int{0, 5, 25} {
		for _, anew := range []bool{false, true} { // whether consumers run meanwhile or start after it
			t.Run(fmt.Sprintf("grown=%d/anew=%t", grown, anew), func(t *testing.T) {
				t.Parallel()
				a := newAged(t)
				cfg := ConsumerConfig{Kafka: a.cfg, View: "test", layoutEvery: 50 * time.Millisecond}
				cfg.BackoffMax = 200 * time.Millisecond
				per := testSlots * len(topic.Folded)
				a.produce(0, 8)
				slow, fast := newPlaced(), newPlaced()
				_, stop := begin(t, cfg, slow)
				eventually(t, "the slow view has some", func() bool { return slow.store.count() == 8*per })
				stop()
				a.produce(8, 2)
				kept := a.Keep()
				a.produce(10, 10)
				con, stop := begin(t, cfg, fast)
				eventually(t, "the fast view has all", func() bool { return fast.store.count() == 20*per })
				if anew {
					stop()
				}
				var at []Standing
				for s := range topic.Slot(testSlots) {
					for _, tp := range topic.Folded {
						at = append(at, Standing{
							Topic: tp, Slot: s, Next: fast.store.read(s)[tp], Mark: fast.marks[s][tp], Time: time.Now(),
						})
					}
				}
				a.SetBack(kept)
				a.produce(100, grown)

				cl := a.client()
				defer cl.Close()
				bases, err := LoadBases(t.Context(), cl, a.cfg, topic.Folded, testSlots)
				if err != nil {
					t.Fatal(err)
				}
				plan, faults, err := PlanAdoption(t.Context(), a.cfg, bases, at)
				if err != nil || len(plan) != per || len(faults) != per {
					t.Fatalf("a plan of %d partitions with %d faults, want %d: %v", len(plan), len(faults), per, err)
				}
				for range 2 { // as after a failure
					if err := Adopt(t.Context(), a.cfg, plan); err != nil {
						t.Fatal(err)
					}
				}
				a.produce(200, 5)
				if err := bases.Reload(t.Context(), cl); err != nil {
					t.Fatal(err)
				}
				again, _, err := PlanAdoption(t.Context(), a.cfg, bases, at)
				if err != nil || len(again) > 0 {
					t.Errorf("once adopted, a plan has %d partitions: %v", len(again), err)
				}

				fresh := newPlaced()
				_, stopFresh := begin(t, cfg, fresh)
				defer stopFresh()
				_, stopSlow := begin(t, cfg, slow)
				defer stopSlow()
				if anew {
					con, stop = begin(t, cfg, fast)
				}
				defer stop()
				all := (10 + grown + 2 + 5) * per // two markers
				eventually(t, "a fresh view has the log", func() bool { return fresh.store.count() == all })
				eventually(t, "the slow view has the log", func() bool { return slow.store.count() == all })
				eventually(t, "the fast view says what it has read", func() bool {
					for _, err := range con.Stalled() {
						var wrong *LogError
						if !errors.As(err, &wrong) || wrong.Fault != FaultGivenUp {
							return false
						}
					}
					return len(con.Stalled()) == testSlots
				})
				if n := fast.store.count(); n != 20*per {
					t.Errorf("the fast view has taken in %d records, want what it had, %d", n, 20*per)
				}
				for _, tp := range topic.Folded {
					for s := range topic.Slot(testSlots) {
						if d := cmp.Diff(fresh.rows(tp, s), slow.rows(tp, s)); d != "" {
							t.Errorf("%s/%d (-fresh +slow):\n%s", tp, s, d)
						}
						for i, p := range fresh.at[tp][s] {
							want := topic.Position(i)
							if i >= 10 {
								want = 1<<eraBits + topic.Position(i-10)
							}
							if p != want {
								t.Fatalf("%s/%d: record %d lies at %d, want %d", tp, s, i, p, want)
							}
						}
					}
				}
			})
		}
	}
}

// TestAdoptedCut: a log without its head that was adopted is folded from where it begins.
func TestAdoptedCut(t *testing.T) {
	_, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 10)
	cut(t, cl, cfg, topic.Threads, 1, 4)
	bases, err := LoadBases(t.Context(), cl, cfg, topic.Folded, testSlots)
	if err != nil {
		t.Fatal(err)
	}
	plan, _, err := PlanAdoption(t.Context(), cfg, bases, []Standing{{Topic: topic.Threads, Slot: 1, Next: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Opened{{Topic: topic.Threads, Slot: 1, First: 4, Read: 10}}, plan); d != "" {
		t.Fatalf("plan (-want +got):\n%s", d)
	}
	if err := Adopt(t.Context(), cfg, plan); err != nil {
		t.Fatal(err)
	}
	st := newPlaced()
	if err := Replay(t.Context(), ConsumerConfig{Kafka: cfg, View: "test"}, st); err != nil {
		t.Fatal(err)
	}
	if got := st.at[topic.Threads][1]; len(got) != 7 || got[0] != 4 || got[6] != 10 {
		t.Errorf("records at %v, want 4 to 10", got)
	}
}

// TestErasFollowEachOther: what was decided last counts, also where an earlier decision had begun further on, and a
// partition ends where its last era does.
func TestErasFollowEachOther(t *testing.T) {
	cfg := Config{Brokers: []string{"x:1"}}
	name := cfg.Name(topic.Threads)
	first, second := era{900, 1<<40 - 900}, era{850, 1<<41 - 850}
	for _, order := range [][]era{{first, second}, {second, first}, {first, second, first}} {
		b := NewBases(cfg, topic.Folded, 1)
		for _, e := range order {
			b.add(name, 0, e, 0)
		}
		last := topic.Position(-1)
		for offset := range int64(1000) {
			p := b.At(topic.Threads, 0, offset)
			if p <= last {
				t.Fatalf("%v: offset %d lies at %d, the one before at %d", order, offset, p, last)
			}
			if got := b.Offset(topic.Threads, 0, p); got != offset || b.GivenUp(topic.Threads, 0, p) {
				t.Fatalf("%v: position %d is offset %d, want %d", order, p, got, offset)
			}
			last = p
		}
		for _, p := range []topic.Position{851, 999, 1 << 40, 1<<40 + 10} {
			if !b.GivenUp(topic.Threads, 0, p) {
				t.Errorf("%v: %d is not given up", order, p)
			}
		}
		if got := b.end(name, 0, 850); got != 850 || b.GivenUp(topic.Threads, 0, got) {
			t.Errorf("%v: it ends at %d, want 850", order, got)
		}
	}
}
