package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/kafka"
	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// Service is one delivery instance.
type Service struct {
	// Fixed after New.
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	consumer *kafka.Consumer
	past     *past

	mu     sync.Mutex // guards what follows; taken before a slot's
	slots  map[topic.Slot]*slot
	closed map[topic.Slot]time.Time // when a slot was closed: opened anew, it wants later marks of the log
	conns  map[*conn]struct{}
}

// New returns an instance that does nothing until Run. log and reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.Kafka.Logger, cfg.Kafka.Registerer = log, reg
	cfg.Kafka.ClientID = link.ClientID(link.Instance{Name: cfg.Name, Addr: cfg.Addr})
	s := &Service{
		cfg: cfg, log: log, metrics: newMetrics(reg),
		slots: make(map[topic.Slot]*slot), closed: make(map[topic.Slot]time.Time), conns: make(map[*conn]struct{}),
	}
	s.past = newPast(cfg, s.metrics)
	var err error
	s.consumer, err = kafka.NewConsumer(kafka.ConsumerConfig{
		Kafka: cfg.Kafka, View: "delivery",
		Group: cfg.Group, InstanceID: cfg.Kafka.Instance(cfg.Name),
		SessionTimeout: cfg.SessionTimeout, HeartbeatInterval: cfg.heartbeatInterval,
		RebalanceTimeout: max(10*time.Second, cfg.SessionTimeout), DrainTimeout: 2 * time.Second,
		Topics: topic.Folded, Raw: true, BackoffMax: time.Second, CommitEvery: time.Second,
	}, (*sink)(s))
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Run owns slots and pushes their events until ctx is cancelled; it may be called once.
func (s *Service) Run(ctx context.Context) error {
	quiet := s.cfg.Kafka
	quiet.Registerer = nil
	cl, err := kafka.Dial(quiet)
	if err != nil {
		return err
	}
	defer cl.Close()
	s.past.mu.Lock()
	s.past.cl = cl
	s.past.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.consumer.Run(ctx) })
	g.Go(func() error { s.tick(ctx); return nil })
	err = g.Wait()
	if !s.cfg.keepSlots {
		s.leaveGroup(context.WithoutCancel(ctx), kadm.NewClient(cl))
	}
	return err
}

// leaveGroup gives the slots to the other members at once: a static member that only closes keeps them until its
// session times out.
func (s *Service) leaveGroup(ctx context.Context, adm *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	me := s.cfg.Kafka.Instance(s.cfg.Name)
	left, err := adm.LeaveGroup(ctx, kadm.LeaveGroup(s.cfg.Group).InstanceIDs(me).Reason("stopped"))
	if err == nil {
		err = left[me].Err
	}
	if err != nil {
		s.log.Warn("leaving the consumer group failed, slots move after its session timeout",
			"group", s.cfg.Group, "err", err)
	}
}

// Owned returns the slots that are open here now, sorted.
func (s *Service) Owned() []topic.Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.slots))
}

// Lags returns how far the pushing of each owned slot is behind the log.
func (s *Service) Lags() []kafka.Lag { return s.consumer.Lags() }

// Unsure returns for how long Lags could not be trusted: the log did not tell its ends, or the group did not count this
// instance in.
func (s *Service) Unsure() time.Duration { return s.consumer.Unsure() }

// Ready returns nil while the log answers, the group counts this instance as a member, and none of its slots is
// stalled. An instance without slots is ready too, if they are all others' (there are more instances than slots).
func (s *Service) Ready() error {
	if err := s.consumer.Ready(); err != nil {
		return fmt.Errorf("delivery: %w", err)
	}
	return nil
}

// tick sends outstanding progress, lets old records go and sets the gauges.
func (s *Service) tick(ctx context.Context) {
	t := time.NewTicker(s.cfg.progressEvery)
	defer t.Stop()
	var whole time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			all := now.Sub(whole) >= idleProgress-s.cfg.progressEvery
			if all {
				whole = now
			}
			s.mu.Lock()
			slots := slices.Collect(maps.Values(s.slots))
			s.mu.Unlock()
			bytes, age := 0, time.Duration(0)
			for _, sl := range slots {
				b, a := sl.tick(now, all)
				bytes, age = bytes+b, max(age, a)
			}
			if all {
				s.gauge(bytes, age)
			}
		}
	}
}

func (s *Service) gauge(bytes int, age time.Duration) {
	s.metrics.ringBytes.Set(float64(bytes))
	s.metrics.ringAge.Set(age.Seconds())
	queued := 0
	s.mu.Lock()
	for c := range s.conns {
		queued = max(queued, c.end.Queued())
	}
	s.mu.Unlock()
	s.metrics.queueMax.Set(float64(queued))
	oldest := 0.0
	for _, l := range s.consumer.Lags() {
		oldest = max(oldest, l.Seconds)
	}
	s.metrics.oldest.Set(oldest)
}

func (s *Service) slot(id topic.Slot) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[id]
}

// enter makes a link known: Owned first, then the slots' progress.
func (s *Service) enter(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	s.metrics.links.Inc()
	s.tellOwned(c)
	for _, sl := range s.slots {
		sl.join(c)
	}
}

func (s *Service) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.metrics.links.Dec()
	for _, sl := range s.slots {
		sl.part(c)
	}
}

// tellOwned sends the list of slots; the caller holds mu.
func (s *Service) tellOwned(c *conn) {
	ids := make([]int32, 0, len(s.slots))
	for id := range s.slots {
		ids = append(ids, int32(id))
	}
	slices.Sort(ids)
	if err := c.end.Send(linkv1.ToEdge_builder{Owned: linkv1.Owned_builder{Slots: ids}.Build()}.Build()); err != nil {
		c.failSend(err)
	}
}

// answerOwned sends the list of slots to a link that asks (link.proto section 6).
func (s *Service) answerOwned(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellOwned(c)
}

// sink is the Service as the consumer sees it.
type sink Service

// Open begins a slot at the place that the log's marks give.
func (k *sink) Open(ctx context.Context, id topic.Slot) (kafka.Positions, error) {
	s := (*Service)(k)
	s.mu.Lock()
	after := s.closed[id]
	s.mu.Unlock()
	at, err := s.past.begin(ctx, id, s.consumer.Partitions(), after)
	if err != nil {
		return nil, err
	}
	sl := newSlot(id, newRing(s.cfg.ringWindow, s.ringBytes(), at), s.metrics)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[id] = sl
	s.metrics.owned.Set(float64(len(s.slots)))
	for c := range s.conns {
		s.tellOwned(c)
		sl.join(c)
	}
	s.log.Debug("slot opened", "slot", id, "position", at)
	next := make(kafka.Positions, topics)
	for i, t := range topic.Folded {
		next[t] = at[i]
	}
	return next, nil
}

// Apply pushes a batch. It never fails: a link that cannot take it is closed.
func (k *sink) Apply(_ context.Context, b kafka.Batch) error {
	if sl := (*Service)(k).slot(b.Slot); sl != nil {
		sl.apply(b)
	}
	return nil
}

// Close ends a slot: links are told, their interest in it is void.
func (k *sink) Close(id topic.Slot, lost bool) {
	s := (*Service)(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[id]
	if sl == nil {
		return
	}
	sl.close()
	delete(s.slots, id)
	s.closed[id] = time.Now()
	s.metrics.owned.Set(float64(len(s.slots)))
	for c := range s.conns {
		s.tellOwned(c)
	}
	s.log.Debug("slot closed", "slot", id, "lost", lost)
}

// ringBytes is what the ring of one slot may keep. It reckons with owning all slots, as an instance does that is the
// last.
func (s *Service) ringBytes() int {
	return min(s.cfg.ringBytes, s.cfg.Kafka.Budget.Cache()/max(1, s.consumer.Partitions()))
}
