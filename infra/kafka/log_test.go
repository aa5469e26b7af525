package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/schemas/topic"
)

func base(t *testing.T, cfg Config, cl *kgo.Client) {
	base := func(b uint64) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: topic.BaseHeader, Value: binary.BigEndian.AppendUint64(nil, b)}}
	}
	first := cfg.NewRecord(topic.Threads, 1, nil, []byte("opened"))
	first.Headers = base(5000)
	next := cfg.NewRecord(topic.Threads, 1, nil, []byte("next"))
	if err := cl.ProduceSync(t.Context(), first, next).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b, err := LoadBases(t.Context(), cl, cfg, topic.Folded, testSlots)
	if err != nil {
		t.Fatal(err)
	}
	got := []topic.Position{
		b.At(topic.Threads, 1, 0), b.At(topic.Threads, 2, 0), b.At(topic.Users, 1, 0), b.At(topic.Presence, 1, 0),
	}
	if !slices.Equal(got, []topic.Position{5000, 0, 0, 0}) {
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
	third := cfg.NewRecord(topic.Threads, 1, nil, []byte("third"))
	if err := cl.ProduceSync(t.Context(), third).FirstErr(); err != nil {
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
	if _, err := EnsureTopics(t.Context(), cl, cfg); !errors.As(err, &wrong) || wrong.Have != testSlots ||
		wrong.Want != 8 {
		t.Errorf("other count: %v", err)
	}
	cfg.TopicPrefix, cfg.Partitions = "other.", 0
	if err := fake.CreateTopic("other.users", 3, map[string]string{
		"retention.ms": "604800000", maxMessage: "100000", // less than an event may have
	}); err != nil {
		t.Fatal(err)
	}
	if p, err := EnsureTopics(t.Context(), cl, cfg); err != nil || p != 3 {
		t.Fatalf("a topic that a broker made: %d, %v", p, err)
	}
	for _, tp := range topic.All {
		if v := fake.TopicInfo(cfg.Name(tp)).Configs[maxMessage]; v == nil || *v != strconv.Itoa(lowestMax) {
			t.Errorf("%s: %s is not set to %d", tp, maxMessage, lowestMax)
		}
	}
	for tp, want := range map[topic.Topic][2]string{
		topic.Users:    {"delete", "-1"},
		topic.Receipts: {"compact", "-1"},
		topic.Presence: {"compact,delete", presenceRetention},
	} {
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

// TestProducerAsksForAllReplicas: what a producer sends is acknowledged by all in-sync replicas or not at all, and is
// numbered, so that what is sent twice is there once.
func TestProducerAsksForAllReplicas(t *testing.T) {
	fake, cfg, _ := cluster(t)
	var seen, wrong atomic.Int64
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Observe: true, When: func(r kmsg.Request) bool {
		req := r.(*kmsg.ProduceRequest)
		for _, tp := range req.Topics {
			for _, p := range tp.Partitions {
				var b kmsg.RecordBatch
				seen.Add(1)
				err := b.ReadFrom(p.Records)
				if err != nil || req.Acks != -1 || b.ProducerID < 0 || b.FirstSequence < 0 {
					wrong.Add(1)
				}
			}
		}
		return true
	}})
	cl, err := Dial(cfg, ProducerOpts(ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	n := produce(t, cl, cfg, 0, 2)
	if seen.Load() == 0 || wrong.Load() != 0 {
		t.Errorf("of %d records in %d batches %d were not sent with acks=all and a number",
			n, seen.Load(), wrong.Load())
	}
}

func TestProducerFailsWhenTheLogIsGone(t *testing.T) {
	fake, cfg, cl := cluster(t)
	produce(t, cl, cfg, 0, 1)
	fake.Close()
	errs := make(chan error, 1)
	begin := time.Now()
	cl.TryProduce(
		context.Background(), cfg.NewRecord(topic.Threads, 0, nil, []byte("x")),
		func(_ *kgo.Record, err error) { errs <- err },
	)
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
	cl.TryProduce(
		context.Background(), cfg.NewRecord(topic.Threads, 0, nil, []byte("x")),
		func(_ *kgo.Record, err error) { errs <- err },
	)
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
	good := Config{
		Brokers: []string{"a:1"},
		SASL:    SASL{Mechanism: MechanismScramSHA512, User: "u", Password: "hunter2"},
	}
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
