package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// ConsumerConfig says which slots are read, into which view, and how batches are put together. Zero means default.
type ConsumerConfig struct {
	Kafka Config
	View  string // metric label and log field: a closed set; must be set

	// Group is the consumer group that hands out the slots; empty reads Slots without a group.
	Group             string
	InstanceID        string        // static membership: a restart under the same name moves no slot
	SessionTimeout    time.Duration // default 45 s
	HeartbeatInterval time.Duration // default a tenth of the session timeout, at most 3 s
	RebalanceTimeout  time.Duration // default 60 s
	Slots             []topic.Slot  // without a group: which slots; nil is all

	Topics     []topic.Topic // default topic.Folded
	Partitions int           // P; default: what the log has
	// Raw: events that an operator has dropped come as they are. For who folds nothing and passes everything on.
	Raw bool

	// A batch goes when nothing more has come for Linger (default 0: it waits for nothing), and on a busy slot after
	// LingerBusy (default Linger) or with LingerRecords (default MaxRecords) at the latest. A quiet slot is thus never
	// late, while a busy one makes few and large batches. LingerBusy is drawn anew for each batch, a quarter more or
	// less, so that the slots do not write all at once.
	Linger        time.Duration
	LingerBusy    time.Duration
	LingerRecords int
	MaxRecords    int // of a batch; default 2,000
	MaxBytes      int // of a batch; default 4 MiB

	QueueRecords int // fetched ahead per slot before its fetching is paused; default 4 batches
	QueueBytes   int // likewise; default 8 MiB

	BackoffMax   time.Duration // default 5 s
	DrainTimeout time.Duration // for the batch in hand when a slot is given up; default 10 s
	CommitEvery  time.Duration // default 5 s

	// For tests.
	backoffMin time.Duration // default 50 ms
	lagEvery   time.Duration // default 2 s
	checkEvery time.Duration // how often a Checker's stored positions are looked at; default 5 s
	// how often the log is asked whether it is still the same, besides after each new connection; default 10 s
	layoutEvery time.Duration
}

// Validate reports every fault at once.
func (c ConsumerConfig) Validate() error {
	var errs []error
	if err := c.Kafka.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.View == "" {
		errs = append(errs, errors.New("kafka: a consumer needs a view name"))
	}
	if c.Group == "" && c.InstanceID != "" {
		errs = append(errs, errors.New("kafka: an instance id is set without a group"))
	}
	if c.Group != "" && len(c.Slots) > 0 {
		errs = append(errs, errors.New("kafka: slots are listed although a group hands them out"))
	}
	for _, t := range c.Topics {
		if t.Number() == 0 {
			errs = append(errs, fmt.Errorf("kafka: unknown topic %q", t))
		}
	}
	for name, n := range map[string]int64{
		"partitions": int64(c.Partitions), "linger": int64(c.Linger), "busy linger": int64(c.LingerBusy),
		"linger records": int64(c.LingerRecords),
		"max records":    int64(c.MaxRecords), "max bytes": int64(c.MaxBytes),
		"queue records": int64(c.QueueRecords), "queue bytes": int64(c.QueueBytes),
		"session timeout": int64(c.SessionTimeout), "backoff": int64(c.BackoffMax),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("kafka: %s is negative", name))
		}
	}
	return errors.Join(errs...)
}

func (c ConsumerConfig) withDefaults() ConsumerConfig {
	run.Default(&c.SessionTimeout, 45*time.Second)
	run.Default(&c.HeartbeatInterval, min(c.SessionTimeout/10, 3*time.Second))
	run.Default(&c.RebalanceTimeout, time.Minute)
	if len(c.Topics) == 0 {
		c.Topics = topic.Folded
	}
	run.Default(&c.Partitions, c.Kafka.Partitions)
	run.Default(&c.MaxRecords, 2000)
	run.Default(&c.MaxBytes, 4<<20)
	run.Default(&c.LingerBusy, c.Linger)
	run.Default(&c.LingerRecords, c.MaxRecords)
	run.Default(&c.QueueRecords, 4*c.MaxRecords)
	run.Default(&c.QueueBytes, 8<<20)
	run.Default(&c.backoffMin, 50*time.Millisecond)
	run.Default(&c.BackoffMax, 5*time.Second)
	run.Default(&c.DrainTimeout, 10*time.Second)
	run.Default(&c.lagEvery, 2*time.Second)
	run.Default(&c.CommitEvery, 5*time.Second)
	run.Default(&c.checkEvery, 5*time.Second)
	run.Default(&c.layoutEvery, 10*time.Second)
	return c
}

// Consumer is the one consumer loop: it owns slots, reads partition p of every topic for each slot p, and gives a Sink
// their records in batches. Its methods may be called from any goroutine.
type Consumer struct {
	// Fixed after New.
	cfg     ConsumerConfig
	sink    Sink
	log     *slog.Logger
	metrics *metrics
	again   chan struct{} // one for each reader of Records
	doubt   *Doubts
	asking  chan struct{} // taken by who asks for a layout, and by who reads seen
	seen    layout
	// guarded by asking too
	reloaded time.Time

	// Fixed once Run has set up, before any slot is owned.
	cl     *kgo.Client // reads partitions directly; no group
	member *kgo.Client // only a member of the group; nil without one; set under mu
	bases  *Bases
	// what was decided of quarantine; nil when the records come as they are
	decisions *Decisions
	replay    bool                       // read up to ends and return
	ends      map[topic.Slot]Positions   // nil but in a replay
	slotWG    sync.WaitGroup             // the supervise goroutines
	names     map[string]topic.Topic     // by the name on the cluster
	routes    map[string]map[int32]*feed // the reader's goroutine only

	mu      sync.Mutex // guards what follows
	ready   bool       // set up; the fields above may be read
	closing bool
	slots   map[topic.Slot]*ownedSlot
	logEnds map[topic.Topic]map[topic.Slot]topic.Position
	// when the log last told its ends; before it did, when this was made
	told time.Time
	// when the group last counted this as a member; before it did, when this was made
	joined time.Time
	group  membership
	// of lags, for slots that have nothing in hand
	behind   map[topic.Topic]map[topic.Slot]sighting
	cmds     []func()
	wakePoll context.CancelFunc
	failure  error
	failed   chan struct{}
}

// NewConsumer returns a consumer that does nothing until Run.
func NewConsumer(cfg ConsumerConfig, sink Sink) (*Consumer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	now := time.Now()
	return &Consumer{
		cfg: cfg, sink: sink,
		log:     cfg.Kafka.logger().With("view", cfg.View),
		metrics: newMetrics(cfg.Kafka.Registerer, cfg.View, cfg.Topics),
		names:   make(map[string]topic.Topic),
		routes:  make(map[string]map[int32]*feed),
		slots:   make(map[topic.Slot]*ownedSlot),
		logEnds: make(map[topic.Topic]map[topic.Slot]topic.Position),
		behind:  make(map[topic.Topic]map[topic.Slot]sighting),
		failed:  make(chan struct{}),
		again:   make(chan struct{}, againAtOnce),
		asking:  make(chan struct{}, 1),
		doubt:   NewDoubts(),
		told:    now, joined: now,
	}, nil
}

// Run owns slots and feeds the sink until ctx is cancelled; it may be called once. It waits for a log that is not there
// yet. It returns nil on cancellation, after the batches in hand were applied or DrainTimeout has passed, and an
// *InstanceTakenError when another process has held its place in the group for longer than the session timeout.
func (c *Consumer) Run(ctx context.Context) error { return c.run(ctx) }

// Replay reads the slots of cfg (nil: all) from the sink's positions, which for a fresh sink are the beginning, up to
// the ends that the log has now, and returns. Errors that are not transient end it.
func Replay(ctx context.Context, cfg ConsumerConfig, sink Sink) error {
	if cfg.Group != "" {
		return errors.New("kafka: a replay takes no group")
	}
	c, err := NewConsumer(cfg, sink)
	if err != nil {
		return err
	}
	c.replay = true
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("kafka: replay: %w", err)
	}
	return ctx.Err()
}

func (c *Consumer) run(ctx context.Context) error {
	var err error
	c.cl, err = Dial(c.cfg.Kafka, kgo.WithHooks(c.doubt),
		// A stored position that the log does not have must be seen, not mended by a rewind.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// A partition that is added or resumed waits for the fetch in flight: this bounds how long.
		kgo.FetchMaxWait(c.fetchWait()), kgo.FetchMinBytes(c.fetchLeast()),
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(c.fetchMost()), kgo.MaxDecompressBatchBytes(16<<20))
	if err != nil {
		return err
	}
	defer c.cl.Close()
	if err := c.setUp(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	// The helpers outlive ctx: slots are drained first, and the detached context ends right after.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error { c.read(inner); return nil })
	g.Go(func() error { c.watchFence(inner); return nil })
	g.Go(func() error { c.watchLag(inner); return nil })
	g.Go(func() error { c.watchLog(inner); return nil })
	g.Go(func() error { c.showUnsure(inner); return nil })
	if c.decisions != nil {
		g.Go(func() error { return c.decisions.Run(inner) })
	}
	finished := make(chan struct{})
	var abandon context.CancelFunc
	switch {
	case c.cfg.Group != "":
		// Not inner: leaving the group is the last thing that it does.
		joined, leave := context.WithCancel(context.WithoutCancel(ctx))
		defer leave()
		abandon = leave
		member, err := c.join(joined)
		if err != nil {
			stop()
			return errors.Join(err, g.Wait())
		}
		c.mu.Lock()
		c.member = member
		c.mu.Unlock()
		g.Go(func() error { c.watchMember(inner); return nil })
		g.Go(func() error { c.commitLoop(inner); return nil })
	default:
		slots := c.cfg.Slots
		if len(slots) == 0 {
			for s := range c.cfg.Partitions {
				slots = append(slots, topic.Slot(s))
			}
		}
		c.assign(ctx, slots)
		if c.replay {
			go func() { c.slotWG.Wait(); close(finished) }()
		}
	}
	select {
	case <-ctx.Done():
	case <-c.failed:
	case <-finished:
	}
	c.mu.Lock()
	c.closing = true
	var all []topic.Slot
	for s := range c.slots {
		all = append(all, s)
	}
	c.mu.Unlock()
	c.release(all, false)
	c.slotWG.Wait()
	if c.member != nil {
		final, cancel := context.WithTimeout(inner, 2*time.Second)
		c.commit(final)
		cancel()
		// While the group waits for another member to join, there is no leaving it; our session's end tells the group
		// as well.
		late := time.AfterFunc(leaveTimeout, abandon)
		c.member.Close()
		late.Stop()
	}
	stop()
	_ = g.Wait() // its goroutines return no errors
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// setUp asks the log for what the slots need to know, for as long as it takes.
func (c *Consumer) setUp(ctx context.Context) error {
	for _, t := range c.cfg.Topics {
		c.names[c.cfg.Kafka.Name(t)] = t
	}
	back := run.Backoff{Min: 100 * time.Millisecond, Max: c.cfg.BackoffMax}
	for {
		err := c.ask(ctx)
		var wrong *PartitionsError
		if err == nil {
			c.mu.Lock()
			c.ready = true
			c.mu.Unlock()
			return nil
		}
		if errors.As(err, &wrong) {
			return err
		}
		if back.Tries() == 0 {
			c.log.Warn("kafka unreachable, retrying", "err", err)
		}
		if err := back.Wait(ctx); err != nil {
			return err
		}
	}
}

func (c *Consumer) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var names []string
	for _, t := range c.cfg.Topics {
		names = append(names, c.cfg.Kafka.Name(t))
	}
	needed := names
	if !c.cfg.Raw {
		needed = append(slices.Clone(names), c.cfg.Kafka.Name(topic.Quarantine))
	}
	have, _, err := look(ctx, c.cl, needed...)
	if err != nil {
		return fmt.Errorf("kafka: read topics: %w", err)
	}
	p := c.cfg.Partitions
	for _, name := range needed {
		h, ok := have[name]
		if !ok {
			return fmt.Errorf("kafka: topic %s is not there yet", name)
		}
		n := h.partitions
		if p == 0 {
			p = n
		}
		if n != p {
			return &PartitionsError{Topic: name, Have: n, Want: p}
		}
	}
	bases, err := LoadBases(ctx, c.cl, c.cfg.Kafka, c.cfg.Topics, p)
	if err != nil {
		return err
	}
	c.cfg.Partitions, c.bases = p, bases
	if !c.cfg.Raw {
		c.decisions = NewDecisions(c.cfg.Kafka, p, nil)
	}
	ends, err := c.askEnds(ctx)
	if err != nil {
		return err
	}
	if c.replay {
		c.ends = make(map[topic.Slot]Positions)
		for t, slots := range ends {
			for s, end := range slots {
				if c.ends[s] == nil {
					c.ends[s] = make(Positions)
				}
				c.ends[s][t] = end
			}
		}
		return c.dropEmpty(ctx, names)
	}
	return nil
}

// reload learns what was adopted since, for a slot whose log is not the one that was read, or has a base that was not
// known. What fails shows itself when the slot is opened.
func (c *Consumer) reload(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select { // one for all slots
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return
	}
	if time.Since(c.reloaded) < reloadEvery {
		return
	}
	if err := c.bases.Reload(ctx, c.cl); err != nil {
		c.log.Warn("what was adopted of the log is not known", "err", err)
		return
	}
	c.reloaded, c.seen = time.Now(), layout{}
}

// reloadEvery is how often slots may have it learned what was adopted.
const reloadEvery = 500 * time.Millisecond

// dropEmpty sets the end of a partition that holds no record (any more) to 0: nothing of it will ever arrive.
func (c *Consumer) dropEmpty(ctx context.Context, names []string) error {
	starts, err := listOffsets(ctx, c.cl, false, names)
	if err != nil {
		return err
	}
	starts.Each(func(o kadm.ListedOffset) {
		t, s := c.names[o.Topic], topic.Slot(o.Partition)
		if c.ends[s][t] <= c.bases.At(t, s, o.Offset) {
			c.ends[s][t] = 0
		}
	})
	return nil
}

// fail ends Run with err; the first one counts.
func (c *Consumer) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == nil {
		c.failure = err
		close(c.failed)
	}
}

// assign starts a slot's goroutine for each slot that is not owned yet.
func (c *Consumer) assign(ctx context.Context, slots []topic.Slot) {
	ctx = context.WithoutCancel(ctx) // a slot ends through release, which has a deadline
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	for _, s := range slots {
		if c.slots[s] != nil {
			continue
		}
		o := &ownedSlot{slot: s, since: time.Now(), done: make(chan struct{})}
		var st stops
		st.hard, o.hard = context.WithCancel(ctx)
		st.polite, o.drain = context.WithCancel(st.hard)
		c.slots[s] = o
		c.metrics.owned.Inc()
		c.slotWG.Go(func() { c.supervise(st, o) })
	}
}

// release gives slots up and returns when their goroutines have ended. With lost they are cut off; else the batch in
// hand is finished first, for at most DrainTimeout.
func (c *Consumer) release(slots []topic.Slot, lost bool) {
	c.mu.Lock()
	var gone []*ownedSlot
	for _, s := range slots {
		if o := c.slots[s]; o != nil {
			gone = append(gone, o)
		}
	}
	c.mu.Unlock()
	for _, o := range gone {
		if lost {
			o.lost.Store(true)
			o.hard()
		}
		o.drain()
	}
	late := time.NewTimer(c.cfg.DrainTimeout)
	defer late.Stop()
	for _, o := range gone {
		select {
		case <-o.done:
		case <-late.C:
			c.log.Warn("shutdown timed out: slot not given up", "slot", o.slot)
			for _, o := range gone {
				o.hard()
			}
		}
		<-o.done
		c.mu.Lock()
		mine := c.slots[o.slot] == o // a stop and a rebalance may give up the same slot at the same time
		if mine {
			delete(c.slots, o.slot)
			for _, t := range c.cfg.Topics {
				delete(c.behind[t], o.slot)
			}
		}
		c.mu.Unlock()
		if mine {
			c.metrics.owned.Dec()
			c.metrics.forget(c.cfg.Topics, o.slot)
		}
	}
}

// Owned returns the slots that this consumer owns now, sorted.
func (c *Consumer) Owned() []topic.Slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []topic.Slot
	for s := range c.slots {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// Partitions returns P once Run has learned it, else 0.
func (c *Consumer) Partitions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready {
		return 0
	}
	return c.cfg.Partitions
}

// Stalled returns the owned slots whose last attempt failed, with the error.
func (c *Consumer) Stalled() map[topic.Slot]error {
	out := make(map[topic.Slot]error)
	for _, o := range c.owned() {
		o.mu.Lock()
		if o.err != nil {
			out[o.slot] = o.err
		}
		o.mu.Unlock()
	}
	return out
}

func (c *Consumer) owned() []*ownedSlot {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*ownedSlot, 0, len(c.slots))
	for _, o := range c.slots {
		out = append(out, o)
	}
	return out
}

// fetchWait and fetchLeast let a consumer that gathers batches anyway ask the log in the rhythm of its linger, and not
// once for each event: at low rates that is most of what it costs, here and in the broker. One that does not gather is
// answered at once.
func (c *Consumer) fetchWait() time.Duration {
	if c.cfg.Linger > 0 {
		return min(250*time.Millisecond, max(10*time.Millisecond, c.cfg.Linger))
	}
	return 250 * time.Millisecond
}

// fetchMost bounds what a fetch brings of one partition: a queue takes one fetch even when little memory is free.
func (c *Consumer) fetchMost() int32 {
	return int32(min(1<<20, max(64<<10, c.cfg.Kafka.Budget.Memory()/4096)))
}

func (c *Consumer) fetchLeast() int32 {
	if c.cfg.Linger > 0 {
		return 1 << 20
	}
	return 1
}
