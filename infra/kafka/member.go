package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

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
			c.moved("assigned", slots)
			c.assign(ctx, slots)
		}),
		// The rebalance waits until the slots' batches in hand are applied.
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			slots := slotsOf(parts[name])
			c.moved("revoked", slots)
			c.release(slots, false)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			slots := slotsOf(parts[name])
			c.moved("lost", slots)
			c.release(slots, true)
		}),
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
			at := int64(next - c.bases.Of(t, o.slot))
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
