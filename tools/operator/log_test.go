package operator_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// written is a log whose records the test makes, and what it wrote.
type written struct {
	t   *testing.T
	cfg kafka.Config
	cl  *kgo.Client
}

const writtenSlots = 3

func newLog(t *testing.T) *written {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &written{t: t, cfg: kafka.Config{Brokers: fake.ListenAddrs(), Partitions: writtenSlots}}
	// Without the delivery timeout of ProducerOpts, which counts from a record's timestamp.
	if w.cl, err = kafka.Dial(w.cfg, kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	if _, err := kafka.EnsureTopics(t.Context(), w.cl, w.cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func slotOf(s id.ThreadID) topic.Slot { return topic.SlotOf(topic.Subject(s), writtenSlots) }

// put appends an event about a thread and returns its offset.
func (w *written) put(about id.ThreadID, at time.Time, ev *eventv1.Event) int64 {
	w.t.Helper()
	b, err := proto.Marshal(ev)
	if err != nil {
		w.t.Fatal(err)
	}
	r := w.cfg.NewRecord(topic.Threads, slotOf(about), about[:], b)
	r.Timestamp = at
	if err := w.cl.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return r.Offset
}

// say appends a record as it is.
func (w *written) say(t topic.Topic, s topic.Slot, key, value []byte) {
	w.t.Helper()
	if err := w.cl.ProduceSync(w.t.Context(), w.cfg.NewRecord(t, s, key, value)).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// message is one of a sender in a direct thread with peer.
func message(m id.MessageID, from, peer id.UserID, s string) *eventv1.Event {
	d := id.NewDevice()
	return eventv1.Event_builder{UserId: from[:], DeviceId: d[:], MessageSent: eventv1.MessageSent_builder{
		MessageId: m[:], Content: eventtest.Text(s), DirectPeer: peer[:], ClientTimeMs: m.Time().UnixMilli(),
	}.Build()}.Build()
}

// madeAt is a message's id whose client's clock showed a time.
func madeAt(at time.Time) id.MessageID {
	m := id.NewMessage()
	ms := at.UnixMilli()
	for i := range 6 {
		m[i] = byte(ms >> (8 * (5 - i)))
	}
	return m
}
