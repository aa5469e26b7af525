package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/schemas/topic"
)

// leaveTimeout is how long the group may take to let us go. What is lost by going without a word is time: our slots go
// to others when the session ends.
const leaveTimeout = 3 * time.Second

// join makes this process a member of the group, until it is closed or ctx ends. The member never reads a record: the
// group hands out the partitions of the threads topic, and a partition's number is a slot. Positions come from the
// sink, so nothing that the group has committed matters.
func (c *Consumer) join(ctx context.Context) (*kgo.Client, error) {
	name := c.cfg.Kafka.Name(topic.Threads)
	quiet := c.cfg.Kafka
	quiet.Registerer = nil // its traffic is heartbeats
	opts := []kgo.Opt{
		kgo.WithContext(ctx),
		kgo.ConsumerGroup(c.cfg.Group),
		kgo.ConsumeTopics(name),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(c.cfg.SessionTimeout),
		kgo.HeartbeatInterval(c.cfg.HeartbeatInterval),
		kgo.RebalanceTimeout(max(c.cfg.RebalanceTimeout, c.cfg.DrainTimeout+c.cfg.HeartbeatInterval)),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
			slots := slotsOf(parts[name])
			c.moved(movedAssigned, slots)
			c.assign(ctx, slots)
			c.counted(nil) // last: who is ready has its slots
		}),
		// The rebalance waits until the slots' batches in hand are applied.
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			slots := slotsOf(parts[name])
			c.moved(movedRevoked, slots)
			c.release(slots, false)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			slots := slotsOf(parts[name])
			c.moved(movedLost, slots)
			c.release(slots, true)
		}),
		kgo.WithHooks(outcast{c}),
	}
	if c.cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.cfg.InstanceID))
	}
	cl, err := Dial(quiet, opts...)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", c.cfg.Group, err)
	}
	cl.PauseFetchTopics(name)
	return cl, nil
}

// membership is what the group last said of this consumer. Guarded by Consumer.mu.
type membership struct {
	member bool      // it counts it as a member
	err    error     // why not
	fenced time.Time // since when another holds its place; zero: none does
	extra  error     // why being without slots is not right; nil: it is, when last asked
}

// InstanceTakenError says that another process has joined the group under this one's instance id and keeps the place:
// two were started under one name, or this one was away and was replaced. It cannot come back by itself.
type InstanceTakenError struct {
	Group, Instance string
	For             time.Duration
}

// Error says which name is taken, and what mends it.
func (e *InstanceTakenError) Error() string {
	return fmt.Sprintf("kafka: another process has been %s in group %s for %s: give each process a name of its own",
		e.Instance, e.Group, e.For.Round(time.Second))
}

// outcast hears of the ends of group sessions.
type outcast struct{ c *Consumer }

// OnGroupManageError implements kgo.HookGroupManageError.
func (o outcast) OnGroupManageError(err error) { o.c.counted(err) }

// counted notes that the group counts this consumer as a member, or why it does not.
func (c *Consumer) counted(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.group
	c.group = membership{member: err == nil, err: err}
	switch {
	case err == nil && was.member:
		c.group.extra = was.extra
	case err == nil:
		c.group.extra = errors.New("whether all are others' is not known yet")
	case errors.Is(err, kerr.FencedInstanceID):
		c.group.fenced = was.fenced
		if was.fenced.IsZero() {
			c.group.fenced = time.Now()
		}
	}
}

// watchFence ends Run when the place in the group was another's for longer than the session timeout: if that one had
// gone, the group would have let us in by then.
func (c *Consumer) watchFence(ctx context.Context) {
	t := time.NewTicker(max(c.cfg.SessionTimeout/20, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c.mu.Lock()
		since := c.group.fenced
		c.mu.Unlock()
		if gone := time.Since(since); !since.IsZero() && gone > c.cfg.SessionTimeout {
			c.fail(&InstanceTakenError{Group: c.cfg.Group, Instance: c.cfg.InstanceID, For: gone})
			return
		}
	}
}

// Ready returns nil while the consumer does what it is there for: the log has answered, the group counts it as a member
// and has given it slots of which none is stalled, or none because all are other members'. Without a group, the same of
// the slots that it was told to read.
func (c *Consumer) Ready() error {
	c.mu.Lock()
	ready, group, slots := c.ready, c.group, len(c.slots)
	c.mu.Unlock()
	switch {
	case !ready:
		return errors.New("the log has not answered yet")
	case c.cfg.Group != "" && !group.member && group.err != nil:
		return fmt.Errorf("not a member of group %s: %w", c.cfg.Group, group.err)
	case c.cfg.Group != "" && !group.member:
		return fmt.Errorf("not a member of group %s yet", c.cfg.Group)
	case slots == 0 && group.extra != nil:
		return fmt.Errorf("without slots in group %s: %w", c.cfg.Group, group.extra)
	}
	var errs []error
	for slot, err := range c.Stalled() {
		errs = append(errs, fmt.Errorf("slot %d is stalled: %w", slot, err))
	}
	return errors.Join(errs...)
}

// askWhole asks, for a member without slots, whether all are others': else somebody counts as an owner who is none, or
// the group is at odds with itself, and to be without is not right.
func (c *Consumer) askWhole(ctx context.Context) {
	c.mu.Lock()
	ask := c.cfg.Group != "" && c.group.member && len(c.slots) == 0
	c.mu.Unlock()
	if !ask {
		return
	}
	members, err := DescribeGroup(ctx, c.cl, c.cfg.Kafka, c.cfg.Group)
	owned := make(map[topic.Slot]bool)
	for _, m := range members {
		for _, s := range m.Slots {
			owned[s] = true
		}
	}
	if err == nil && len(owned) < c.cfg.Partitions {
		err = fmt.Errorf("%d of %d slots have no owner", c.cfg.Partitions-len(owned), c.cfg.Partitions)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.group.member {
		c.group.extra = err
	}
}

func slotsOf(parts []int32) []topic.Slot {
	out := make([]topic.Slot, len(parts))
	for i, p := range parts {
		out[i] = topic.Slot(p)
	}
	return out
}

func (c *Consumer) moved(kind string, slots []topic.Slot) {
	if len(slots) == 0 {
		return
	}
	c.metrics.rebalances.WithLabelValues(c.cfg.View, kind).Add(float64(len(slots)))
	c.log.Info("slots "+kind, "slots", slots, "group", c.cfg.Group)
}

// watchMember drains the member's errors: a group that cannot be joined shows itself there, while kgo goes on trying.
func (c *Consumer) watchMember(ctx context.Context) {
	for ctx.Err() == nil {
		fs := c.member.PollFetches(ctx)
		fs.EachError(func(name string, p int32, err error) {
			if !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrClientClosed) {
				c.log.Warn("group membership failed, joining again", "group", c.cfg.Group, "err", err)
			}
		})
		if fs.IsClientClosed() {
			return
		}
	}
}

// commitLoop tells Kafka now and then how far the view is, for Kafka's own tools; nothing here reads it back.
func (c *Consumer) commitLoop(ctx context.Context) {
	t := time.NewTicker(c.cfg.CommitEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			limited, cancel := context.WithTimeout(ctx, c.cfg.CommitEvery)
			c.commit(limited)
			cancel()
		}
	}
}

func (c *Consumer) commit(ctx context.Context) {
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	for _, o := range c.owned() {
		o.mu.Lock()
		for t, next := range o.next {
			at := c.bases.Offset(t, o.slot, next)
			if name := c.cfg.Kafka.Name(t); at >= 0 && c.names[name] != "" {
				if offsets[name] == nil {
					offsets[name] = make(map[int32]kgo.EpochOffset)
				}
				offsets[name][int32(o.slot)] = kgo.EpochOffset{Epoch: -1, Offset: at}
			}
		}
		o.mu.Unlock()
	}
	if len(offsets) == 0 {
		return
	}
	done := func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		if err != nil && ctx.Err() == nil {
			c.metrics.commitFails.Inc()
			c.log.Debug("offset commit failed, lag in Kafka's tools is stale", "group", c.cfg.Group, "err", err)
		}
	}
	c.member.CommitOffsetsSync(ctx, offsets, done)
}
