package realkafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestKill shows what the tests of others build on: what was acknowledged is there after
// a SIGKILL, at the same offsets, stamped by the broker, and a group finds its place.
func TestKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := StartBroker(t)
	const topic = "kill"
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 4, 1, nil, topic); err != nil {
		t.Fatal(err)
	}

	const perRound = 400
	stamp := time.Unix(1, 0)
	for round := range 2 {
		var records []*kgo.Record
		for i := range perRound {
			records = append(records, &kgo.Record{
				Topic:     topic,
				Partition: int32(i % 4),
				Timestamp: stamp,
				Value:     fmt.Appendf(nil, "%d/%d", round, i),
			})
		}
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		readBack(ctx, t, b.Addr(), topic, (round+1)*perRound, stamp)
		b.Kill()
		b.Restart(t)
	}
	readBack(ctx, t, b.Addr(), topic, 2*perRound, stamp)

	// A group of its own reads and commits; after another kill it stands where it stood.
	group := func() *kgo.Client {
		c, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(topic), kgo.ConsumerGroup("g"),
			kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := group()
	got := 0
	for got < 2*perRound {
		fetches := c.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("group read %d of %d: %v", got, 2*perRound, err)
		}
		got += fetches.NumRecords()
	}
	if err := c.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	b.Kill()
	b.Restart(t)
	// the other's connections died with the broker, and their ends may be what it gets for an answer
	again, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	offsets, err := kadm.NewClient(again).FetchOffsets(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != 2*perRound {
		t.Errorf("committed offsets add up to %d, want %d", sum, 2*perRound)
	}
}

// readBack reads topic from its start, until want records, and checks their offsets and times.
func readBack(ctx context.Context, t *testing.T, addr, topic string, want int, producerTime time.Time) {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	next := map[int32]int64{}
	for got := 0; got < want; {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("read %d of %d: %v", got, want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset != next[r.Partition] {
				t.Fatalf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition]++
			if !r.Timestamp.After(producerTime) || r.Attrs.TimestampType() != 1 {
				t.Fatalf("partition %d offset %d: time %v of type %d, want the broker's",
					r.Partition, r.Offset, r.Timestamp, r.Attrs.TimestampType())
			}
			got++
		})
	}
}

// TestWithoutJars runs the search for Kafka in a folder that has none: skipped on a
// developer's machine, failed in CI.
func TestWithoutJars(t *testing.T) {
	for _, c := range []struct {
		name, ci, off   string
		skipped, failed bool
	}{
		{"local", "", "", true, false},
		{"CI", "true", "", false, true},
		{"CI that says so", "true", "1", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("HELIO_KAFKA_JARS", t.TempDir())
			t.Setenv("CI", c.ci)
			t.Setenv("HELIO_NO_REAL_KAFKA", c.off)
			var r recorder
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.TB = t
				find(&r)
			}()
			<-done
			if r.skipped != c.skipped || r.failed != c.failed {
				t.Errorf("skipped %v failed %v, want %v %v", r.skipped, r.failed, c.skipped, c.failed)
			}
		})
	}
}
