package ingest

import (
	"errors"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/budget"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// What waits for the log counts against the process's budget until it is settled, however that ends.
func TestWhatWaitsCountsAgainstTheBudget(t *testing.T) {
	b := budget.New(1<<30, nil)
	f := start(t, func(c *Config) { c.Kafka.Budget = b; c.linger = 50 * time.Millisecond })
	used := func(name string, want int64) {
		t.Helper()
		if got := b.Used(); got != want {
			t.Errorf("%s: %d bytes are in use, want %d", name, got, want)
		}
	}
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("before")); err != nil {
		t.Fatal(err)
	}
	used("acknowledged", 0)
	acked := make(chan error, 1)
	f.Append(topic.Threads, topic.Subject(group), message("in flight"), func(_ Receipt, err error) { acked <- err })
	if b.Used() < recordWeight {
		t.Errorf("an event in flight: %d bytes are in use", b.Used())
	}
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	used("it is acknowledged", 0)

	f.net.set(true)
	until(t, "the cut noticed", func() bool { return !f.Up() })
	f.Append(topic.Threads, topic.Subject(group), message("refused"), func(Receipt, error) {})
	used("refused", 0)
	d := id.NewDevice()
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 1})
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 2})
	f.Watermark(group, alice, d, thread.Watermark{DeliveredPosition: 1})
	used("two pairs wait", 2*watermarkWeight)
	f.net.set(false)
	until(t, "recovery", f.Up)
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	used("they are written", 0)

	f.net.set(true)
	until(t, "the cut noticed again", func() bool { return !f.Up() })
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 3})
	f.stop()
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 4})
	used("at the end", 0)
}

// What is in flight at the end, what waits for its turn in a narrow lane and what waits to be sent is given back too.
func TestWhatFailsIsGivenBack(t *testing.T) {
	b := budget.New(1<<30, nil)
	f := start(t, func(c *Config) {
		c.Kafka.Budget, c.linger, c.receiptWindow = b, 30*time.Second, time.Hour
	})
	l := f.lane(topic.Threads, topic.SlotOf(topic.Subject(group), partitions))
	l.mu.Lock()
	l.narrow = time.Now().Add(time.Hour)
	l.mu.Unlock()
	failed := make(chan error, 3)
	for range 3 { // one in flight, two that wait for it
		f.Append(topic.Threads, topic.Subject(group), message("lost"), func(_ Receipt, err error) { failed <- err })
	}
	f.Watermark(group, alice, phone, thread.Watermark{DeliveredPosition: 1})
	if got := b.Used(); got < 3*recordWeight+watermarkWeight {
		t.Errorf("%d bytes are in use", got)
	}
	f.stop()
	for range 3 {
		if err := <-failed; err == nil {
			t.Error("an event is acknowledged at the end")
		}
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes are in use at the end", b.Used())
	}
}

// When others use most of the process's memory, ingest has a small part of it and no more.
func TestOthersTakeFromTheBuffer(t *testing.T) {
	b := budget.New(1<<30, nil)
	f := start(t, func(c *Config) { c.Kafka.Budget = b; c.linger = 30 * time.Second })
	others := 1 << 28 // all that may wait
	b.Add(others)
	subjects := make([]topic.Subject, partitions) // one of each slot, or a batch would be full, and go
	for range 1000 {
		s := topic.Subject(id.NewGroup())
		subjects[topic.SlotOf(s, partitions)] = s
	}
	var refused error
	n := 0
	for ; refused == nil && n < 2*leastBytes/thread.MaxText; n++ {
		big := message(string(make([]byte, thread.MaxText)))
		f.Append(topic.Threads, subjects[n%partitions], big, func(_ Receipt, err error) { refused = err })
	}
	if !errors.Is(refused, kgo.ErrMaxBuffered) {
		t.Fatalf("after %d events: %v", n, refused)
	}
	if got := n * thread.MaxText; got > leastBytes+thread.MaxText || got < leastBytes/2 {
		t.Errorf("%d bytes were taken, want about %d", got, leastBytes)
	}
	f.net.set(true)
	until(t, "the cut noticed", func() bool { return !f.Up() })
	for k := range 2 * leastBytes / watermarkWeight {
		f.Watermark(group, alice, id.DeviceID{1, byte(k), byte(k >> 8)}, thread.Watermark{DeliveredPosition: 1})
	}
	if got := f.WatermarksPending() * watermarkWeight; got > leastBytes {
		t.Errorf("%d bytes of watermarks wait, want at most %d", got, leastBytes)
	}
	var m dto.Metric
	_ = f.metrics.dropped.WithLabelValues(reasonFull).Write(&m)
	if got, want := int(m.GetCounter().GetValue()), 2*leastBytes/watermarkWeight-f.WatermarksPending(); got != want {
		t.Errorf("%d watermarks are counted as dropped, want %d", got, want)
	}
}
