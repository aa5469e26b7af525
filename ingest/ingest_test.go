package ingest

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// network lets a test cut the way to the log.
type network struct {
	mu    sync.Mutex // guards the rest
	cut   bool
	conns map[net.Conn]bool
}

func (n *network) dial(ctx context.Context, network, host string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return nil, errors.New("the network is cut")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err == nil {
		n.conns[c] = true
	}
	return c, err
}

func (n *network) set(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	if cut {
		for c := range n.conns {
			c.Close()
			delete(n.conns, c)
		}
	}
}

type fixture struct {
	*Ingest
	net     *network
	cluster *kfake.Cluster
	cfg     kafka.Config
	stop    func()
}

func start(t *testing.T, mend func(*Config)) *fixture {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := startOn(t, cluster.ListenAddrs(), mend)
	f.cluster = cluster
	return f
}

// startOn is start over a broker that is there already.
func startOn(t *testing.T, brokers []string, mend func(*Config)) *fixture {
	t.Helper()
	n := &network{conns: map[net.Conn]bool{}}
	cfg := kafka.Config{Brokers: brokers, Partitions: partitions}
	cl, err := kafka.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kafka.EnsureTopics(t.Context(), cl, cfg); err != nil {
		t.Fatal(err)
	}
	fresh, err := kafka.Dial(cfg) // the first one's view of the topics is from before they were made
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	bases, err := kafka.LoadBases(t.Context(), fresh, cfg, topic.All, partitions)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dial = n.dial
	c := Config{Kafka: cfg, Partitions: partitions, deliveryTimeout: time.Second, probeInterval: 20 * time.Millisecond}
	if mend != nil {
		mend(&c)
	}
	i, err := New(c, bases, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	f := &fixture{Ingest: i, net: n, cfg: cfg, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})}
	t.Cleanup(f.stop)
	return f
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var (
	alice = id.UserID{1}
	phone = id.NewDevice()
	group = id.NewGroup()
)

func message(text string) *eventv1.Event {
	data, _ := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	m := id.NewMessage()
	return eventv1.Event_builder{UserId: alice[:], DeviceId: phone[:], MessageSent: eventv1.MessageSent_builder{
		MessageId: m[:], Content: eventv1.Sealed_builder{Data: data}.Build(),
	}.Build()}.Build()
}

// records reads what a topic holds, in the order of each slot.
func (f *fixture) records(t *testing.T, tp topic.Topic, want int) []*kgo.Record {
	t.Helper()
	cl, err := kafka.Dial(
		kafka.Config{Brokers: f.cfg.Brokers}, kgo.ConsumeTopics(f.cfg.Name(tp)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < want && ctx.Err() == nil {
		out = append(out, cl.PollFetches(ctx).Records()...)
	}
	if len(out) != want {
		t.Fatalf("%s holds %d records, want %d", tp, len(out), want)
	}
	return out
}

func TestAppendKeepsOrderAndTellsThePlace(t *testing.T) {
	f := start(t, nil)
	var mu sync.Mutex
	var got []topic.Position
	var sent []*eventv1.Event
	for range 500 {
		ev := message("hello")
		sent = append(sent, ev)
		f.Append(topic.Threads, topic.Subject(group), ev, func(r Receipt, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil || r.Topic != topic.Threads || r.Slot != topic.SlotOf(topic.Subject(group), partitions) ||
				r.LogTime.IsZero() {
				t.Errorf("receipt %+v, error %v", r, err)
			}
			got = append(got, r.Position)
		})
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for k, p := range got {
		if p != topic.Position(k) {
			t.Fatalf("append %d lies at %d", k, p)
		}
	}
	for k, rec := range f.records(t, topic.Threads, 500) {
		var ev eventv1.Event
		if err := proto.Unmarshal(rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		if ev.GetRules() != event.WrittenRules {
			t.Fatalf("record %d is judged by rules %d", rec.Offset, ev.GetRules())
		}
		ev.SetRules(0)
		if !proto.Equal(&ev, sent[k]) || !cmp.Equal(rec.Key, group[:]) {
			t.Fatalf("record %d is not the event that was appended as number %d", rec.Offset, k)
		}
	}
}

// What is appended for a request carries its name; what is appended for none keeps the one that it has.
func TestAppendWaitNamesTheRequest(t *testing.T) {
	f := start(t, nil)
	for _, ctx := range []context.Context{t.Context(), WithRequest(t.Context(), []byte("a request"))} {
		for _, had := range []string{"", "its own"} {
			ev := message("hello")
			ev.SetRequestId([]byte(had))
			if _, err := f.AppendWait(ctx, topic.Threads, topic.Subject(group), ev); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	for _, rec := range f.records(t, topic.Threads, 4) {
		var ev eventv1.Event
		if err := proto.Unmarshal(rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(ev.GetRequestId()))
	}
	if diff := cmp.Diff(got, []string{"", "its own", "a request", "a request"}); diff != "" {
		t.Errorf("requests (-got +want):\n%s", diff)
	}
}

func TestWatermarksAreCoalesced(t *testing.T) {
	f := start(t, func(c *Config) { c.receiptWindow = 50 * time.Millisecond })
	other := id.NewDevice()
	for k := range 100 {
		f.Watermark(
			group, alice, phone, thread.Watermark{DeliveredPosition: topic.Position(k), DeliveredOrdinal: int64(k)},
		)
	}
	f.Watermark(group, alice, phone, thread.Watermark{ReadPosition: 7, ReadOrdinal: 6})
	f.Watermark(group, alice, other, thread.Watermark{DeliveredPosition: 3})
	// Another user who claims the same device says nothing of hers.
	thief := id.UserID{9}
	f.Watermark(group, thief, phone, thread.Watermark{DeliveredPosition: 1000})
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]thread.Watermark{}
	for _, rec := range f.records(t, topic.Receipts, 3) {
		var ev eventv1.Event
		if err := proto.Unmarshal(rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		if rec.Partition != int32(topic.SlotOf(topic.Subject(group), partitions)) {
			t.Errorf("a watermark lies in partition %d", rec.Partition)
		}
		if ev.GetRules() != 0 { // an edge of an older version would put it into quarantine for nothing
			t.Errorf("a receipt is judged by rules %d", ev.GetRules())
		}
		got[string(ev.GetUserId())+string(rec.Key)] = thread.WatermarkOf(ev.GetWatermarksMoved())
	}
	want := map[string]thread.Watermark{
		string(alice[:]) + string(event.ReceiptKey(group, phone, alice)): {
			DeliveredPosition: 99,
			DeliveredOrdinal:  99,
			ReadPosition:      7,
			ReadOrdinal:       6,
		},
		string(alice[:]) + string(event.ReceiptKey(group, other, alice)): {DeliveredPosition: 3},
		string(thief[:]) + string(event.ReceiptKey(group, phone, thief)): {DeliveredPosition: 1000},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("watermarks (-got +want):\n%s", diff)
	}
}

func TestLogDownFailsAtOnceAndRecovers(t *testing.T) {
	f := start(t, nil)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("before")); err != nil {
		t.Fatal(err)
	}
	f.net.set(true)
	until(t, "the cut noticed without a send", func() bool { return !f.Up() })
	// At once: the callback has run before Append returns, so nothing waited for a timeout.
	var refused error
	f.Append(topic.Threads, topic.Subject(group), message("meanwhile"), func(_ Receipt, err error) { refused = err })
	if !errors.Is(refused, ErrUnavailable) {
		t.Fatalf("append while the log is down: %v, want ErrUnavailable", refused)
	}
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 1})
	f.net.set(false)
	until(t, "recovery", f.Up)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("after")); err != nil {
		t.Fatal(err)
	}
	f.records(t, topic.Threads, 2)
	f.records(t, topic.Receipts, 1) // it waited
}

func TestInFlightWhenTheLogGoesFails(t *testing.T) {
	f := start(t, nil)
	f.net.set(true) // before the first connection: only a produce can notice
	_, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("lost"))
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append without a log: %v, want ErrUnavailable", err)
	}
	f.net.set(false)
	until(t, "recovery", f.Up)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("after")); err != nil {
		t.Fatal(err)
	}
}

func TestFullBufferRefuses(t *testing.T) {
	f := start(t, func(c *Config) { c.maxRecords = 2; c.linger = time.Second })
	var mu sync.Mutex
	var errs []error
	for range 10 {
		f.Append(topic.Threads, topic.Subject(group), message("x"), func(_ Receipt, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	mu.Lock() // before Append returned, so that a sender's next message finds its one before refused
	defer mu.Unlock()
	if len(errs) != 8 {
		t.Errorf("%d refusals, want 8", len(errs))
	}
	for _, err := range errs {
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, kgo.ErrMaxBuffered) {
			t.Errorf("refused with %v", err)
		}
	}
	if n := f.Buffered(); n != 2 {
		t.Errorf("%d events are buffered, want 2", n)
	}
	if !f.Up() {
		t.Error("a full buffer counts as a log that is down")
	}
}

func TestStoppedRefuses(t *testing.T) {
	f := start(t, nil)
	f.stop()
	_, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("late"))
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append after Run: %v, want ErrUnavailable", err)
	}
}

// TestWaitingWatermarks: those that the log does not take are told of by Flush, and counted when Run ends; so is one
// that comes after.
func TestWaitingWatermarks(t *testing.T) {
	f := start(t, nil)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("before")); err != nil {
		t.Fatal(err)
	}
	f.net.set(true)
	until(t, "the cut noticed", func() bool { return !f.Up() })
	if err := f.Flush(t.Context()); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 1})
	f.Watermark(group, alice, id.NewDevice(), thread.Watermark{DeliveredPosition: 1})
	if n := f.WatermarksPending(); n != 2 {
		t.Errorf("%d watermarks wait, want 2", n)
	}
	if err := f.Flush(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("flush while watermarks wait for a log that is down: %v, want ErrUnavailable", err)
	}
	f.stop()
	dropped := func() float64 {
		var m dto.Metric
		if err := f.metrics.dropped.WithLabelValues(reasonClosed).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	if got := dropped(); got != 2 {
		t.Errorf("%v watermarks are counted as dropped at the end, want 2", got)
	}
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 2})
	if got := dropped(); got != 3 {
		t.Errorf("%v watermarks are counted as dropped after the end, want 3", got)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) != 0 {
		t.Errorf("%d watermarks wait for an Ingest that has ended", len(f.waiting))
	}
}

func TestInvalidEventsAreRefused(t *testing.T) {
	f := start(t, nil)
	direct := topic.Subject(id.DirectThread(alice, id.UserID{2}))
	content := func(text string) *eventv1.Sealed {
		data, _ := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
		return eventv1.Sealed_builder{Data: data}.Build()
	}
	long, garbled := string(make([]byte, thread.MaxText+1)), eventv1.Sealed_builder{Data: []byte{0xff}}.Build()
	stuffed := content("x")
	stuffed.ProtoReflect().SetUnknown(
		protowire.AppendBytes(protowire.AppendTag(nil, 999, protowire.BytesType), make([]byte, thread.MaxSealed)),
	)
	m := id.NewMessage()
	sent := func(b eventv1.MessageSent_builder) *eventv1.Event {
		return eventv1.Event_builder{UserId: alice[:], DeviceId: phone[:], MessageSent: b.Build()}.Build()
	}
	byAlice := func(b eventv1.Event_builder) *eventv1.Event {
		b.UserId = alice[:]
		return b.Build()
	}
	members := make([][]byte, thread.MaxMembers)
	for k := range members {
		members[k] = append([]byte{1, byte(k), byte(k >> 8)}, make([]byte, 13)...)
	}
	for _, c := range []struct {
		name  string
		topic topic.Topic
		subj  topic.Subject
		ev    *eventv1.Event
		field string
	}{
		{"no subject", topic.Threads, topic.Subject{}, message("x"), "subject"},
		{"no user", topic.Threads, direct, eventv1.Event_builder{MemberLeft: &eventv1.MemberLeft{}}.Build(), "user_id"},
		{"short device", topic.Threads, direct,
			byAlice(eventv1.Event_builder{DeviceId: []byte{1}, MemberLeft: &eventv1.MemberLeft{}}), "device_id"},
		{"no body", topic.Threads, direct, eventv1.Event_builder{UserId: alice[:]}.Build(), "body"},
		{"wrong topic", topic.Users, direct, message("x"), "body"},
		{"quarantine", topic.Quarantine, direct,
			eventv1.Event_builder{Quarantined: &eventv1.Quarantined{}}.Build(), "body"},
		{"message id", topic.Threads, direct,
			sent(eventv1.MessageSent_builder{MessageId: make([]byte, 16), Content: content("x")}), "message_id"},
		{"no content", topic.Threads, direct, sent(eventv1.MessageSent_builder{MessageId: m[:]}), "content"},
		{"long text", topic.Threads, direct,
			sent(eventv1.MessageSent_builder{MessageId: m[:], Content: content(long)}), "content"},
		{"garbled text", topic.Threads, direct,
			sent(eventv1.MessageSent_builder{MessageId: m[:], Content: garbled}), "content"},
		{"long in what nobody knows", topic.Threads, direct,
			sent(eventv1.MessageSent_builder{MessageId: m[:], Content: stuffed}), "content"},
		{"short reply", topic.Threads, direct,
			sent(eventv1.MessageSent_builder{MessageId: m[:], Content: content("x"), ReplyTo: []byte{1}}), "reply_to"},
		{"group under a direct id", topic.Threads, direct, byAlice(eventv1.Event_builder{
			ThreadCreated: eventv1.ThreadCreated_builder{Title: "t"}.Build(),
		}), "subject"},
		{"blank title", topic.Threads, topic.Subject(group), byAlice(eventv1.Event_builder{
			ThreadCreated: eventv1.ThreadCreated_builder{Title: " "}.Build(),
		}), "title"},
		{"too many members", topic.Threads, topic.Subject(group), byAlice(eventv1.Event_builder{
			ThreadCreated: eventv1.ThreadCreated_builder{Title: "t", MemberIds: members}.Build(),
		}), "member_ids"},
		{"long request id", topic.Threads, direct, byAlice(eventv1.Event_builder{
			RequestId: make([]byte, event.MaxRequestID+1), MemberLeft: &eventv1.MemberLeft{},
		}), "request_id"},
		{"cause on no topic", topic.Threads, direct, byAlice(eventv1.Event_builder{
			Cause: &eventv1.Cause{}, MemberLeft: &eventv1.MemberLeft{},
		}), "cause"},
		{"cause before the first", topic.Threads, direct, byAlice(eventv1.Event_builder{
			Cause: eventv1.Cause_builder{Topic: 1, Position: -1}.Build(), MemberLeft: &eventv1.MemberLeft{},
		}), "cause"},
		{"cause beyond the slots", topic.Threads, direct, byAlice(eventv1.Event_builder{
			Cause:      eventv1.Cause_builder{Topic: 1, Slot: topic.MaxPartitions}.Build(),
			MemberLeft: &eventv1.MemberLeft{},
		}), "cause"},
		{"no members added", topic.Threads, topic.Subject(group),
			byAlice(eventv1.Event_builder{MemberAdded: &eventv1.MemberAdded{}}), "member_ids"},
		{"role", topic.Threads, topic.Subject(group), byAlice(eventv1.Event_builder{
			RoleChanged: eventv1.RoleChanged_builder{MemberId: alice[:]}.Build(),
		}), "role"},
		{"key", topic.Users, topic.Subject(alice), byAlice(eventv1.Event_builder{
			DeviceLinked: eventv1.DeviceLinked_builder{DeviceId: phone[:]}.Build(),
		}), "public_key"},
		{"name", topic.Users, topic.Subject(alice),
			byAlice(eventv1.Event_builder{ProfileChanged: &eventv1.ProfileChanged{}}), "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.AppendWait(t.Context(), c.topic, c.subj, c.ev)
			var bad *event.Invalid
			if !errors.As(err, &bad) || bad.Field != c.field {
				t.Errorf("got %v, want field %s", err, c.field)
			}
		})
	}
}

func TestConfigValidateReportsEveryFault(t *testing.T) {
	err := Config{Partitions: -1, Producer: strings.Repeat("x", event.MaxProducer+1)}.Validate()
	for _, want := range []string{"broker", "partitions", "producer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	ev := message("how are you?")
	for b.Loop() {
		ev := event.Of(ev)
		if err := check(topic.Threads, topic.Subject(group), ev); err != nil {
			b.Fatal(err)
		}
	}
}
