package threads

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector"
	"heliograph/schemas/topic"
)

// MinRetention is the shortest tail: twice the window of the rule on repeated message ids.
const MinRetention = 48 * time.Hour

// DefaultRetention is the tail where nothing else is asked for.
const DefaultRetention = 30 * 24 * time.Hour

// Topics are those that the views are folded from.
var Topics = topic.Folded

// Config of the projector. Zero means default.
type Config struct {
	// Consumer says where the log is and which slots are read. View defaults to "threads", Topics to Topics, Linger to
	// 50 ms, LingerBusy to 500 ms, LingerRecords to 1,000, Logger and Registerer to those given to New.
	Consumer kafka.ConsumerConfig
	// Retention is how long, in log time before the slot's latest event, messages stay. Default DefaultRetention,
	// at least MinRetention.
	Retention time.Duration
	// CacheBytes bounds the fold states kept per slot, by estimate. Default 4 MiB.
	CacheBytes int
	// CopyRows is the number of rows from which a batch goes through COPY. Default 2,000.
	CopyRows int
	// Report is told of each event that could not be applied, after it is in the quarantine table, and not of those
	// parked behind it. It must not block. A crash may lose the call. Default: nobody is told.
	Report func(view string, q projector.Quarantined)
	// Beside: the schema holds a generation beside the live one, which a replay fills. Else only a live one is written.
	Beside bool
	// Log brings records again, to drain what quarantine holds for a newer version. Default: Consumer's log, in a
	// Projector; a sink by itself then drains nothing.
	Log projector.Log

	// For tests.

	// trimRows is how many messages are removed by one statement. Default 5,000.
	trimRows int
	// timeout bounds one attempt at a batch, and every other question to the store: a server that has gone without a
	// word would hold the slot for as long as TCP goes on trying. The attempt then counts as a transient failure.
	// Default 30 s.
	timeout time.Duration
}

// trimEvery is how often messages that are out of the tail are removed.
const trimEvery = 10 * time.Minute

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Retention != 0 && c.Retention < MinRetention {
		errs = append(errs, fmt.Errorf("threads: a retention of %v is below %v", c.Retention, MinRetention))
	}
	if c.CacheBytes < 0 || c.CopyRows < 0 {
		errs = append(errs, errors.New("threads: a number is negative"))
	}
	if err := c.withDefaults(nil, nil).Consumer.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults(log *slog.Logger, reg prometheus.Registerer) Config {
	run.Default(&c.Consumer.View, "threads")
	if len(c.Consumer.Topics) == 0 {
		c.Consumer.Topics = Topics
	}
	run.Default(&c.Consumer.Linger, 50*time.Millisecond)
	run.Default(&c.Consumer.LingerBusy, max(500*time.Millisecond, c.Consumer.Linger))
	run.Default(&c.Consumer.LingerRecords, 1000)
	run.Default(&c.Consumer.Kafka.Logger, log)
	run.Default(&c.Consumer.Kafka.Registerer, reg)
	run.Default(&c.Retention, DefaultRetention)
	run.Default(&c.CacheBytes, 4<<20)
	run.Default(&c.CopyRows, 2000)
	run.Default(&c.trimRows, 5000)
	run.Default(&c.timeout, 30*time.Second)
	return c
}

// Projector keeps the thread views of the slots that it owns. Its methods may be called from any goroutine.
type Projector struct {
	sink     *Sink
	consumer *kafka.Consumer
}

// New returns a projector that does nothing until Run. The pool's search_path names the schema of the views, which must
// have been migrated.
func New(cfg Config, pool *pgxpool.Pool, log *slog.Logger, reg prometheus.Registerer) (*Projector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults(log, reg)
	p := &Projector{}
	if cfg.Log == nil {
		cfg.Log = p
	}
	p.sink = newSink(cfg, pool, log, reg, func() int { return p.consumer.Partitions() })
	var err error
	if p.consumer, err = kafka.NewConsumer(cfg.Consumer, p.sink); err != nil {
		return nil, err
	}
	return p, nil
}

// Run projects until ctx is cancelled and then returns nil; batches in hand are finished first. When the schema turns
// out to hold a generation that is not the live one it ends, with a *GenerationError. It may be called once.
func (p *Projector) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.sink.refused(ctx) })
	g.Go(func() error { return p.consumer.Run(ctx) })
	g.Go(func() error { p.sink.TrimLoop(ctx); return nil })
	return g.Wait()
}

// Consumer is the loop under the projector: lag, owned and stalled slots.
func (p *Projector) Consumer() *kafka.Consumer { return p.consumer }

// Records implements projector.Log.
func (p *Projector) Records(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position,
) iter.Seq2[kafka.Record, error] {
	return p.consumer.Records(ctx, t, slot, from, to)
}
