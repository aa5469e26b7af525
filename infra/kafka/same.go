package kafka

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/schemas/topic"
)

// Doubts counts the connections that a client has made to brokers, before anything is asked over them. A log can be set
// back, replaced or restored only while its broker is away, so a count that has not changed says that what came belongs
// to the log that was looked at. It is a hook of kgo; any goroutine may call it.
type Doubts struct {
	n    atomic.Uint64
	at   atomic.Int64  // when the last one was made, Unix nanoseconds
	made chan struct{} // capacity 1: there is a new one
}

var _ kgo.HookBrokerConnect = (*Doubts)(nil)

// NewDoubts returns a count of no connections.
func NewDoubts() *Doubts { return &Doubts{made: make(chan struct{}, 1)} }

// Made brings something when connections were made since it last did.
func (d *Doubts) Made() <-chan struct{} { return d.made }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (d *Doubts) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		d.at.Store(time.Now().UnixNano())
		d.n.Add(1)
		select {
		case d.made <- struct{}{}:
		default:
		}
	}
}

// Load returns the count.
func (d *Doubts) Load() uint64 { return d.n.Load() }

// layout is what the log has told about its topics at one moment.
type layout struct {
	bases  *Bases
	asked  time.Time // before it was asked
	ids    map[topic.Topic][16]byte
	starts kadm.ListedOffsets
	cuts   map[topic.Topic]map[topic.Slot]topic.Position // where partitions begin whose head is gone
	ends   map[topic.Topic]map[topic.Slot]topic.Position
}

// layout returns what the log told when it was asked at a moment that is not before notBefore. Whoever comes first asks
// for all.
func (c *Consumer) layout(ctx context.Context, notBefore time.Time) (layout, error) {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return layout{}, ctx.Err()
	}
	if !c.seen.asked.Before(notBefore) {
		return c.seen, nil
	}
	l, err := askLayout(ctx, c.cl, c.names, c.bases)
	if err != nil {
		return layout{}, err
	}
	c.mu.Lock()
	c.logEnds, c.told = l.ends, time.Now()
	c.mu.Unlock()
	c.seen = l
	return l, nil
}

// askLayout asks the log for the layout of topics, which are told by their names on the cluster.
func askLayout(ctx context.Context, cl *kgo.Client, names map[string]topic.Topic, bases *Bases) (layout, error) {
	l := layout{asked: time.Now(), bases: bases}
	var err error
	if l.ids, err = topicIDs(ctx, cl, names); err != nil {
		return layout{}, fmt.Errorf("kafka: read topics: %w", err)
	}
	list := slices.Collect(maps.Keys(names))
	starts, err := listAnswered(ctx, cl, false, list)
	if err != nil {
		return layout{}, err
	}
	l.starts, l.cuts = starts, cuts(starts, names, bases)
	ends, err := listAnswered(ctx, cl, true, list)
	if err != nil {
		return layout{}, err
	}
	l.ends = positionsOf(ends, names, bases)
	return l, nil
}

// positionsOf turns listed offsets into positions.
func positionsOf(
	listed kadm.ListedOffsets, names map[string]topic.Topic, bases *Bases,
) map[topic.Topic]map[topic.Slot]topic.Position {
	out := make(map[topic.Topic]map[topic.Slot]topic.Position)
	listed.Each(func(o kadm.ListedOffset) {
		t, s := names[o.Topic], topic.Slot(o.Partition)
		if o.Err != nil {
			return
		}
		if out[t] == nil {
			out[t] = make(map[topic.Slot]topic.Position)
		}
		out[t][s] = bases.end(o.Topic, o.Partition, o.Offset)
	})
	return out
}

// cuts returns where the partitions begin that have lost their head and were to be kept whole.
func cuts(
	starts kadm.ListedOffsets, names map[string]topic.Topic, bases *Bases,
) map[topic.Topic]map[topic.Slot]topic.Position {
	out := make(map[topic.Topic]map[topic.Slot]topic.Position)
	starts.Each(func(o kadm.ListedOffset) {
		t, s := names[o.Topic], topic.Slot(o.Partition)
		if o.Err != nil || o.Offset <= bases.First(t, s) || !keptWhole(t) {
			return
		}
		if out[t] == nil {
			out[t] = make(map[topic.Slot]topic.Position)
		}
		out[t][s] = bases.At(t, s, o.Offset)
	})
	return out
}

// topicIDs asks the cluster for the ids of topics; a broker that has none gives zero.
func topicIDs(
	ctx context.Context, cl *kgo.Client, names map[string]topic.Topic,
) (map[topic.Topic][16]byte, error) {
	req := kmsg.NewPtrMetadataRequest()
	for name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	out := make(map[topic.Topic][16]byte)
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, err
		}
		if t.Topic != nil {
			out[names[*t.Topic]] = t.TopicID
		}
	}
	return out, nil
}

// sameLog holds a place against what the log says of itself, and returns that.
func (c *Consumer) sameLog(ctx context.Context, s topic.Slot, from place) (layout, error) {
	l, err := c.layout(ctx, time.Unix(0, c.doubt.at.Load()))
	if err != nil {
		return layout{}, err
	}
	if l.judge(s, from, c.cfg.Topics) == nil {
		return l, nil
	}
	// What was asked some time ago may lie behind what this consumer has read since.
	if l, err = c.layout(ctx, time.Now()); err != nil {
		return layout{}, err
	}
	return l, l.judge(s, from, c.cfg.Topics)
}

// unknown is the id of a topic whose broker gives it none.
var unknown [16]byte

// judge tells what is wrong with a log for somebody who stands at a place.
func (l layout) judge(s topic.Slot, from place, topics []topic.Topic) error {
	for _, t := range topics {
		if wrong := l.fault(Standing{Topic: t, Slot: s, Next: from.next[t], Mark: from.marks[t]}); wrong != nil {
			return wrong
		}
	}
	return nil
}

// fault tells what is wrong with a partition for somebody who stands in it; nil: nothing that shows without reading.
func (l layout) fault(at Standing) *LogError {
	t, s := at.Topic, at.Slot
	end, answered := l.ends[t][s]
	cut := l.cuts[t][s]
	switch {
	case !answered: // a partition without a leader says nothing, and gives nothing
		return nil
	case at.Next > 0 && l.bases.GivenUp(t, s, at.Next):
		return &LogError{Topic: t, Slot: s, Fault: FaultGivenUp, Next: at.Next, At: end}
	case at.Mark.Log != unknown && l.ids[t] != unknown && at.Mark.Log != l.ids[t] && !l.bases.adopted(t, s):
		return &LogError{Topic: t, Slot: s, Fault: FaultReplaced, Next: at.Next, At: end}
	case at.Next > end:
		return &LogError{Topic: t, Slot: s, Fault: FaultSetBack, Next: at.Next, At: end}
	case cut > 0:
		return &LogError{Topic: t, Slot: s, Fault: FaultCut, Next: at.Next, At: cut}
	}
	return nil
}

// watchLog looks now and then whether the log is still the one that the slots have read: an admin may cut it or make a
// topic anew without any broker going away.
func (c *Consumer) watchLog(ctx context.Context) {
	t := time.NewTicker(c.cfg.layoutEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-c.doubt.Made():
		}
		limited, cancel := context.WithTimeout(ctx, c.cfg.layoutEvery+5*time.Second)
		c.lookAtLog(limited)
		cancel()
	}
}

// lookAtLog fails the feeds of slots whose log is not the one that they have read, and of those that have not looked
// since the log was connected to anew.
func (c *Consumer) lookAtLog(ctx context.Context) {
	doubt := c.doubt.Load()
	type standing struct {
		slot topic.Slot
		at   place
		feed *feed
	}
	var all []standing
	for _, o := range c.owned() {
		o.mu.Lock()
		if o.feed != nil && o.next != nil {
			all = append(all, standing{o.slot, place{o.next, o.marks}, o.feed})
		}
		o.mu.Unlock()
	}
	// Asked after the places were taken down: a log that only grows ends behind them.
	l, err := c.layout(ctx, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			c.log.Debug("layout of the log unknown", "err", err)
		}
		return
	}
	for _, st := range all {
		switch err := l.judge(st.slot, st.at, c.cfg.Topics); {
		case err != nil:
			st.feed.fail(err)
		case !st.feed.trusts(doubt):
			st.feed.fail(errDoubt)
		}
	}
}

// marksOf returns the marks after a batch of records: theirs, and for the topics of which it has none those before.
func (c *Consumer) marksOf(recs []Record, before Marks, ids map[topic.Topic][16]byte) Marks {
	out := before.Clone()
	done := make(map[topic.Topic]bool, len(c.cfg.Topics))
	for i := len(recs) - 1; i >= 0 && len(done) < len(c.cfg.Topics); i-- {
		r := &recs[i]
		if done[r.Topic] {
			continue
		}
		done[r.Topic] = true
		out[r.Topic] = topic.Mark{Log: ids[r.Topic], Digest: topic.Digest(r.Key, r.Value)}
	}
	return out
}
