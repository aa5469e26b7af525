package history

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// Topics are those that the history is folded from.
var Topics = []topic.Topic{topic.Threads, topic.Receipts}

// Config of the projector. Zero means default.
type Config struct {
	// Consumer says where the log is and which slots are read. View defaults to "history", Topics to Topics, Logger and
	// Registerer to those given to New. Linger defaults to 500 ms, LingerBusy to 10 s, LingerRecords to 10,000: an
	// insert costs the engine some 10 ms of CPU and a dozen files whatever its size, so a busy slot writes seldom and
	// much at a time. What waits is bounded by the queue's bytes and, over many slots, by the budget of the process
	// (Consumer.Kafka.Budget), which bounds the batches in hand too. MaxRecords defaults to 20,000, MaxBytes to 16 MiB,
	// QueueRecords to twice MaxRecords, QueueBytes to MaxBytes.
	Consumer kafka.ConsumerConfig
	// Generation of the view; a rebuild in place takes a higher one, and a projector of a lower one then refuses to go
	// on (GenerationError). Default 1.
	Generation uint32
	// Beside: the database holds a building beside the live one, which a replay fills. Else only a live one is written.
	Beside bool
	// CacheBytes bounds the fold states kept per slot, by estimate. Default 4 MiB.
	CacheBytes int
	// Recent is how many messages are loaded with a thread for the rule on retries. Those of a thread that has seen
	// more within the window are looked up by their ids. Default 256.
	Recent int
	// Report is told of each event that could not be applied, after it is in the quarantine table, and not of those
	// parked behind it. It must not block. A crash may lose or repeat the call. Default: nobody is told.
	Report func(view string, q projector.Quarantined)
	// Log brings records again, to drain what quarantine holds for a newer version. Default: Consumer's log, in a
	// Projector; a sink by itself then drains nothing.
	Log projector.Log

	// For tests.

	// inserts is how many inserts run at one time, over all slots. Default 4.
	inserts int
	// timeout bounds each insert and each query: an engine that has gone without a word would hold the slot for as long
	// as TCP goes on trying. It then counts as a transient failure. Default 30 s.
	timeout time.Duration
}

// insertRows is the most rows of one insert; it stays below the server's max_insert_block_size, and may not change
// while a range is begun.
const insertRows = 100_000

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.CacheBytes < 0 || c.Recent < 0 {
		errs = append(errs, errors.New("history: a number is negative"))
	}
	if err := c.withDefaults(nil, nil).Consumer.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults(log *slog.Logger, reg prometheus.Registerer) Config {
	run.Default(&c.Consumer.View, "history")
	if len(c.Consumer.Topics) == 0 {
		c.Consumer.Topics = Topics
	}
	run.Default(&c.Consumer.Linger, 500*time.Millisecond)
	run.Default(&c.Consumer.LingerBusy, 10*time.Second)
	run.Default(&c.Consumer.LingerRecords, 10_000)
	run.Default(&c.Consumer.MaxRecords, 20_000)
	run.Default(&c.Consumer.MaxBytes, 16<<20)
	run.Default(&c.Consumer.QueueRecords, 2*c.Consumer.MaxRecords)
	run.Default(&c.Consumer.QueueBytes, c.Consumer.MaxBytes)
	run.Default(&c.Generation, 1)
	run.Default(&c.inserts, 4)
	run.Default(&c.CacheBytes, 4<<20)
	run.Default(&c.Recent, 256)
	run.Default(&c.timeout, 30*time.Second)
	run.Default(&c.Consumer.Kafka.Logger, log)
	run.Default(&c.Consumer.Kafka.Registerer, reg)
	return c
}

// Projector keeps the history of the slots that it owns. Its methods may be called from any goroutine.
type Projector struct{ consumer *kafka.Consumer }

// New returns a projector that does nothing until Run. The connection's default database is that of the history, which
// must have been migrated.
func New(cfg Config, conn driver.Conn, log *slog.Logger, reg prometheus.Registerer) (*Projector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults(log, reg)
	p := &Projector{}
	if cfg.Log == nil {
		cfg.Log = p
	}
	sink := newSink(cfg, conn, log, reg, func() int { return p.consumer.Partitions() })
	var err error
	if p.consumer, err = kafka.NewConsumer(cfg.Consumer, sink); err != nil {
		return nil, err
	}
	return p, nil
}

// Run projects until ctx is cancelled and then returns nil; batches in hand are finished first. It may be called once.
func (p *Projector) Run(ctx context.Context) error { return p.consumer.Run(ctx) }

// Consumer is the loop under the projector: lag, owned and stalled slots.
func (p *Projector) Consumer() *kafka.Consumer { return p.consumer }

// Records implements projector.Log.
func (p *Projector) Records(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return p.consumer.Records(ctx, t, slot, from, to)
}
