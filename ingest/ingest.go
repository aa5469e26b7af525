package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// ErrUnavailable says that the log did not acknowledge an event: it is down, or the buffer is full. Retriable, under
// the same message id, because an event that timed out may be in the log all the same.
var ErrUnavailable = errors.New("the log does not take events now")

var errFull = fmt.Errorf("%w: %w", ErrUnavailable, kgo.ErrMaxBuffered)

// Receipt is the place of an acknowledged event.
type Receipt struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	LogTime  time.Time
}

// Ingest appends events to the log. Its methods may be called from any goroutine.
type Ingest struct {
	// Fixed after New.
	cfg      Config
	bases    *kafka.Bases
	log      *slog.Logger
	metrics  *metrics
	events   *kgo.Client
	receipts *kgo.Client
	envelope []byte        // what is added to every event
	kick     chan struct{} // capacity 1: watermarks wait
	probe    chan struct{} // capacity 1: look at the log now
	lanes    [][]lane      // by topic number and slot
	turns    chan *lane    // narrow lanes whose next event may go; as many fit as there are lanes
	sending  chan struct{} // capacity 1: who sends watermarks has put something in
	ends     map[topic.Topic]*ends

	clock  clock
	trust  trust
	down   atomic.Bool // the log takes nothing
	closed atomic.Bool // Run has ended

	mu      sync.Mutex // guards waiting
	waiting map[pair]thread.Watermark

	heldN     atomic.Int64 // events that wait in narrow lanes; written under heldMu
	heldBytes atomic.Int64
	heldMu    sync.Mutex    // guards what follows; taken with a lane's mu held
	heldNone  chan struct{} // closed when none waits any more; nil while none does
}

// slackRecords is how many more events the producer takes than Append hands over: as many may pass its look at the
// buffer at one time.
const slackRecords = 256

// connIdle is how long a connection of a producer may be idle: brokers close theirs after ten minutes, and each new one
// has the log looked at.
const connIdle = 9 * time.Minute

// New returns an Ingest over the log that cfg names; bases gives the positions of its records. Nothing is connected
// before the first Append. Run must be called: it sends the watermarks and notices that the log is back.
func New(cfg Config, bases *kafka.Bases, log *slog.Logger, reg prometheus.Registerer) (*Ingest, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if bases == nil {
		return nil, errors.New("ingest: no bases")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	i := &Ingest{
		cfg: cfg, bases: bases, log: log, metrics: newMetrics(reg),
		kick: make(chan struct{}, 1), probe: make(chan struct{}, 1), waiting: map[pair]thread.Watermark{},
		sending: make(chan struct{}, 1),
		trust:   trust{doubt: kafka.NewDoubts()},
	}
	for range topic.Presence.Number() + 1 {
		i.lanes = append(i.lanes, make([]lane, cfg.Partitions))
	}
	i.turns = make(chan *lane, len(i.lanes)*cfg.Partitions)
	var err error
	i.envelope, err = proto.Marshal(eventv1.Event_builder{Rules: event.WrittenRules, Producer: cfg.Producer}.Build())
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	i.events, err = kafka.Dial(cfg.Kafka, append(kafka.ProducerOpts(kafka.ProducerConfig{
		Linger: cfg.linger, MaxRecords: cfg.maxRecords + slackRecords, MaxBytes: cfg.maxBytes + slackRecords*MaxEvent,
		DeliveryTimeout: cfg.deliveryTimeout,
	}), kgo.WithHooks(&watch{i}, i.trust.doubt), kgo.ConnIdleTimeout(connIdle))...)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	second := cfg.Kafka
	if second.ClientID == "" {
		second.ClientID = "helio"
	}
	second.ClientID += "-receipts"
	i.receipts, err = kafka.Dial(second, append(kafka.ProducerOpts(kafka.ProducerConfig{
		Linger: cfg.receiptLinger, MaxRecords: maxWatermarks, MaxBytes: cfg.maxBytes,
		DeliveryTimeout: cfg.deliveryTimeout,
	}), kgo.ConnIdleTimeout(connIdle))...)
	if err != nil {
		i.events.Close()
		return nil, fmt.Errorf("ingest: %w", err)
	}
	i.ends = map[topic.Topic]*ends{}
	for _, t := range []topic.Topic{topic.Threads, topic.Users} {
		i.ends[t] = &ends{
			ask: func(ctx context.Context) ([]topic.Position, error) { return bases.Ends(ctx, i.events, t) },
		}
	}
	i.metrics.up.Set(1)
	i.gauges(reg)
	return i, nil
}

// Append hands an event over to the log. done is called exactly once, on the producer's goroutine (or Run's, at its
// end) or, when the event is refused at once, on the caller's before Append returns: it must not block. Its error is
// ErrUnavailable (retriable) or *event.Invalid (permanent), wrapped or bare. The event is not kept.
func (i *Ingest) Append(t topic.Topic, s topic.Subject, ev *eventv1.Event, done func(Receipt, error)) {
	e := event.Of(ev)
	e.Rules = event.WrittenRules
	if err := check(t, s, e); err != nil {
		i.metrics.failures.WithLabelValues(string(t), reasonInvalid).Inc()
		done(Receipt{}, err)
		return
	}
	if i.closed.Load() {
		i.refuse(t, reasonClosed, done)
		return
	}
	if i.down.Load() {
		i.refuse(t, reasonDown, done)
		return
	}
	if i.clock.isOff() {
		i.refuse(t, reasonClock, done)
		return
	}
	value, err := i.encode(e)
	if err != nil {
		err = event.Invalidf("event", "cannot be encoded: %v", err)
	} else if len(value) > MaxEvent {
		err = event.Invalidf("event", "has %d bytes, at most %d", len(value), MaxEvent)
	}
	if err != nil {
		i.metrics.failures.WithLabelValues(string(t), reasonInvalid).Inc()
		done(Receipt{}, err)
		return
	}
	if i.events.BufferedProduceRecords()+i.heldN.Load() >= int64(i.cfg.maxRecords) ||
		i.events.BufferedProduceBytes()+i.heldBytes.Load()+int64(len(value)) > int64(i.most(i.cfg.maxBytes)) {
		i.metrics.failures.WithLabelValues(string(t), reasonFull).Inc()
		done(Receipt{}, errFull) // at once: the producer would say so later, and take what comes meanwhile
		return
	}
	slot := topic.SlotOf(s, i.cfg.Partitions)
	h := held{rec: i.cfg.Kafka.NewRecord(t, slot, s[:], value), begun: time.Now(), done: done}
	l := i.lane(t, slot)
	f, wait, reason := l.enter(h.begun)
	switch {
	case reason == reasonLog:
		i.metrics.failures.WithLabelValues(string(t), reason).Inc()
		err := ErrUnavailable // nothing is wrong with it any more, as of this moment
		if wrong := l.fault.Load(); wrong != nil {
			err = fmt.Errorf("%w: %w", err, wrong)
		}
		done(Receipt{}, err)
		return
	case reason != "":
		i.refuse(t, reason, done)
		return
	}
	i.cfg.Kafka.Budget.Add(h.weight()) // until it is settled
	switch {
	case !wait:
		i.fly(t, l, f, h)
	case !i.wait(l, h):
		i.cfg.Kafka.Budget.Add(-h.weight())
		i.refuse(t, reasonClosed, done)
	}
}

// lane returns the lane of a partition.
func (i *Ingest) lane(t topic.Topic, s topic.Slot) *lane { return &i.lanes[t.Number()][s] }

// fly hands an event over to the producer.
func (i *Ingest) fly(t topic.Topic, l *lane, f flight, h held) {
	slot := topic.Slot(h.rec.Partition)
	i.events.TryProduce(context.Background(), h.rec, func(rec *kgo.Record, err error) {
		i.cfg.Kafka.Budget.Add(-h.weight())
		if err = i.settle(t, slot, l, f, err); err != nil {
			h.done(Receipt{}, err)
			return
		}
		acked := func(err error) {
			if err != nil {
				i.metrics.failures.WithLabelValues(string(t), reasonLog).Inc()
				h.done(Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, err))
				return
			}
			i.metrics.acknowledged(t, time.Since(h.begun))
			h.done(Receipt{Topic: t, Slot: slot, Position: i.bases.Position(rec), LogTime: rec.Timestamp}, nil)
		}
		if !i.sure(l, rec, acked) {
			return
		}
		if wrong := l.fault.Load(); wrong != nil { // it was under way when that was found
			acked(wrong)
			return
		}
		l.last.Store(i.told(rec))
		acked(nil)
	})
}

// wait puts an event behind those that wait in its lane; false when nobody will send it any more.
func (i *Ingest) wait(l *lane, h held) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i.closed.Load() { // under mu: Run fails what waits after it has set this
		return false
	}
	l.held = append(l.held, h)
	i.countHeld(1, len(h.rec.Value))
	if l.flying == 0 && !l.queued { // what it was to wait for has ended meanwhile
		l.queued = true
		i.turns <- l // never full: a lane is in it once
	}
	return true
}

// takeTurns is the goroutine that sends what waits in narrow lanes, one of each lane at a time.
func (i *Ingest) takeTurns(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-i.turns:
			i.turn(l)
		}
	}
}

// turn sends the oldest event that waits in a lane.
func (i *Ingest) turn(l *lane) {
	l.mu.Lock()
	l.queued = false
	if l.flying > 0 || len(l.held) == 0 {
		l.mu.Unlock()
		return
	}
	h := l.held[0]
	l.held[0] = held{}
	l.held = l.held[1:]
	f := l.takeOff()
	l.mu.Unlock()
	t, _ := i.cfg.Kafka.Topic(h.rec.Topic)
	i.fly(t, l, f, h)
	i.countHeld(-1, -len(h.rec.Value)) // after it: Flush looks here first
}

// failHeld fails what still waits, once closed is set.
func (i *Ingest) failHeld() {
	for n := range i.lanes {
		for s := range i.lanes[n] {
			l := &i.lanes[n][s]
			l.mu.Lock()
			all := l.held
			l.held = nil
			l.mu.Unlock()
			for _, h := range all {
				t, _ := i.cfg.Kafka.Topic(h.rec.Topic)
				i.countHeld(-1, -len(h.rec.Value))
				i.cfg.Kafka.Budget.Add(-h.weight())
				i.refuse(t, reasonClosed, h.done)
			}
		}
	}
}

// countHeld counts events that wait in narrow lanes, or no longer do.
func (i *Ingest) countHeld(n, bytes int) {
	i.heldMu.Lock()
	defer i.heldMu.Unlock()
	i.heldBytes.Add(int64(bytes))
	switch {
	case i.heldN.Add(int64(n)) == 0:
		close(i.heldNone)
		i.heldNone = nil
	case i.heldNone == nil:
		i.heldNone = make(chan struct{})
	}
}

// flushEvents waits until every event handed in so far is settled.
func (i *Ingest) flushEvents(ctx context.Context) error {
	i.heldMu.Lock()
	none := i.heldNone
	i.heldMu.Unlock()
	if none != nil {
		select {
		case <-none:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return i.events.Flush(ctx)
}

// encode returns the bytes of an event in the log: the event, and behind it what ingest adds to every envelope.
// Protobuf's encodings of two messages, one behind the other, are that of the two merged, so that part is encoded once
// (Protocol Buffers, Encoding: Last One Wins).
func (i *Ingest) encode(e *event.Event) ([]byte, error) { return encode(e, i.envelope) }

func encode(e *event.Event, envelope []byte) ([]byte, error) {
	value, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(e.Event)+len(envelope)+8), e.Event)
	if err != nil {
		return nil, err
	}
	value = append(value, envelope...)
	d, _ := event.Declared(e.Type)
	if d.Since <= 1 {
		return value, nil
	}
	more := eventv1.Event_builder{MinReader: max(d.Since, e.GetMinReader()), Ignorable: d.Ignorable}
	if d.Ignorable {
		more.MinReader = 0
	}
	return proto.MarshalOptions{}.MarshalAppend(value, more.Build())
}

// AppendWait appends an event, of the request that ctx is of (WithRequest), and waits for the log. When ctx ends first
// the outcome is unknown.
func (i *Ingest) AppendWait(ctx context.Context, t topic.Topic, s topic.Subject, ev *eventv1.Event) (Receipt, error) {
	type outcome struct {
		rec Receipt
		err error
	}
	out := make(chan outcome, 1)
	if name := Request(ctx); name != nil {
		ev.SetRequestId(name)
	}
	i.Append(t, s, ev, func(rec Receipt, err error) { out <- outcome{rec, err} })
	select {
	case o := <-out:
		return o.rec, o.err
	case <-ctx.Done():
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// Up tells whether the log takes events, as far as is known.
func (i *Ingest) Up() bool { return !i.down.Load() && !i.closed.Load() }

// Run sends watermarks and probes a log that is down, until ctx ends; then it closes the producers, failing what is
// still in flight and dropping the watermarks that still wait (see Flush), and returns nil.
func (i *Ingest) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { i.send(ctx); return nil })
	g.Go(func() error { i.look(ctx); return nil })
	g.Go(func() error { i.takeTurns(ctx); return nil })
	g.Go(func() error { i.watchLog(ctx); return nil })
	g.Go(func() error { i.giveUpLate(ctx); return nil })
	if i.cfg.Clock != nil {
		g.Go(func() error { i.askClock(ctx); return nil })
	}
	err := g.Wait()
	i.closed.Store(true)
	i.failHeld()
	i.events.Close()
	i.receipts.Close()
	i.giveUp(time.Now(), errStopped)
	i.mu.Lock()
	i.metrics.dropped.WithLabelValues(reasonClosed).Add(float64(len(i.waiting)))
	i.cfg.Kafka.Budget.Add(-len(i.waiting) * watermarkWeight)
	clear(i.waiting)
	i.mu.Unlock()
	i.metrics.up.Set(0)
	return err
}

// Flush waits until every event handed in so far is acknowledged or failed, and every watermark acknowledged. With the
// log down it does not wait for watermarks: when there are some it returns ErrUnavailable, and they go on waiting.
func (i *Ingest) Flush(ctx context.Context) error {
	sent := !i.down.Load()
	if sent {
		i.sendWaiting(ctx)
	}
	if err := i.flushEvents(ctx); err != nil {
		return fmt.Errorf("ingest: flush events: %w", err)
	}
	if !sent && !i.down.Load() { // back meanwhile
		i.sendWaiting(ctx)
	}
	if err := i.receipts.Flush(ctx); err != nil {
		return fmt.Errorf("ingest: flush receipts: %w", err)
	}
	i.mu.Lock()
	n := len(i.waiting)
	i.mu.Unlock()
	if n > 0 && i.down.Load() { // else they came in since
		return fmt.Errorf("ingest: %d watermarks wait: %w", n, ErrUnavailable)
	}
	return nil
}

// most is how many bytes a queue of at most so many may hold now, since others want memory too.
func (i *Ingest) most(bytes int) int {
	return min(bytes, max(leastBytes, i.cfg.Kafka.Budget.Most(bytes)))
}

// refuse fails an event without handing it over.
func (i *Ingest) refuse(t topic.Topic, reason string, done func(Receipt, error)) {
	i.metrics.failures.WithLabelValues(string(t), reason).Inc()
	done(Receipt{}, ErrUnavailable)
}

// settle ends an event's flight and says what its sender is told: nil, an *event.Invalid when the log will never take
// this event, or ErrUnavailable.
func (i *Ingest) settle(t topic.Topic, slot topic.Slot, l *lane, f flight, err error) error {
	end, reason := acked, ""
	switch {
	case err == nil:
	case recordRefused(err):
		end, reason = refused, reasonRefused
	case errors.Is(err, kgo.ErrMaxBuffered):
		end, reason = nothing, reasonFull
	case errors.Is(err, kgo.ErrClientClosed):
		end, reason = nothing, reasonClosed
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, context.DeadlineExceeded):
		end, reason = failed, reasonTimeout
	default:
		end, reason = failed, reasonBroker
	}
	alone, next, turned := l.land(f, end, time.Now(), i.cfg.probeInterval, i.cfg.narrowFor)
	if next {
		i.turns <- l
	}
	if turned && end == failed {
		i.metrics.suspect.Inc()
		i.log.Warn("kafka partition takes nothing, refusing its events", "topic", t, "slot", slot, "err", err)
	} else if turned {
		i.metrics.suspect.Dec()
		i.log.Info("kafka partition takes events again", "topic", t, "slot", slot)
	}
	if err == nil {
		return nil
	}
	if end == refused && !alone {
		reason = reasonBeside
	}
	i.metrics.failures.WithLabelValues(string(t), reason).Inc()
	switch {
	case end == failed:
		kick(i.probe) // is it the whole log?
	case reason == reasonRefused:
		i.log.Error("kafka refuses an event for good", "topic", t, "slot", slot, "err", err)
		return fmt.Errorf("append to %s/%d: %w: %w", t, slot, &event.Invalid{
			Field: "event", Why: "is refused by the log", TooLong: errors.Is(err, kerr.MessageTooLarge),
		}, err)
	}
	return fmt.Errorf("%w: append to %s/%d: %w", ErrUnavailable, t, slot, err)
}

// forgive ends all suspicion of partitions: it was the log.
func (i *Ingest) forgive() {
	for n := range i.lanes {
		for s := range i.lanes[n] {
			if i.lanes[n][s].forgive() {
				i.metrics.suspect.Dec()
			}
		}
	}
}

// look is the goroutine that probes the log: now and then (a client that is idle does not notice a lost connection),
// when something went wrong, and until it is back.
func (i *Ingest) look(ctx context.Context) {
	idle := time.NewTicker(5 * i.cfg.probeInterval)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			kick(i.kick) // watermarks of a suspect partition
		case <-i.probe:
		}
		for {
			pctx, cancel := context.WithTimeout(ctx, max(i.cfg.probeInterval, time.Second))
			err := i.events.Ping(pctx)
			cancel()
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				break
			}
			if i.down.CompareAndSwap(false, true) {
				i.metrics.up.Set(0)
				i.log.Warn("kafka unreachable, refusing events", "err", err)
			}
			if !run.Sleep(ctx, i.cfg.probeInterval) {
				return
			}
		}
		if i.down.CompareAndSwap(true, false) {
			i.forgive()
			i.metrics.up.Set(1)
			i.log.Info("kafka reachable again, taking events")
			kick(i.kick)
		}
		// A probe that met one dead broker among living ones has asked for the next: not at once.
		if !run.Sleep(ctx, i.cfg.probeInterval) {
			return
		}
	}
}

// watch asks for a probe as soon as a connection to a broker is lost or refused, so that a log that went away is known
// before the first event times out.
type watch struct{ i *Ingest }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (w *watch) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		kick(w.i.probe)
	}
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (w *watch) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { kick(w.i.probe) }

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
