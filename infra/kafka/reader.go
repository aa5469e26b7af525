package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// do has fn run by the reader, between two polls. Partitions are added, removed, paused and resumed there alone, so
// that no fetch of an earlier session of a slot can be mistaken for one of the next.
func (c *Consumer) do(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmds = append(c.cmds, fn)
	if c.wakePoll != nil {
		c.wakePoll()
	}
}

// read is the reader's goroutine: it polls the log and puts the records into the slots' feeds.
func (c *Consumer) read(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		cmds := c.cmds
		c.cmds = nil
		poll, cancel := context.WithCancel(ctx)
		c.wakePoll = cancel
		c.mu.Unlock()
		if len(cmds) > 0 {
			for _, fn := range cmds {
				fn()
			}
			cancel()
			continue
		}
		fs := c.cl.PollFetches(poll)
		cancel()
		c.route(fs, c.doubt.Load())
	}
}

// route puts what was fetched into the feeds. What came before the count of doubts was read belongs to the log that a
// feed of that count has looked at.
func (c *Consumer) route(fs kgo.Fetches, doubt uint64) {
	fs.EachError(func(name string, p int32, err error) {
		if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
			return
		}
		if f := c.routes[name][p]; f != nil {
			f.fail(fetchError(name, p, err))
			return
		}
		c.log.Warn("fetch failed", "topic", name, "partition", p, "err", err)
	})
	fs.EachPartition(func(p kgo.FetchTopicPartition) {
		f := c.routes[p.Topic][p.Partition]
		if f == nil || len(p.Records) == 0 {
			return
		}
		if f.doubts(doubt) {
			f.fail(errDoubt)
			return
		}
		t := c.names[p.Topic]
		got := f.push(t, p.Records, c.bases, c.cfg.QueueRecords, c.cfg.Kafka.Budget.Most(c.cfg.QueueBytes))
		c.queued(got.records, got.bytes)
		if got.gaps > 0 {
			c.metrics.gaps.WithLabelValues(c.cfg.View, string(t)).Add(float64(got.gaps))
			c.log.Error("offset gap in a topic that is kept for ever",
				"topic", t, "slot", f.slot, "gaps", got.gaps)
		}
		if got.full {
			c.metrics.pauses.Inc()
			c.cl.PauseFetchPartitions(c.partitions(f.slot))
		}
	})
}

// partitions names a slot's partition in every topic.
func (c *Consumer) partitions(s topic.Slot) map[string][]int32 {
	out := make(map[string][]int32, len(c.names))
	for name := range c.names {
		out[name] = []int32{int32(s)}
	}
	return out
}

// attach has the partitions read into f from the offsets on.
func (c *Consumer) attach(f *feed, offsets map[topic.Topic]kgo.Offset) {
	c.do(func() {
		add := make(map[string]map[int32]kgo.Offset)
		for t, o := range offsets {
			name := c.cfg.Kafka.Name(t)
			if c.routes[name] == nil {
				c.routes[name] = make(map[int32]*feed)
			}
			c.routes[name][int32(f.slot)] = f
			add[name] = map[int32]kgo.Offset{int32(f.slot): o}
		}
		c.cl.AddConsumePartitions(add)
	})
}

// detach ends what attach began. It does not wait: the reader does it before anything that is asked of it later.
func (c *Consumer) detach(f *feed, offsets map[topic.Topic]kgo.Offset) {
	records, bytes, paused := f.close()
	c.queued(-records, -bytes)
	c.do(func() {
		remove := make(map[string][]int32)
		for t := range offsets {
			name := c.cfg.Kafka.Name(t)
			delete(c.routes[name], int32(f.slot))
			remove[name] = []int32{int32(f.slot)}
		}
		c.cl.RemoveConsumePartitions(remove)
		if paused {
			c.cl.ResumeFetchPartitions(c.partitions(f.slot))
		}
	})
}

// recordWeight is what a record takes besides its key and value.
const recordWeight = 256

// queued counts records that came into a queue, or left it or the hand.
func (c *Consumer) queued(records, bytes int) {
	c.metrics.queue.Add(float64(records))
	c.metrics.queueBytes.Add(float64(bytes))
	c.cfg.Kafka.Budget.Add(bytes + records*recordWeight)
}

// relieve resumes fetching once a feed is half empty, of what it may have now.
func (c *Consumer) relieve(f *feed) {
	if f.relieved(c.cfg.QueueRecords, c.cfg.Kafka.Budget.Most(c.cfg.QueueBytes)) {
		c.do(func() { c.cl.ResumeFetchPartitions(c.partitions(f.slot)) })
	}
}
