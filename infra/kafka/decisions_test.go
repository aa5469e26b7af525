package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

var subject = topic.Subject{1, 2, 3}

// released is a record of helio.quarantine.
func released(
	cfg Config, s topic.Slot, b eventv1.QuarantineReleased_builder, more ...eventv1.Event_builder,
) *kgo.Record {
	e := eventv1.Event_builder{}
	if len(more) > 0 {
		e = more[0]
	}
	e.QuarantineReleased = b.Build()
	value, err := proto.Marshal(e.Build())
	if err != nil {
		panic(err) // a broken test
	}
	return cfg.NewRecord(topic.Quarantine, s, subject[:], value)
}

func dropOf(s topic.Slot, at topic.Position) eventv1.QuarantineReleased_builder {
	return eventv1.QuarantineReleased_builder{
		Topic: topic.Threads.Number(), Slot: int32(s), Position: int64(at), Release: eventv1.Release_RELEASE_DROPPED,
	}
}

// say puts records into the log.
func say(t *testing.T, cl *kgo.Client, recs ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// follow runs Decisions until the test ends.
func follow(t *testing.T, cfg Config, heard func(Release)) *Decisions {
	t.Helper()
	d := NewDecisions(cfg, testSlots, heard)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestDecisions: what counts as a decision, and what else is on the topic.
func TestDecisions(t *testing.T) {
	_, cfg, cl := cluster(t)
	say(t, cl, released(cfg, 1, dropOf(1, 7)), released(cfg, 1, dropOf(2, 8))) // the latter is in the wrong partition
	retried := dropOf(1, 9)
	retried.Release = eventv1.Release_RELEASE_RETRIED
	say(t, cl, released(cfg, 1, retried))
	for _, b := range []eventv1.QuarantineReleased_builder{
		{Topic: topic.Presence.Number(), Slot: 1, Position: 20, Release: eventv1.Release_RELEASE_DROPPED},
		{Topic: 77, Slot: 1, Position: 20, Release: eventv1.Release_RELEASE_DROPPED},
		{Topic: 1, Slot: 1, Position: -1, Release: eventv1.Release_RELEASE_DROPPED},
		{Topic: 1, Slot: 1, Position: 20},
		{Topic: 1, Slot: 1, Position: 20, Release: 9},
	} {
		say(t, cl, released(cfg, 1, b))
	}
	say(t, cl, released(cfg, 1, dropOf(1, 20), eventv1.Event_builder{MinReader: event.Reader + 1}),
		cfg.NewRecord(topic.Quarantine, 1, subject[:], []byte{0xff}),
		cfg.NewRecord(topic.Quarantine, 1, subject[:2], nil))
	short := released(cfg, 1, dropOf(1, 20))
	short.Key = short.Key[:5]
	say(t, cl, short)
	var mu sync.Mutex
	var heard []Release
	d := follow(t, cfg, func(r Release) { mu.Lock(); defer mu.Unlock(); heard = append(heard, r) })
	got, changed, err := d.Of(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := []Release{{Topic: topic.Threads, Slot: 1, Position: 7, Subject: subject, Dropped: true}}
	if diff := cmp.Diff(want, got.Dropped(topic.Threads)); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if r, ok := got.Retried(topic.Threads, subject, 9); !ok || r.At != 2 {
		t.Errorf("tried again is %v, %v", r, ok)
	}
	if _, ok := got.Retried(topic.Threads, subject, 7); ok {
		t.Error("what is dropped is tried again")
	}
	if other, _, err := d.Of(t.Context(), 2); err != nil || len(other.Dropped(topic.Threads)) != 0 {
		t.Errorf("of another slot: %v, %v", other, err)
	}
	select {
	case <-changed:
		t.Error("more was decided than what was said")
	default:
	}
	say(t, cl, released(cfg, 1, dropOf(1, 7)), released(cfg, 1, dropOf(1, 30)))
	<-changed
	again, _, err := d.Of(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(again.Dropped(topic.Threads)); n != 2 {
		t.Errorf("%d events are dropped, want 2", n)
	}
	if n := len(got.Dropped(topic.Threads)); n != 1 {
		t.Errorf("what was known before has changed: %d dropped", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 4 {
		t.Errorf("heard of %v, want 4 decisions", heard)
	}
}

// obedient is a sink that is told of releases.
type obedient struct {
	sink
	told func(topic.Slot, Releases)
}

func (o *obedient) Released(s topic.Slot, r Releases) { o.told(s, r) }

// TestDroppedHaveNoValue: a sink gets what is dropped without a value, from the first batch on; what is dropped while
// the slot is open has it opened anew, and a batch that is tried again meanwhile stays as it was.
func TestDroppedHaveNoValue(t *testing.T) {
	_, cfg, cl := cluster(t)
	const s = topic.Slot(1)
	send := func(values ...string) {
		for _, v := range values {
			say(t, cl, cfg.NewRecord(topic.Threads, s, subject[:], []byte(v)))
		}
	}
	send("0", "1", "2")
	say(t, cl, released(cfg, s, dropOf(s, 1)))
	var mu sync.Mutex
	var opened []int // how many were dropped
	var fail func(b Batch) error
	seen := map[topic.Position][]string{} // what each try brought
	o := &obedient{sink: sink{store: newStore()}}
	o.told = func(slot topic.Slot, r Releases) {
		if mu.Lock(); slot == s {
			opened = append(opened, len(r.Dropped(topic.Threads)))
		}
		mu.Unlock()
	}
	o.before = func(_ context.Context, b Batch) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range b.Records {
			seen[r.Position] = append(seen[r.Position], string(r.Value))
		}
		if fail != nil {
			return fail(b)
		}
		return nil
	}
	cc := consumerConfig(cfg)
	c, stop := start(t, cc, o)
	eventually(t, "three records", func() bool { return o.count() == 3 })
	// One that is dropped while its batch cannot be stored.
	failed := make(chan struct{})
	said := make(chan struct{})
	once := sync.OnceFunc(func() { close(failed) })
	mu.Lock()
	fail = func(Batch) error {
		once()
		select {
		case <-said:
			fail = nil
		default:
		}
		return errors.New("the store does not answer")
	}
	mu.Unlock()
	send("3")
	<-failed
	say(t, cl, released(cfg, s, dropOf(s, 3)))
	eventually(t, "the consumer knows", func() bool { return c.decisions.Known(s).Drops(topic.Threads, subject, 3) })
	close(said)
	eventually(t, "opened anew", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(opened, 2) })
	send("4")
	eventually(t, "five records", func() bool { return o.count() == 5 })
	// One that is dropped while nothing else comes.
	say(t, cl, released(cfg, s, dropOf(s, 0)))
	eventually(t, "opened anew", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(opened, 3) })
	stop()
	mu.Lock()
	defer mu.Unlock()
	for at, want := range []string{"0", "", "2", "3", "4"} {
		for _, got := range seen[topic.Position(at)] {
			if got != want {
				t.Errorf("position %d: %q, want %q", at, got, want)
			}
		}
	}
	if len(seen[3]) < 2 {
		t.Errorf("position 3 was tried %d times, want it tried again", len(seen[3]))
	}
	if !slices.Equal(opened, []int{1, 2, 3}) {
		t.Errorf("opened with %v dropped, want 1, 2, 3", opened)
	}
	if o.closed[true] != 0 {
		t.Errorf("closed %v: a slot was lost", o.closed)
	}
}

// TestRecordsWithoutDropped: what is read again has no value either when it is dropped; who wants everything gets it.
func TestRecordsWithoutDropped(t *testing.T) {
	_, cfg, cl := cluster(t)
	const s = topic.Slot(2)
	for range 2 {
		say(t, cl, cfg.NewRecord(topic.Threads, s, subject[:], []byte("value")))
	}
	say(t, cl, released(cfg, s, dropOf(s, 1)))
	for _, raw := range []bool{false, true} {
		st := newStore()
		cc := consumerConfig(cfg)
		cc.Raw = raw
		c, stop := start(t, cc, &sink{store: st})
		eventually(t, "two records", func() bool { return st.count() == 2 })
		got := slices.Clone(st.rows[s][topic.Threads])
		for r, err := range c.Records(t.Context(), topic.Threads, s, 0, 2) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(r.Value))
		}
		stop()
		want := []string{"value", "", "value", ""}
		if raw {
			want = []string{"value", "value", "value", "value"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("raw %v: %q, want %q", raw, got, want)
		}
	}
}
