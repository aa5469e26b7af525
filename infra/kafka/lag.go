package kafka

import (
	"cmp"
	"context"
	"slices"
	"time"

	"heliograph/schemas/topic"
)

// askEnds asks the log for its ends and keeps them.
func (c *Consumer) askEnds(ctx context.Context) (map[topic.Topic]map[topic.Slot]topic.Position, error) {
	names := make([]string, 0, len(c.cfg.Topics))
	for _, t := range c.cfg.Topics {
		names = append(names, c.cfg.Kafka.Name(t))
	}
	listed, err := listOffsets(ctx, c.cl, true, names)
	if err != nil {
		return nil, err
	}
	ends := positionsOf(listed, c.names, c.bases)
	c.mu.Lock()
	c.logEnds, c.told = ends, time.Now()
	c.mu.Unlock()
	return ends, nil
}

func (c *Consumer) watchLag(ctx context.Context) {
	t := time.NewTicker(c.cfg.lagEvery)
	defer t.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, max(c.cfg.lagEvery, time.Second))
		if _, err := c.askEnds(limited); err != nil && ctx.Err() == nil {
			c.log.Debug("end offsets unknown", "err", err)
		}
		c.askWhole(limited)
		cancel()
		for _, l := range c.Lags() {
			c.metrics.lag(l)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// showUnsure keeps a metric current. watchLag could not: a request to a log that takes no bytes ends later than its
// context, and those behind it wait for it.
func (c *Consumer) showUnsure(ctx context.Context) {
	t := time.NewTicker(c.cfg.lagEvery)
	defer t.Stop()
	for {
		c.metrics.unsure.Set(c.Unsure().Seconds())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Unsure returns for how long Lags could not be trusted: since the log last told where it ends, or since the group last
// counted this consumer as a member, if that is longer ago. It is a few seconds at most while all is well, and grows
// also before Run and after it.
func (c *Consumer) Unsure() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.cfg.Group == "" {
		return now.Sub(c.told)
	}
	if c.group.member {
		c.joined = now
	}
	return max(now.Sub(c.told), now.Sub(c.joined))
}

// Lags returns how far each owned slot is behind in each topic, by the ends that the log had when it was last asked
// (every LagEvery), sorted by topic and slot. A slot that could never be opened has Records 0 and Seconds since it was
// taken over.
func (c *Consumer) Lags() []Lag {
	now := time.Now()
	owned := c.owned()
	c.mu.Lock()
	if !c.ready {
		c.mu.Unlock()
		return nil
	}
	ends := c.logEnds
	c.mu.Unlock()
	var out []Lag
	for _, o := range owned {
		o.mu.Lock()
		next, inHand, feed := o.next, o.inHand, o.feed
		o.mu.Unlock()
		for _, t := range c.cfg.Topics {
			l := Lag{Topic: t, Slot: o.slot, End: ends[t][o.slot]}
			if next == nil {
				l.Seconds = now.Sub(o.since).Seconds()
				out = append(out, l)
				continue
			}
			at := max(0, c.bases.Offset(t, o.slot, next[t]))
			l.Next = max(next[t], c.bases.At(t, o.slot, at))
			l.Records = max(0, c.bases.Offset(t, o.slot, l.End)-at)
			l.Seconds = c.age(now, l, inHand, feed)
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Lag) int {
		return cmp.Or(cmp.Compare(a.Topic.Number(), b.Topic.Number()), cmp.Compare(a.Slot, b.Slot))
	})
	return out
}

// sighting is when a lag was first seen, and where the log ended then.
type sighting struct {
	at  time.Time
	end topic.Position
}

// age is that of the oldest record in hand or queued; when there is a lag but no such record, the time since something
// that is still lacking was first seen. A busy slot always lacks something, and each time something else.
func (c *Consumer) age(now time.Time, l Lag, inHand []Record, feed *feed) float64 {
	seen := c.sight(now, l)
	for i := range inHand {
		if inHand[i].Topic == l.Topic {
			return max(0, now.Sub(inHand[i].LogTime).Seconds())
		}
	}
	if feed != nil {
		if at, ok := feed.oldest(l.Topic); ok {
			return max(0, now.Sub(at).Seconds())
		}
	}
	return now.Sub(seen).Seconds()
}

// sight returns when something that a view still lacks was first seen: now when it lacks nothing.
func (c *Consumer) sight(now time.Time, l Lag) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Records == 0 {
		delete(c.behind[l.Topic], l.Slot)
		return now
	}
	if c.behind[l.Topic] == nil {
		c.behind[l.Topic] = make(map[topic.Slot]sighting)
	}
	seen, ok := c.behind[l.Topic][l.Slot]
	if !ok || l.Next >= seen.end {
		seen = sighting{now, l.End}
		c.behind[l.Topic][l.Slot] = seen
	}
	return seen.at
}
