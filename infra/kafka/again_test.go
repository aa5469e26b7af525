package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// TestRecordsAreReadAgain: a stretch of a partition, as far as the log has it, beside what the consumer reads.
func TestRecordsAreReadAgain(t *testing.T) {
	_, cfg, cl := cluster(t)
	first := cfg.NewRecord(topic.Threads, 1, nil, []byte("opened"))
	first.Headers = []kgo.RecordHeader{{Key: topic.BaseHeader, Value: binary.BigEndian.AppendUint64(nil, 5000)}}
	if err := cl.ProduceSync(t.Context(), first).FirstErr(); err != nil {
		t.Fatal(err)
	}
	produce(t, cl, cfg, 0, 9)
	s := &sink{store: newStore()}
	c, _ := start(t, consumerConfig(cfg), s)
	eventually(t, "set up", func() bool { return c.Partitions() > 0 })
	// What was at 5000 and 5001 is gone.
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: cfg.Name(topic.Threads), Partition: 1, At: 2})
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context, from, to topic.Position, most int) (string, error) {
		var out []string
		for r, err := range c.Records(ctx, topic.Threads, 1, from, to) {
			if err != nil {
				return strings.Join(out, " "), err
			}
			if r.Topic != topic.Threads || r.Slot != 1 || r.LogTime.IsZero() || string(r.Key) != "k" {
				t.Errorf("a record %+v", r)
			}
			if out = append(out, fmt.Sprintf("%d=%s", r.Position, r.Value)); len(out) == most {
				break
			}
		}
		return strings.Join(out, " "), nil
	}
	for _, tc := range []struct {
		name     string
		from, to topic.Position
		most     int
		want     string
		short    bool
	}{
		{"inside", 5003, 5005, 9, "5003=helio.threads/1/2 5004=helio.threads/1/3", false},
		{"to the end", 5009, 5010, 9, "5009=helio.threads/1/8", false},
		{"past the end", 5009, 5012, 9, "5009=helio.threads/1/8", true},
		{"beyond the end", 5020, 5021, 9, "", true},
		{"from before the start", 5000, 5003, 9, "5002=helio.threads/1/1", false},
		{"before the start", 10, 5001, 9, "", false},
		{"nothing", 5003, 5003, 9, "", false},
		{"no further than is asked for", 5003, 5010, 1, "5003=helio.threads/1/2", false},
	} {
		got, err := read(t.Context(), tc.from, tc.to, tc.most)
		if got != tc.want || errors.Is(err, ErrPositions) != tc.short || err != nil && !tc.short {
			t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
		}
	}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := read(given, 5003, 5005, 9); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	// Too many wait for each other, and are given up as well.
	for range againAtOnce {
		c.again <- struct{}{}
	}
	if _, err := read(given, 5003, 5005, 9); !errors.Is(err, context.Canceled) {
		t.Errorf("given up while waiting: %v", err)
	}
	for range againAtOnce {
		<-c.again
	}
	if got, err := read(t.Context(), 5003, 5004, 9); got != "5003=helio.threads/1/2" || err != nil {
		t.Errorf("after that: %s, %v", got, err)
	}
	if c, err := NewConsumer(consumerConfig(cfg), s); err != nil {
		t.Error(err)
	} else {
		for _, err := range c.Records(t.Context(), topic.Threads, 1, 0, 1) {
			if err == nil || IsPermanent(err) || errors.Is(err, ErrPositions) {
				t.Errorf("before it runs: %v", err)
			}
		}
	}
}
