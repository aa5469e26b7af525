package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// pastTimeout ends a read of the log that gets nothing for so long.
const pastTimeout = 10 * time.Second

// marksFresh is how long an answer about the log's bounds serves further questions: a new owner asks for all its slots
// at once.
const marksFresh = time.Second

// past answers what lies in the log before the ring: where a slot's ring should begin, and the records of a gap.
type past struct {
	cfg     Config
	metrics *metrics
	readers chan struct{} // a token per read under way

	mu    sync.Mutex // guards what follows; held while the log is asked, so that one answer serves all who wait
	cl    *kgo.Client
	marks *marks
}

// marks is what the log said at one moment. Positions that are a little old are too low, which is harmless.
type marks struct {
	at         time.Time
	partitions int
	bases      *kafka.Bases
	starts     kadm.ListedOffsets
	ends       kadm.ListedOffsets
	window     kadm.ListedOffsets // of the first record within the ring's window
	oldest     kadm.ListedOffsets // of the first record within maxGapAge
	committed  kadm.OffsetResponses
}

func newPast(cfg Config, m *metrics) *past {
	return &past{cfg: cfg, metrics: m, readers: make(chan struct{}, gapReaders)}
}

// ask returns the log's marks, at most marksFresh old and not from before after.
func (p *past) ask(ctx context.Context, partitions int, after time.Time) (*marks, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marks != nil && time.Since(p.marks.at) < marksFresh && p.marks.at.After(after) {
		return p.marks, nil
	}
	if p.cl == nil {
		return nil, errors.New("delivery: not running")
	}
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	names := make([]string, topics)
	for i, t := range topic.Folded {
		names[i] = p.cfg.Kafka.Name(t)
	}
	now := time.Now()
	m := &marks{at: now, partitions: partitions}
	var err error
	if m.bases, err = kafka.LoadBases(ctx, p.cl, p.cfg.Kafka, topic.Folded, partitions); err != nil {
		return nil, err
	}
	adm := kadm.NewClient(p.cl)
	for _, q := range []struct {
		into *kadm.ListedOffsets
		ask  func() (kadm.ListedOffsets, error)
	}{
		{&m.starts, func() (kadm.ListedOffsets, error) { return adm.ListStartOffsets(ctx, names...) }},
		{&m.ends, func() (kadm.ListedOffsets, error) { return adm.ListEndOffsets(ctx, names...) }},
		{&m.window, func() (kadm.ListedOffsets, error) {
			return adm.ListOffsetsAfterMilli(ctx, now.Add(-p.cfg.ringWindow).UnixMilli(), names...)
		}},
		{&m.oldest, func() (kadm.ListedOffsets, error) {
			return adm.ListOffsetsAfterMilli(ctx, now.Add(-maxGapAge).UnixMilli(), names...)
		}},
	} {
		if *q.into, err = q.ask(); err == nil {
			err = q.into.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("delivery: list offsets: %w", err)
		}
	}
	if m.committed, err = adm.FetchOffsetsForTopics(ctx, p.cfg.Group, names...); err != nil {
		return nil, fmt.Errorf("delivery: fetch committed offsets: %w", err)
	}
	p.marks = m
	return m, nil
}

// begin returns where the ring of a slot that was just taken over begins: at what the group has committed or at the
// tail less the ring's window, whichever is earlier, but no further back than a gap may be.
func (p *past) begin(ctx context.Context, s topic.Slot, partitions int, after time.Time) (topic.Cursor, error) {
	m, err := p.ask(ctx, partitions, after)
	if err != nil {
		return topic.Cursor{}, err
	}
	var c topic.Cursor
	for i, t := range topic.Folded {
		name := p.cfg.Kafka.Name(t)
		first, end, at := offset(m.starts, name, s), offset(m.ends, name, s), offset(m.window, name, s)
		if o, ok := m.committed.Lookup(name, int32(s)); ok && o.Err == nil && o.At >= 0 {
			at = min(at, o.At)
		}
		at = max(at, end-int64(p.cfg.maxGapRecords), offset(m.oldest, name, s), first)
		c[i] = m.bases.At(t, s, min(at, end))
	}
	return c, nil
}

func offset(l kadm.ListedOffsets, name string, s topic.Slot) int64 {
	o, _ := l.Lookup(name, int32(s))
	return max(0, o.Offset)
}

// reachable tells for each topic whether the gap between from and the ring's start may be read from the log. When the
// log cannot be asked it may not: the edge takes a snapshot.
func (p *past) reachable(ctx context.Context, s topic.Slot, from, start topic.Cursor) (ok [topics]bool) {
	p.mu.Lock()
	m := p.marks
	p.mu.Unlock()
	if m == nil {
		return ok // no slot was ever opened
	}
	if time.Since(m.at) > maxGapAge/60 {
		var err error
		if m, err = p.ask(ctx, m.partitions, time.Time{}); err != nil {
			return ok
		}
	}
	for i, t := range topic.Folded {
		name := p.cfg.Kafka.Name(t)
		at := m.bases.Offset(t, s, from[i])
		ok[i] = start[i]-from[i] <= topic.Position(p.cfg.maxGapRecords) &&
			at >= offset(m.starts, name, s) && at >= offset(m.oldest, name, s)
	}
	return ok
}

// read gives emit the records of the subjects in [from, to) of one topic, in order.
func (p *past) read(
	ctx context.Context, s topic.Slot, t int, from, to topic.Position, want map[topic.Subject]struct{},
	emit func([]*linkv1.Record) error,
) error {
	select {
	case p.readers <- struct{}{}:
		defer func() { <-p.readers }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.mu.Lock()
	m := p.marks
	p.mu.Unlock()
	name := p.cfg.Kafka.Name(topic.Folded[t])
	quiet := p.cfg.Kafka
	quiet.Registerer = nil
	at := kgo.NewOffset().At(m.bases.Offset(topic.Folded[t], s, from)).WithEpoch(-1)
	cl, err := kafka.Dial(
		quiet,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {int32(s): at}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.FetchMaxBytes(4<<20),
		kgo.MaxDecompressBatchBytes(16<<20),
	)
	if err != nil {
		return p.failed(ctx, s, t, err)
	}
	defer cl.Close()
	for next := from; next < to; {
		limited, cancel := context.WithTimeout(ctx, pastTimeout)
		fs := cl.PollRecords(limited, collectRecords)
		cancel()
		for _, e := range fs.Errors() {
			return p.failed(ctx, s, t, e.Err)
		}
		var recs []*linkv1.Record
		fs.EachRecord(func(r *kgo.Record) {
			pos := m.bases.Position(r)
			next = max(next, pos+1)
			if pos < from || pos >= to {
				return
			}
			p.metrics.gapReads.Inc()
			if r.Value == nil || len(r.Key) < len(topic.Subject{}) { // as the ring
				return
			}
			if _, ok := want[topic.Subject(r.Key)]; ok {
				recs = append(recs, linkv1.Record_builder{
					Position: int64(pos), LogTimeMs: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value,
				}.Build())
			}
		})
		if len(recs) > 0 {
			if err := emit(recs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *past) failed(ctx context.Context, s topic.Slot, t int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.metrics.gapFails.Inc()
	return &linkError{reasonGap, fmt.Errorf("read %s/%d: %w", topic.Folded[t], s, err)}
}
