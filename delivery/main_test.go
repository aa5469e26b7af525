package delivery

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"heliograph/infra/kafka"
	"heliograph/infra/link"
	"heliograph/infra/run"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// world is a log of its own and a producer to it.
type world struct {
	t   testing.TB
	cfg kafka.Config
	cl  *kgo.Client
}

func newWorld(t testing.TB) *world {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := kafka.Config{Brokers: fake.ListenAddrs(), Partitions: partitions}
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if _, err := kafka.EnsureTopics(t.Context(), cl, cfg); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, cfg: cfg, cl: cl}
}

func (w *world) service(cfg Config) *Service {
	w.t.Helper()
	cfg.Kafka = w.cfg
	if cfg.Name == "" {
		cfg.Name = "one"
	}
	run.Default(&cfg.heartbeatInterval, 50*time.Millisecond)
	run.Default(&cfg.progressEvery, 10*time.Millisecond)
	s, err := New(cfg, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start runs a service until the returned stop is called, or the test ends.
func (w *world) start(s *Service) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("Run: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) owns(s *Service, n int) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("%d slots are owned", n), func() bool { return len(s.Owned()) == n && s.Ready() == nil })
}

// produce appends one event and returns its position.
func (w *world) produce(tp topic.Topic, subject topic.Subject, value string) topic.Position {
	w.t.Helper()
	key := subject[:]
	if tp == topic.Receipts {
		key = append(append([]byte{}, key...), "device----------"...)
	}
	rec := w.cfg.NewRecord(tp, topic.SlotOf(subject, partitions), key, []byte(value))
	if err := w.cl.ProduceSync(context.Background(), rec).FirstErr(); err != nil {
		w.t.Errorf("produce: %v", err)
	}
	return topic.Position(rec.Offset)
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func subject(i int) topic.Subject {
	var s topic.Subject
	copy(s[:], fmt.Sprintf("subject%09d", i))
	return s
}

// inSlot returns the i-th subject of a slot.
func inSlot(slot topic.Slot, i int) topic.Subject {
	for n := 0; ; n++ {
		if s := subject(n); topic.SlotOf(s, partitions) == slot {
			if i == 0 {
				return s
			}
			i--
		}
	}
}

// open opens a link to s and says hello.
func (w *world) open(s *Service) link.EdgeEnd {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	edge, end := link.Pipe(0)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeLink(ctx, end) }()
	w.t.Cleanup(func() { edge.Close(); cancel(); <-done })
	hello(w.t, edge)
	return edge
}

func hello(t testing.TB, edge link.EdgeEnd) {
	t.Helper()
	first := linkv1.ToDelivery_builder{Hello: linkv1.EdgeHello_builder{Edge: "edge"}.Build()}.Build()
	if err := edge.Send(context.Background(), first); err != nil {
		t.Fatal(err)
	}
}

func subscribeFrame(id uint64, slot topic.Slot, from *topic.Cursor, subjects ...topic.Subject) *linkv1.ToDelivery {
	b := linkv1.Subscribe_builder{Id: id, Slot: int32(slot)}
	for _, s := range subjects {
		b.Subjects = append(b.Subjects, s[:])
	}
	if from != nil {
		b.From = link.EncodeCursor(*from)
	}
	return linkv1.ToDelivery_builder{Subscribe: b.Build()}.Build()
}

// follower is an edge that follows the protocol: it keeps a cursor per slot from Progress, subscribes again with every
// owner from there, and drops by position.
type follower struct {
	t        *testing.T
	dir      link.Directory
	dialer   link.Dialer
	subjects map[topic.Slot][]topic.Subject

	ids   atomic.Uint64
	mu    sync.Mutex
	next  map[topic.Slot]topic.Cursor
	got   map[stream][]topic.Position
	again int // events that came more than once
	links int // that were opened
	gaps  int
}

type stream struct {
	topic   int
	subject topic.Subject
}

func newFollower(t *testing.T, dir link.Directory, dialer link.Dialer, subjects []topic.Subject) *follower {
	f := &follower{t: t, dir: dir, dialer: dialer, subjects: make(map[topic.Slot][]topic.Subject),
		next: make(map[topic.Slot]topic.Cursor), got: make(map[stream][]topic.Position)}
	for _, s := range subjects {
		slot := topic.SlotOf(s, partitions)
		f.subjects[slot] = append(f.subjects[slot], s)
	}
	return f
}

// run keeps a link to every instance until ctx ends.
func (f *follower) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	open := make(map[string]bool)
	for ctx.Err() == nil {
		list, _ := f.dir.Instances(ctx)
		for _, i := range list {
			mu.Lock()
			busy := open[i.Name]
			open[i.Name] = true
			mu.Unlock()
			if busy {
				continue
			}
			wg.Go(func() {
				defer func() { mu.Lock(); open[i.Name] = false; mu.Unlock() }()
				if edge, err := f.dialer.Dial(ctx, i); err == nil {
					f.serve(ctx, edge)
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (f *follower) serve(ctx context.Context, edge link.EdgeEnd) {
	defer edge.Close()
	f.mu.Lock()
	f.links++
	f.mu.Unlock()
	hello(f.t, edge)
	type sub struct {
		id   uint64
		from topic.Cursor
		live bool
	}
	subs := make(map[topic.Slot]*sub)
	last := make(map[[3]int64]int64) // order within (topic, slot, subscription)
	for {
		m, err := edge.Recv(ctx)
		if err != nil {
			return
		}
		switch m.WhichBody() {
		case linkv1.ToEdge_Owned_case:
			have := make(map[topic.Slot]bool)
			for _, n := range m.GetOwned().GetSlots() {
				slot := topic.Slot(n)
				have[slot] = true
				if subs[slot] != nil || len(f.subjects[slot]) == 0 {
					continue
				}
				f.mu.Lock()
				s := &sub{id: f.ids.Add(1), from: f.next[slot]}
				f.mu.Unlock()
				subs[slot] = s
				if edge.Send(ctx, subscribeFrame(s.id, slot, &s.from, f.subjects[slot]...)) != nil {
					return
				}
			}
			for slot := range subs {
				if !have[slot] {
					delete(subs, slot)
					for k := range last {
						if k[1] == int64(slot) {
							delete(last, k)
						}
					}
				}
			}
		case linkv1.ToEdge_Subscribed_case:
			a := m.GetSubscribed()
			s := subs[topic.Slot(a.GetSlot())]
			if s == nil || s.id != a.GetId() || a.GetNotOwner() {
				continue
			}
			s.live = true
			for t, p := range link.DecodeCursor(a.GetLiveFrom()) {
				if p > s.from[t] {
					f.mu.Lock()
					f.gaps++
					f.mu.Unlock()
				}
			}
		case linkv1.ToEdge_Progress_case:
			for _, p := range m.GetProgress().GetSlots() {
				slot := topic.Slot(p.GetSlot())
				if s := subs[slot]; s == nil || !s.live {
					continue
				}
				f.mu.Lock()
				c := f.next[slot]
				for t, n := range link.DecodeCursor(p.GetNext()) {
					c[t] = max(c[t], n)
				}
				f.next[slot] = c
				f.mu.Unlock()
			}
		case linkv1.ToEdge_Events_case:
			e := m.GetEvents()
			if s := subs[topic.Slot(e.GetSlot())]; s == nil || !s.live {
				f.t.Errorf("events of slot %d before its Subscribed", e.GetSlot())
			}
			k := [3]int64{int64(e.GetTopic()), int64(e.GetSlot()), int64(e.GetSubscription())}
			for _, r := range e.GetRecords() {
				if p, ok := last[k]; ok && r.GetPosition() <= p {
					f.t.Errorf("position %d follows %d in %v", r.GetPosition(), p, k)
				}
				last[k] = r.GetPosition()
				f.mu.Lock()
				st := stream{int(e.GetTopic() - 1), topic.Subject(r.GetKey())}
				if have := f.got[st]; len(have) > 0 && have[len(have)-1] >= topic.Position(r.GetPosition()) {
					f.again++
				} else {
					f.got[st] = append(have, topic.Position(r.GetPosition()))
				}
				f.mu.Unlock()
			}
		}
	}
}
