package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
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

	// Clock asks a clock that all edges have in common, of Postgres. While ours is off by more than a minute, events
	// are refused. Default: nobody is asked.
	Clock func(ctx context.Context) (time.Time, error)

	// Standing asks where the views stand: an edge that has just started knows the log by them. Until it has answered
	// once, nothing is acknowledged. Default: nobody is asked.
	Standing func(ctx context.Context) ([]kafka.Standing, error)

	// For tests.

	// lookAgain is how often a log in order is looked at without a reason; default 15 s.
	lookAgain time.Duration
	// clockEvery is how often Clock is asked; default 10 s.
	clockEvery time.Duration

	// linger of events; default 0: a record goes at once and batches form behind the requests in flight.
	linger time.Duration
	// receiptWindow is how long watermarks are gathered and coalesced before they are produced; default 15 ms.
	receiptWindow time.Duration
	// receiptLinger is the linger of the producer of watermarks; default 5 ms.
	receiptLinger time.Duration
	// maxRecords is how many events may be in flight; default 65,536.
	maxRecords int
	// maxBytes is how many bytes of events may be in flight; default 64 MiB, or a 32nd of the memory. It is less while
	// much of the budget of Kafka is in use.
	maxBytes int
	// deliveryTimeout is after how long an event that is not acknowledged is given up; default 2 s.
	deliveryTimeout time.Duration
	// probeInterval is how often a log that is down is tried; default 200 ms. One that is up is tried at a fifth of
	// that rate, a suspect partition after as long, and then less often, down to a tenth of the rate.
	probeInterval time.Duration
	// narrowFor is for how long a partition's events go one at a time after a broker has refused one for what it is, or
	// one beside it; default a minute, in which a client has sent again what was beside it.
	narrowFor time.Duration
}

// maxWatermarks is how many (device, thread) pairs may wait.
const maxWatermarks = 1 << 18

// What counts against the budget of Kafka, in bytes.
const (
	recordWeight    = 384     // of an event besides its own: the record, its place in the producer, a callback
	watermarkWeight = 512     // of a watermark, while it waits and while it is a record
	leastBytes      = 2 << 20 // of events, and of watermarks that wait, however little memory is free
)

func (c Config) withDefaults() Config {
	run.Default(&c.receiptWindow, 15*time.Millisecond)
	run.Default(&c.receiptLinger, 5*time.Millisecond)
	run.Default(&c.maxRecords, 1<<16)
	run.Default(&c.clockEvery, clockEvery)
	run.Default(&c.lookAgain, lookAgain)
	run.Default(&c.maxBytes, min(64<<20, c.Kafka.Budget.Memory()/32))
	run.Default(&c.deliveryTimeout, 2*time.Second)
	run.Default(&c.probeInterval, 200*time.Millisecond)
	run.Default(&c.narrowFor, time.Minute)
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
	return errors.Join(errs...)
}
