package lag

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	realkafka "heliograph/infra/kafka/real"
	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// wait bounds every wait of a test.
const wait = time.Minute

// slots is P of the test's logs.
const slots = 4

// realBroker is an Apache Kafka, while TestReal runs tests on it; it stamps records itself.
var realBroker string

// TestReal: groups, commits and the choosing of a watch are as Apache Kafka has them.
func TestReal(t *testing.T) {
	realBroker = realkafka.Start(t)
	defer func() { realBroker = "" }()
	t.Run("Owners", TestOwners)
	t.Run("Watch", TestWatch)
	t.Run("AheadOfTheEnds", TestAheadOfTheEnds)
}

// world is a log, a view that is where the test says, and a clock that the test moves.
type world struct {
	t     *testing.T
	cfg   Config
	next  map[topic.Slot]topic.Position // of helio.threads
	fails error                         // of the view's store
	began time.Time
	now   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	brokers, prefix := enginetest.Kafka(t)
	if realBroker != "" {
		brokers = []string{realBroker}
	}
	w := &world{t: t, next: map[topic.Slot]topic.Position{}, began: time.Now().Add(-time.Hour).Truncate(time.Second)}
	w.now = w.began
	w.cfg.Kafka = kafka.Config{Brokers: brokers, TopicPrefix: prefix, Partitions: slots}
	cl, err := kafka.Dial(w.cfg.Kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if _, err := kafka.EnsureTopics(t.Context(), cl, w.cfg.Kafka); err != nil {
		t.Fatal(err)
	}
	w.cfg.Client = cl
	w.cfg.Bases, err = kafka.LoadBases(t.Context(), cl, w.cfg.Kafka, topic.Folded, slots)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.now = func() time.Time { return w.now }
	w.cfg.Sources = []Source{{
		View: Threads, Topics: []topic.Topic{topic.Threads, topic.Receipts}, Group: w.cfg.Kafka.Group("test"),
		Ask: func(context.Context) (Answer, error) {
			a := newAnswer("views")
			for s, next := range w.next {
				a.put(topic.Threads, s, next, time.Time{})
			}
			return a, w.fails
		},
	}}
	return w
}

// put appends records to a slot, logged the world's time after its beginning.
func (w *world) put(s topic.Slot, at time.Duration, n int) {
	w.t.Helper()
	var recs []*kgo.Record
	for range n {
		r := w.cfg.Kafka.NewRecord(topic.Threads, s, []byte("subject"), []byte("event"))
		r.Timestamp = w.began.Add(at)
		recs = append(recs, r)
	}
	if err := w.cfg.Client.ProduceSync(w.t.Context(), recs...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// ask asks at a time after the world's beginning.
func (w *world) ask(m *Meter, at time.Duration) View {
	w.t.Helper()
	w.now = w.began.Add(at)
	all, err := m.Ask(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if len(all) != 1 || all[0].View != Threads {
		w.t.Fatalf("%+v", all)
	}
	return all[0]
}

// place is that of a slot of helio.threads.
func (v *View) place(s topic.Slot) Place {
	i := slices.IndexFunc(v.Places, func(p Place) bool { return p.Topic == topic.Threads && p.Slot == s })
	return v.Places[i]
}

// TestLagOfDeadView: who asks for the first time reads how old what the view lacks is; nobody owns its slots.
func TestLagOfDeadView(t *testing.T) {
	w := newWorld(t)
	w.put(0, time.Minute, 3)
	w.put(0, 2*time.Minute, 2)
	w.put(1, 5*time.Minute, 1)
	w.next[0] = 3
	w.next[1] = 1
	v := w.ask(NewMeter(w.cfg), 10*time.Minute)
	if v.Error != "" || v.GroupError != "" || v.Generation != "views" {
		t.Errorf("%+v", v)
	}
	if v.Records != 2 || v.Seconds != 8*60 || v.AtLeast || v.Lagging != 1 || v.TakenIn != 4 {
		t.Errorf("%d records, %v s (at least: %v), %d slots lag, %d taken in",
			v.Records, v.Seconds, v.AtLeast, v.Lagging, v.TakenIn)
	}
	if v.Slots != slots || v.Unowned != slots || len(v.Owners) != 0 || v.Rate != nil {
		t.Errorf("%d of %d slots have no owner among %v, rate %v", v.Unowned, v.Slots, v.Owners, v.Rate)
	}
	// More than may be read at once: as old as is known without.
	w.cfg.Reads = 1
	w.put(1, 5*time.Minute, 1)
	m := NewMeter(w.cfg)
	if v := w.ask(m, 10*time.Minute); !v.AtLeast || v.Records != 3 {
		t.Errorf("one record was read for two slots: %+v", v)
	}
	if v := w.ask(m, 12*time.Minute); v.AtLeast || v.Seconds != 10*60 {
		t.Errorf("at the second try both are known: %v s, at least %v", v.Seconds, v.AtLeast)
	}
}

// TestLagOfBusyView: a view that keeps up with a busy log has no lag in seconds, however long it has had some records
// in hand each time.
func TestLagOfBusyView(t *testing.T) {
	w := newWorld(t)
	m := NewMeter(w.cfg)
	w.ask(m, 0)
	for n := range 30 {
		at := time.Duration(n+1) * 5 * time.Second
		w.put(0, at, 10)
		w.next[0] = topic.Position(10*n + 4) // it is six records behind, which are new each time
		v := w.ask(m, at)
		if v.Records != 6 || v.Seconds != 0 {
			t.Fatalf("after %v: %d records, %v s behind", at, v.Records, v.Seconds)
		}
		if n > 0 && (v.Rate == nil || *v.Rate != 2 || *v.Arrivals != 2 || v.CatchUp != nil) {
			t.Fatalf("after %v: rate %v, arrivals %v, catch-up %v", at, v.Rate, v.Arrivals, v.CatchUp)
		}
	}
	// It stops: what it lacks grows old, from when it was first seen.
	for n, want := range []float64{5, 10, 15} {
		if v := w.ask(m, time.Duration(31+n)*5*time.Second); v.Seconds != want {
			t.Errorf("after %d askings it is %v s behind, want %v", n, v.Seconds, want)
		}
	}
	// It goes on and catches up.
	w.next[0] = 297
	v := w.ask(m, 34*5*time.Second)
	if v.Records != 3 || v.CatchUp == nil || *v.CatchUp != 3/(3/5.0) {
		t.Errorf("%d records, catch-up %v", v.Records, v.CatchUp)
	}
	w.next[0] = 300
	if v := w.ask(m, 35*5*time.Second); v.Records != 0 || v.Seconds != 0 || *v.CatchUp != 0 {
		t.Errorf("%+v", v.Flow)
	}
	w.put(0, 36*5*time.Second, 1)
	if v := w.ask(m, 36*5*time.Second); v.Records != 1 || v.Seconds != 0 {
		t.Errorf("what has just come is %v s old", v.Seconds)
	}
}

// TestLagReadOnce: how old a record is that stays where it is, is read once, also when the ends of that time have been
// forgotten.
func TestLagReadOnce(t *testing.T) {
	w := newWorld(t)
	w.put(2, 0, 1)
	m := NewMeter(w.cfg)
	for n := range maxSamples + 2 {
		at := time.Duration(n) * 30 * time.Second
		if v := w.ask(m, at); v.Seconds != at.Seconds() || v.AtLeast {
			t.Fatalf("after %v: %v s behind, at least %v", at, v.Seconds, v.AtLeast)
		}
		if n == 0 {
			m.cfg.Reads = 0
		}
	}
	if n := len(m.samples); n > int(maxMemory/(30*time.Second))+1 {
		t.Errorf("%d ends are remembered", n)
	}
}

// TestLagOfCutLog: a log that was cut, or set back, is not taken for a view that keeps up.
func TestLagOfCutLog(t *testing.T) {
	w := newWorld(t)
	w.put(0, time.Minute, 10)
	w.put(1, time.Minute, 5)
	w.next[0], w.next[1] = 2, 9
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: w.cfg.Kafka.Name(topic.Threads), Partition: 0, At: 6})
	if _, err := kadm.NewClient(w.cfg.Client).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	v := w.ask(NewMeter(w.cfg), 2*time.Minute)
	if v.Lost != 4 || v.place(0).Lost != 4 || v.Ahead != 4 || v.place(1).Ahead != 4 {
		t.Errorf("lost %d, ahead %d: %+v", v.Lost, v.Ahead, v.Places)
	}
	if v.Records != 8 || v.Seconds != 60 || v.AtLeast {
		t.Errorf("%d records, %v s (at least: %v)", v.Records, v.Seconds, v.AtLeast)
	}
}

// TestLagOfAdoptedLog: what an operator has given up is no lag any more.
func TestLagOfAdoptedLog(t *testing.T) {
	w := newWorld(t)
	w.put(0, time.Minute, 10)
	w.next[0] = 2
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: w.cfg.Kafka.Name(topic.Threads), Partition: 0, At: 6})
	if _, err := kadm.NewClient(w.cfg.Client).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	m := NewMeter(w.cfg)
	if v := w.ask(m, 2*time.Minute); v.Lost != 4 {
		t.Fatalf("lost %d", v.Lost)
	}
	plan, _, err := kafka.PlanAdoption(
		t.Context(), w.cfg.Kafka, w.cfg.Bases, []kafka.Standing{{Topic: topic.Threads, Slot: 0, Next: 2}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := kafka.Adopt(t.Context(), w.cfg.Kafka, plan); err != nil {
		t.Fatal(err)
	}
	v := w.ask(m, 3*time.Minute) // the bases are loaded again, since they did not fit
	// What is left, and the decision.
	if v.Lost != 0 || v.Ahead != 0 || v.Records < 4 || v.Records > 5 {
		t.Errorf("lost %d, ahead %d, %d records", v.Lost, v.Ahead, v.Records)
	}
}

// TestAheadOfTheEnds: a view that took in what came after the ends were asked for is not ahead of the log.
func TestAheadOfTheEnds(t *testing.T) {
	w := newWorld(t)
	ask := w.cfg.Sources[0].Ask
	w.cfg.Sources[0].Ask = func(ctx context.Context) (Answer, error) {
		w.put(0, 0, 3)
		w.next[0] += 3
		return ask(ctx)
	}
	if v := w.ask(NewMeter(w.cfg), 0); v.Ahead != 0 || v.Records != 0 {
		t.Errorf("%d ahead, %d behind", v.Ahead, v.Records)
	}
}

// TestBehindNoEndOfLater: what comes while the view is asked is no lag.
func TestBehindNoEndOfLater(t *testing.T) {
	w := newWorld(t)
	ask := w.cfg.Sources[0].Ask
	w.cfg.Sources[0].Ask = func(ctx context.Context) (Answer, error) {
		a, err := ask(ctx)
		w.put(0, 0, 3)
		return a, err
	}
	m := NewMeter(w.cfg)
	for n := range 3 {
		if v := w.ask(m, time.Duration(n)*time.Second); v.Records != 0 || v.Seconds != 0 {
			t.Errorf("%d records, %v s behind", v.Records, v.Seconds)
		}
		w.next[0] += 3
	}
}

// TestStoreDown: a store that does not answer is told, in its time.
func TestStoreDown(t *testing.T) {
	w := newWorld(t)
	w.fails = errors.New("refused")
	w.cfg.askTime = time.Second
	w.cfg.Sources = append(w.cfg.Sources, Source{
		View: History, Topics: []topic.Topic{topic.Threads}, Group: "nobody",
		Ask: func(ctx context.Context) (Answer, error) { <-ctx.Done(); return Answer{}, ctx.Err() },
	})
	all, err := NewMeter(w.cfg).Ask(t.Context())
	if err != nil || all[0].Error != "refused" || all[1].Error == "" {
		t.Errorf("%v, %+v", err, all)
	}
	w.cfg.Client, err = kafka.Dial(kafka.Config{Brokers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.cfg.Client.Close()
	if all, err := NewMeter(w.cfg).Ask(t.Context()); err == nil {
		t.Errorf("without a log: %+v", all)
	}
}

// TestOwners: the group's members own slots, and delivery's commits are its positions.
func TestOwners(t *testing.T) {
	w := newWorld(t)
	w.put(3, 0, 7)
	group, name := w.cfg.Sources[0].Group, w.cfg.Kafka.Name(topic.Threads)
	assigned := make(chan struct{}, 1)
	member, err := kafka.Dial(
		w.cfg.Kafka, kgo.ConsumerGroup(group), kgo.ConsumeTopics(name), kgo.InstanceID("one"), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	<-assigned
	member.CommitOffsetsSync(t.Context(), map[string]map[int32]kgo.EpochOffset{name: {3: {Epoch: -1, Offset: 5}}}, nil)
	w.cfg.Sources = []Source{OfDelivery(w.cfg.Client, w.cfg.Kafka, w.cfg.Bases, group, topic.Folded)}
	all, err := NewMeter(w.cfg).Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := all[0]
	if v.Unowned != 0 || !slices.Equal(v.Owners, []string{"one"}) || v.place(3).Owner != "one" {
		t.Errorf("%d of %d slots have no owner among %v", v.Unowned, v.Slots, v.Owners)
	}
	if v.Records != 2 || v.place(3).Next != 5 {
		t.Errorf("%d records behind, at %d", v.Records, v.place(3).Next)
	}
}

// shown are a registry's samples by name and view.
func shown(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if f.GetType() == dto.MetricType_GAUGE {
				out[name] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

// TestWatch: one process of those that can tells how far the views are; another goes on when it stops.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.cfg.now = nil
	w.put(0, 0, 5)
	w.next[0] = 2
	type process struct {
		reg  *prometheus.Registry
		asks chan struct{}
		stop func()
	}
	var fail atomic.Bool
	ask := w.cfg.Sources[0].Ask
	start := func() *process {
		p := &process{reg: prometheus.NewRegistry(), asks: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		cfg := w.cfg
		cfg.Sources = slices.Clone(cfg.Sources)
		cfg.Sources[0].Ask = func(context.Context) (Answer, error) {
			select {
			case p.asks <- struct{}{}:
			case <-ctx.Done():
			}
			if fail.Load() {
				return Answer{}, errors.New("refused")
			}
			return ask(ctx)
		}
		watch := NewWatch(cfg, nil, p.reg)
		watch.every, watch.session = 50*time.Millisecond, 6*time.Second
		done := make(chan error, 1)
		go func() { done <- watch.Run(ctx) }()
		p.stop = func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		}
		return p
	}
	first, second := start(), start()
	asked := func(p *process) {
		t.Helper()
		select {
		case <-p.asks:
		case <-time.After(wait):
			t.Fatal("it is never asked")
		}
	}
	select { // whichever was chosen
	case <-first.asks:
	case <-second.asks:
		first, second = second, first
	case <-time.After(wait):
		t.Fatal("nobody watches")
	}
	asked(first) // what it was told before is shown
	got := shown(t, first.reg)
	for name, want := range map[string]float64{
		"helio_view_watching": 1, "helio_view_lag_records threads": 3, "helio_view_taken_in_records threads": 2,
		"helio_view_slots_unowned threads": slots, "helio_view_untold_seconds threads": 0,
		"helio_view_lost_records threads": 0, "helio_view_ahead_records threads": 0,
	} {
		if have, ok := got[name]; !ok || have != want {
			t.Errorf("%s is %v (there: %v), want %v", name, have, ok, want)
		}
	}
	if s := got["helio_view_lag_seconds threads"]; realBroker == "" && (s < 3600 || s > 3600+2*wait.Seconds()) {
		t.Errorf("it is %v s behind", s)
	}
	if got := shown(t, second.reg); fmt.Sprint(got) != "map[helio_view_watching:0]" {
		t.Errorf("the one that stands by tells %v", got)
	}
	go func() { // asked for the last time
		for range first.asks {
		}
	}()
	first.stop()
	close(first.asks)
	if got := shown(t, first.reg); fmt.Sprint(got) != "map[helio_view_watching:0]" {
		t.Errorf("the one that has stopped tells %v", got)
	}
	asked(second)
	asked(second)
	if got := shown(t, second.reg); got["helio_view_lag_records threads"] != 3 {
		t.Errorf("the other tells %v", got)
	}
	// What it cannot know it does not tell.
	fail.Store(true)
	asked(second)
	asked(second)
	got = shown(t, second.reg)
	if _, told := got["helio_view_lag_records threads"]; told || got["helio_view_untold_seconds threads"] == 0 {
		t.Errorf("while the store is down it tells %v", got)
	}
	go func() {
		for range second.asks {
		}
	}()
	second.stop()
	close(second.asks)
}
