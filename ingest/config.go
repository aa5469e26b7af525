package ingest

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	"heliograph/schemas/topic"
)

// Config of New. Zero means default.
type Config struct {
	// Kafka says where the log is.
	Kafka kafka.Config
	// Partitions is P; needed.
	Partitions int
	// Producer is what the envelope of every event but receipts says of who appended it: the edge's name, a slash, its
	// version. At most event.MaxProducer bytes; default: nothing.
	Producer string
	// Linger of events; default 0: a record goes at once and batches form behind the requests in flight. At most 1 s.
	Linger time.Duration
	// ReceiptWindow is how long watermarks are gathered and coalesced before they are produced; default 15 ms.
	ReceiptWindow time.Duration
	// ReceiptLinger is the linger of the producer of watermarks; default 5 ms.
	ReceiptLinger time.Duration
	// MaxRecords is how many events may be in flight; default 65,536.
	MaxRecords int
	// MaxBytes is how many bytes of events may be in flight; default 64 MiB.
	MaxBytes int
	// MaxWatermarks is how many (device, thread) pairs may wait; default 262,144.
	MaxWatermarks int
	// DeliveryTimeout is after how long an event that is not acknowledged is given up; default 2 s.
	DeliveryTimeout time.Duration
	// ProbeInterval is how often a log that is down is tried; default 200 ms. One that is up is tried at a fifth of
	// that rate.
	ProbeInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.ReceiptWindow == 0 {
		c.ReceiptWindow = 15 * time.Millisecond
	}
	if c.ReceiptLinger == 0 {
		c.ReceiptLinger = 5 * time.Millisecond
	}
	if c.MaxRecords == 0 {
		c.MaxRecords = 1 << 16
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
	if c.MaxWatermarks == 0 {
		c.MaxWatermarks = 1 << 18
	}
	if c.DeliveryTimeout == 0 {
		c.DeliveryTimeout = 2 * time.Second
	}
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 200 * time.Millisecond
	}
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.Partitions < 1 || c.Partitions > topic.MaxPartitions {
		errs = append(errs, fmt.Errorf("ingest: %d partitions is not in 1..%d", c.Partitions, topic.MaxPartitions))
	}
	if len(c.Producer) > event.MaxProducer || !utf8.ValidString(c.Producer) {
		errs = append(errs, fmt.Errorf("ingest: the producer is not text of at most %d bytes", event.MaxProducer))
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"linger", c.Linger}, {"receipt window", c.ReceiptWindow}, {"receipt linger", c.ReceiptLinger},
	} {
		if d.d < 0 || d.d > time.Second {
			errs = append(errs, fmt.Errorf("ingest: %s of %v is not in 0..1s", d.name, d.d))
		}
	}
	if c.MaxRecords < 0 || c.MaxBytes < 0 || c.MaxWatermarks < 0 || c.DeliveryTimeout < 0 || c.ProbeInterval < 0 {
		errs = append(errs, errors.New("ingest: a bound or timeout is negative"))
	}
	return errors.Join(errs...)
}
