package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/kafka"
	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// answer is what a link says about one subscription until its first Progress.
type answer struct {
	LiveFrom topic.Cursor
	NotOwner bool
	Past     []topic.Position // of helio.threads
}

// ask subscribes and reads the answer.
func ask(t *testing.T, edge link.EdgeEnd, m *linkv1.ToDelivery) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := edge.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	id, slot := m.GetSubscribe().GetId(), m.GetSubscribe().GetSlot()
	var a answer
	answered := false
	for {
		m, err := edge.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch m.WhichBody() {
		case linkv1.ToEdge_Subscribed_case:
			if got := m.GetSubscribed(); got.GetId() == id {
				a.LiveFrom, a.NotOwner, answered = link.DecodeCursor(got.GetLiveFrom()), got.GetNotOwner(), true
				if a.NotOwner {
					return a
				}
			}
		case linkv1.ToEdge_Events_case:
			if got := m.GetEvents(); got.GetSubscription() == id && got.GetTopic() == topic.Threads.Number() {
				for _, r := range got.GetRecords() {
					a.Past = append(a.Past, topic.Position(r.GetPosition()))
				}
			}
		case linkv1.ToEdge_Progress_case:
			for _, p := range m.GetProgress().GetSlots() {
				if answered && p.GetSlot() == slot {
					return a
				}
			}
		}
	}
}

func TestSubscribe(t *testing.T) {
	a, other := inSlot(1, 0), inSlot(1, 1)
	for _, tc := range []struct {
		name   string
		cfg    Config
		from   *topic.Cursor
		want   answer
		served string
	}{
		{name: "fresh", want: answer{Past: []topic.Position{0, 2, 4}}, served: servedFresh},
		{name: "from the ring", from: &topic.Cursor{1, 0, 0},
			want: answer{LiveFrom: topic.Cursor{1, 0, 0}, Past: []topic.Position{2, 4}}, served: servedRing},
		{name: "at the end", from: &topic.Cursor{6, 0, 0},
			want: answer{LiveFrom: topic.Cursor{6, 0, 0}}, served: servedRing},
		{name: "ahead of this instance", from: &topic.Cursor{9, 0, 7},
			want: answer{LiveFrom: topic.Cursor{9, 0, 7}}, served: servedRing},
		{name: "older than the ring", cfg: Config{ringBytes: 1}, from: &topic.Cursor{1, 0, 0},
			want: answer{LiveFrom: topic.Cursor{1, 0, 0}, Past: []topic.Position{2, 4}}, served: servedLog},
		{name: "older than the log may serve",
			cfg: Config{ringBytes: 1, maxGapRecords: 2}, from: &topic.Cursor{1, 0, 0},
			want: answer{LiveFrom: topic.Cursor{6, 0, 0}}, served: servedSnapshot},
		{name: "without a ring", cfg: Config{ringBytes: 1},
			want: answer{LiveFrom: topic.Cursor{6, 0, 0}}, served: servedFresh},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			s := w.service(tc.cfg)
			w.start(s)
			w.owns(s, partitions)
			for i := range 6 {
				w.produce(topic.Threads, []topic.Subject{a, other}[i%2], fmt.Sprint(i))
			}
			until(t, "the slot is read", func() bool {
				sl := s.slot(1)
				sl.mu.Lock()
				defer sl.mu.Unlock()
				return sl.ring.next() == topic.Cursor{6, 0, 0}
			})
			edge := w.open(s)
			if got := ask(t, edge, subscribeFrame(7, 1, tc.from, a)); !cmp.Equal(got, tc.want) {
				t.Errorf("answer (-want +got):\n%s", cmp.Diff(tc.want, got))
			}
			if n := count(t, s, tc.served); n != 1 {
				t.Errorf("%v subscribes served as %s, want 1", n, tc.served)
			}
		})
	}
}

func TestNotOwner(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{}) // not running: it owns nothing
	edge := w.open(s)
	if got := ask(t, edge, subscribeFrame(1, 2, nil, inSlot(2, 0))); !got.NotOwner {
		t.Errorf("got %+v, want not owner", got)
	}
}

// An edge that asks is told once more what the instance owns (link.proto section 6).
func TestAskOwned(t *testing.T) {
	w := newWorld(t)
	edge := w.open(w.service(Config{}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := range 3 { // the first is said without having been asked for
		m, err := edge.Recv(ctx)
		if err != nil || !m.HasOwned() {
			t.Fatalf("frame %d: %v, %v; want Owned", n, m, err)
		}
		if err := edge.Send(ctx, linkv1.ToDelivery_builder{AskOwned: &linkv1.AskOwned{}}.Build()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{})
	w.start(s)
	w.owns(s, partitions)
	edge := w.open(s)
	a, b := inSlot(0, 0), inSlot(0, 1)
	ask(t, edge, subscribeFrame(1, 0, nil, a, b))
	gone := linkv1.Unsubscribe_builder{Slot: 0, Subjects: [][]byte{a[:]}}.Build()
	if err := edge.Send(t.Context(), linkv1.ToDelivery_builder{Unsubscribe: gone}.Build()); err != nil {
		t.Fatal(err)
	}
	ask(t, edge, subscribeFrame(2, 0, nil, inSlot(0, 2))) // requests of a slot are served in order
	w.produce(topic.Threads, a, "not wanted")
	w.produce(topic.Receipts, b, "wanted")
	for {
		m, err := edge.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range m.GetEvents().GetRecords() {
			if topic.Subject(r.GetKey()) == a {
				t.Error("an event of the dropped subject came")
			}
			if string(r.GetValue()) == "wanted" {
				return
			}
		}
	}
}

func TestFirstFrameMustBeHello(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{})
	edge, end := link.Pipe(0)
	defer edge.Close()
	if err := edge.Send(t.Context(), subscribeFrame(1, 0, nil, subject(1))); err != nil {
		t.Fatal(err)
	}
	var le *linkError
	if err := s.ServeLink(t.Context(), end); !errors.As(err, &le) || le.reason != reasonProtocol {
		t.Errorf("ServeLink: %v, want a protocol error", err)
	}
}

// TestOneSubjectTooMany is refused by itself: the link goes on, with the events of the others, and takes it once there
// is room.
func TestOneSubjectTooMany(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{MaxSubjects: 3})
	w.start(s)
	w.owns(s, partitions)
	edge, end := link.Pipe(0)
	defer edge.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.ServeLink(t.Context(), end) }()
	send := func(m *linkv1.ToDelivery) {
		t.Helper()
		if err := edge.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	answer := func() (refused []topic.Subject, reason linkv1.Refusal) {
		t.Helper()
		for {
			m, err := edge.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.WhichBody() != linkv1.ToEdge_Subscribed_case {
				continue
			}
			return subjectsOf(m.GetSubscribed().GetRefused()), m.GetSubscribed().GetReason()
		}
	}
	one, two, three, four := inSlot(0, 0), inSlot(0, 1), inSlot(0, 2), inSlot(0, 3)
	send(linkv1.ToDelivery_builder{Hello: linkv1.EdgeHello_builder{Edge: "edge", Refusals: true}.Build()}.Build())
	send(subscribeFrame(1, 0, nil, one, two))
	if no, reason := answer(); len(no) != 0 || reason != linkv1.Refusal_REFUSAL_UNSPECIFIED {
		t.Errorf("refused %v of two, for %v", no, reason)
	}
	send(subscribeFrame(2, 0, nil, one, three, four)) // one is there already
	no, reason := answer()
	if len(no) != 1 || no[0] != three && no[0] != four || reason != linkv1.Refusal_REFUSAL_FULL {
		t.Fatalf("refused %v, for %v; want one of the two new ones", no, reason)
	}
	w.produce(topic.Threads, no[0], "to the one that was refused")
	w.produce(topic.Threads, one, "to a subject that was taken")
	for {
		m, err := edge.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.WhichBody() == linkv1.ToEdge_Events_case {
			if got := m.GetEvents().GetRecords()[0].GetKey(); string(got) != string(one[:]) {
				t.Errorf("got an event of %x, want one of %x", got, one)
			}
			break
		}
	}
	send(linkv1.ToDelivery_builder{
		Unsubscribe: linkv1.Unsubscribe_builder{Slot: 0, Subjects: [][]byte{two[:]}}.Build(),
	}.Build())
	send(subscribeFrame(3, 0, nil, no[0]))
	if no, _ := answer(); len(no) != 0 {
		t.Errorf("refused %v with room", no)
	}
	select {
	case err := <-ended:
		t.Errorf("the link ended: %v", err)
	default:
	}
}

// TestMaxSubjects: an edge of a version that does not read refusals loses its link, and so knows.
func TestMaxSubjects(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{MaxSubjects: 3})
	w.start(s)
	w.owns(s, partitions)
	edge, end := link.Pipe(0)
	defer edge.Close()
	hello(t, edge)
	tooMany := subscribeFrame(1, 0, nil, subject(1), subject(2), subject(3), subject(4))
	if err := edge.Send(t.Context(), tooMany); err != nil {
		t.Fatal(err)
	}
	var le *linkError
	if err := s.ServeLink(t.Context(), end); !errors.As(err, &le) || le.reason != reasonSubjects {
		t.Errorf("ServeLink: %v, want too many subjects", err)
	}
}

// A link that reads nothing is closed, with its reason, and the others get everything.
func TestSlowLink(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{})
	w.start(s)
	w.owns(s, partitions)
	local := link.NewLocal(0)
	serve(t, local, "one", s)
	subjects := []topic.Subject{inSlot(0, 0), inSlot(1, 0)}
	f := newFollower(t, local, local, subjects)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { f.run(ctx) })

	slow, end := link.Pipe(16)
	ended := make(chan error, 1)
	wg.Go(func() { ended <- s.ServeLink(ctx, end) })
	hello(t, slow)
	if err := slow.Send(ctx, subscribeFrame(1, 0, &topic.Cursor{}, subjects[0])); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for done := false; !done; n++ {
		w.produce(topic.Threads, subjects[n%2], "x")
		select {
		case err = <-ended:
			done = true
		default:
		}
	}
	var le *linkError
	if !errors.As(err, &le) || le.reason != reasonSlow {
		t.Errorf("ServeLink: %v, want a slow link", err)
	}
	if _, err := slow.Recv(ctx); !errors.Is(err, link.ErrClosed) {
		t.Errorf("Recv on the slow link: %v, want closed", err)
	}
	until(t, "the other link has everything", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.got[stream{0, subjects[0]}])+len(f.got[stream{0, subjects[1]}]) == n
	})
}

func serve(t testing.TB, local *link.Local, name string, s *Service) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = local.Serve(ctx, name, s.ServeLink) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// produceAll appends events about random subjects to all topics until stop is closed, and returns what it appended.
func produceAll(w *world, subjects []topic.Subject, stop <-chan struct{}) map[stream][]topic.Position {
	out := make(map[stream][]topic.Position)
	for {
		select {
		case <-stop:
			return out
		default:
		}
		t := rand.IntN(topics)
		st := stream{t, subjects[rand.IntN(len(subjects))]}
		out[st] = append(out[st], w.produce(topic.Folded[t], st.subject, "event"))
	}
}

// Subscriptions begin all the time while events flow, from the ring, through it and from the log before it: no link may
// miss an event or see one early.
func TestSubscribeUnderLoad(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   Config
		queue int
	}{
		{name: "ring"},
		{name: "small ring", cfg: Config{ringBytes: 4 << 10}},
		{name: "no ring", cfg: Config{ringBytes: 1}},
		{name: "short queue", queue: 24},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			s := w.service(tc.cfg)
			w.start(s)
			w.owns(s, partitions)
			local := link.NewLocal(tc.queue)
			serve(t, local, "one", s)
			subjects := make([]topic.Subject, 200)
			for i := range subjects {
				subjects[i] = subject(i)
			}
			stop := make(chan struct{})
			produced := make(chan map[stream][]topic.Position, 1)
			go func() { produced <- produceAll(w, subjects, stop) }()

			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			var followers []*follower
			for range 12 { // each comes in while the log grows, and wants everything from the beginning
				mine := subjects
				if len(followers)%2 == 1 {
					mine = subjects[:1+rand.IntN(20)]
				}
				f := newFollower(t, local, local, mine)
				followers = append(followers, f)
				wg.Go(func() { f.run(ctx) })
				next := w.produce(topic.Threads, subjects[0], "mark") + 20
				until(t, "the log grows", func() bool {
					return w.produce(topic.Threads, subject(100000), "beat") >= 0 && s.ringNext(subjects[0])[0] > next
				})
			}
			close(stop)
			want := <-produced
			// The marks of the loop above are events of subject 0 too: they are checked by order and by the others
			// alone.
			for i, f := range followers {
				for st, positions := range want {
					if st.subject == subjects[0] || len(f.subjects[topic.SlotOf(st.subject, partitions)]) == 0 ||
						!f.follows(st.subject) {
						continue
					}
					until(t, fmt.Sprintf("follower %d has all of %v", i, st), func() bool {
						f.mu.Lock()
						defer f.mu.Unlock()
						return len(f.got[st]) >= len(positions)
					})
					f.mu.Lock()
					if got := f.got[st]; !cmp.Equal(got, positions) {
						t.Errorf("follower %d, %v (-want +got):\n%s", i, st, cmp.Diff(positions, got))
					}
					f.mu.Unlock()
				}
				f.mu.Lock()
				if f.gaps != 0 {
					t.Errorf("follower %d was told of %d gaps", i, f.gaps)
				}
				if f.again > 0 && f.links == 1 {
					t.Errorf("follower %d saw %d events again on one link", i, f.again)
				}
				f.mu.Unlock()
			}
		})
	}
}

func (f *follower) follows(s topic.Subject) bool {
	for _, o := range f.subjects[topic.SlotOf(s, partitions)] {
		if o == s {
			return true
		}
	}
	return false
}

func (s *Service) ringNext(subject topic.Subject) topic.Cursor {
	sl := s.slot(topic.SlotOf(subject, partitions))
	if sl == nil {
		return topic.Cursor{}
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.ring.next()
}

// Two instances share the slots; they come and go while events flow; an edge that follows the protocol has each event
// exactly once, in order.
func TestTakeover(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		w := newWorld(t)
		local := link.NewLocal(0)
		takeover(t, w, local, local, func(name string) (*Service, func()) {
			s := w.service(Config{Name: name})
			stopRun, stopLinks := w.start(s), serve(t, local, name, s)
			return s, func() { stopRun(); stopLinks() }
		})
	})
	t.Run("over QUIC", func(t *testing.T) {
		w := newWorld(t)
		ca, err := link.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		conf, err := ca.Config("test")
		if err != nil {
			t.Fatal(err)
		}
		begin := func(name string) (*Service, func()) {
			l, err := link.Listen("127.0.0.1:0", conf)
			if err != nil {
				t.Fatal(err)
			}
			s := w.service(Config{Name: name, Addr: l.Addr().String()})
			stopRun := w.start(s)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- l.Serve(ctx, s.ServeLink) }()
			stopLinks := sync.OnceFunc(func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
			t.Cleanup(stopLinks)
			return s, func() { stopRun(); stopLinks() }
		}
		takeover(t, w, link.NewGroupDirectory(w.cl, w.cfg, Group(w.cfg)), link.QUICDialer{TLS: conf}, begin)
	})
}

func takeover(
	t *testing.T, w *world, dir link.Directory, dialer link.Dialer, begin func(name string) (*Service, func()),
) {
	subjects := make([]topic.Subject, 60)
	for i := range subjects {
		subjects[i] = subject(i)
	}
	one, stopOne := begin("one")
	w.owns(one, partitions)

	f := newFollower(t, dir, dialer, subjects)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { f.run(ctx) })
	stop := make(chan struct{})
	produced := make(chan map[stream][]topic.Position, 1)
	go func() { produced <- produceAll(w, subjects, stop) }()

	two, _ := begin("two")
	until(t, "the slots are shared", func() bool {
		return len(one.Owned()) == partitions/2 && len(two.Owned()) == partitions/2
	})
	stopOne()
	w.owns(two, partitions)
	three, stopThree := begin("three")
	until(t, "the slots are shared again", func() bool { return len(three.Owned()) == partitions/2 })
	stopThree()
	w.owns(two, partitions)
	close(stop)
	want := <-produced
	for st, positions := range want {
		until(t, fmt.Sprintf("all of %v came", st), func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.got[st]) >= len(positions)
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, f.got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if f.gaps != 0 {
		t.Errorf("%d gaps were announced", f.gaps)
	}
	t.Logf("%d links, %d events came again", f.links, f.again)
}

// A restarted instance begins where the group had got to: an edge's cursor is in its ring, with what came meanwhile.
func TestRestartReadsBacklog(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{})
	stop := w.start(s)
	w.owns(s, partitions)
	a := inSlot(3, 0)
	first := w.produce(topic.Threads, a, "before")
	until(t, "it is read", func() bool { return s.ringNext(a)[0] == first+1 })
	stop()
	second := w.produce(topic.Threads, a, "while away")
	again := w.service(Config{})
	w.start(again)
	until(t, "the backlog is read", func() bool { return again.ringNext(a)[0] == second+1 })
	got := ask(t, w.open(again), subscribeFrame(1, 3, &topic.Cursor{second, 0, 0}, a))
	if want := (answer{LiveFrom: topic.Cursor{second, 0, 0}, Past: []topic.Position{second}}); !cmp.Equal(got, want) {
		t.Errorf("answer (-want +got):\n%s", cmp.Diff(want, got))
	}
}

// An instance that goes without leaving the group is replaced when its session times out.
func TestSessionTimeout(t *testing.T) {
	w := newWorld(t)
	one := w.service(Config{Name: "one", SessionTimeout: 300 * time.Millisecond, keepSlots: true})
	stop := w.start(one)
	w.owns(one, partitions)
	stop()
	if got := one.Owned(); len(got) != 0 {
		t.Errorf("owned after the stop: %v", got)
	}
	two := w.service(Config{Name: "two", SessionTimeout: 300 * time.Millisecond})
	w.start(two)
	w.owns(two, partitions)
}

// Two deployments on one cluster, with instances of the same name, share neither slots nor instances; each instance
// leaves its own group at its stop.
func TestDeploymentsOfOneClusterAreApart(t *testing.T) {
	w := newWorld(t)
	other := &world{t: t, cfg: w.cfg, cl: w.cl}
	other.cfg.TopicPrefix = "other."
	if _, err := kafka.EnsureTopics(t.Context(), other.cl, other.cfg); err != nil {
		t.Fatal(err)
	}
	instances := func(w *world) []link.Instance {
		found, err := link.NewGroupDirectory(w.cl, w.cfg, Group(w.cfg)).Instances(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	one, two := w.service(Config{Addr: "127.0.0.1:1"}), other.service(Config{Addr: "127.0.0.1:2"})
	stop := w.start(one)
	other.start(two)
	w.owns(one, partitions)
	other.owns(two, partitions)
	want := [][]link.Instance{{{Name: "one", Addr: "127.0.0.1:1"}}, {{Name: "one", Addr: "127.0.0.1:2"}}}
	if diff := cmp.Diff(want, [][]link.Instance{instances(w), instances(other)}); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	stop()
	want[0] = nil
	if diff := cmp.Diff(want, [][]link.Instance{instances(w), instances(other)}); diff != "" {
		t.Errorf("instances after the stop of one (-want +got):\n%s", diff)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   Config
		fault bool
	}{
		{name: "defaults", cfg: Config{Name: "a"}},
		{name: "no name", cfg: Config{}, fault: true},
		{name: "name with an address in it", cfg: Config{Name: "a@b"}, fault: true},
		{name: "negative timeout", cfg: Config{Name: "a", SessionTimeout: -1}, fault: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
			if err := tc.cfg.Validate(); (err != nil) != tc.fault {
				t.Errorf("Validate: %v, want a fault: %v", err, tc.fault)
			}
		})
	}
}
