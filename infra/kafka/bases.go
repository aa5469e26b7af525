package kafka

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// Bases turns the Kafka offsets of every partition into positions, and back: position = base + offset. A partition has
// one base, 0 or what its first record says, until the log was set back, made anew or cut and an operator has adopted
// what is there (LogOpened): from some offset on it then has another, so that positions go on growing, past all that
// were ever told. It is read without locks, from any goroutine.
type Bases struct {
	cfg    Config
	topics []topic.Topic
	byName map[string][]atomic.Pointer[partition] // by the topic's name on the cluster, then by slot

	mu sync.Mutex // guards what follows; held while what is learned is put in
	// the first records of these were read, by the topic's name
	begun map[string]map[int32]bool
	// up to which offsets helio.quarantine was read for what was adopted
	read map[int32]int64
}

// partition is what is known of the positions of one; it is never changed.
type partition struct {
	eras  []era // by offset; before the first the base is 0
	first int64 // the offset at which an operator has let it begin
}

// era is a part of a partition with one base, up to the next.
type era struct {
	from int64 // Kafka offset
	base topic.Position
}

// NewBases returns bases that are all 0.
func NewBases(cfg Config, topics []topic.Topic, partitions int) *Bases {
	b := &Bases{cfg: cfg, topics: topics, byName: make(map[string][]atomic.Pointer[partition])}
	b.begun, b.read = make(map[string]map[int32]bool), make(map[int32]int64)
	for _, t := range topics {
		b.byName[cfg.Name(t)] = make([]atomic.Pointer[partition], partitions)
	}
	return b
}

// LoadBases reads the first record of every partition of the topics: its header topic.BaseHeader carries the base of a
// log that was restored or resharded. Empty partitions have base 0 until their first record says otherwise (see
// Observe). What operators have adopted is read from helio.quarantine.
func LoadBases(ctx context.Context, cl *kgo.Client, cfg Config, topics []topic.Topic, partitions int) (*Bases, error) {
	b := NewBases(cfg, topics, partitions)
	return b, b.Reload(ctx, cl)
}

// Reload learns what has been adopted since.
func (b *Bases) Reload(ctx context.Context, cl *kgo.Client) error {
	names := slices.Collect(maps.Keys(b.byName))
	first, _, err := b.spans(ctx, cl, names)
	if err != nil {
		return err
	}
	err = firstAt(ctx, b.cfg, first, func(r *kgo.Record) error {
		_, err := b.Observe(r)
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	for name, parts := range first {
		for n := range parts {
			if b.begun[name] == nil {
				b.begun[name] = make(map[int32]bool)
			}
			b.begun[name][n] = true
		}
	}
	from := maps.Clone(b.read)
	b.mu.Unlock()
	opened, read, err := readOpened(ctx, cl, b.cfg, from)
	if err != nil {
		return fmt.Errorf("kafka: read what was adopted: %w", err)
	}
	for _, o := range opened {
		if name := b.cfg.Name(o.Topic); int(o.Slot) < len(b.byName[name]) {
			b.add(name, int32(o.Slot), era{o.From, o.Base}, o.First)
		}
	}
	b.mu.Lock()
	b.read = read
	b.mu.Unlock()
	return nil
}

// spans returns where the partitions that are not empty begin, and where they end.
func (b *Bases) spans(
	ctx context.Context, cl *kgo.Client, names []string,
) (first map[string]map[int32]kgo.Offset, ends kadm.ListedOffsets, err error) {
	starts, err := listOffsets(ctx, cl, false, names)
	if err != nil {
		return nil, nil, err
	}
	if ends, err = listOffsets(ctx, cl, true, names); err != nil {
		return nil, nil, err
	}
	first = make(map[string]map[int32]kgo.Offset)
	b.mu.Lock()
	defer b.mu.Unlock()
	starts.Each(func(o kadm.ListedOffset) {
		end, ok := ends.Lookup(o.Topic, o.Partition)
		if !ok || end.Err != nil || o.Err != nil || end.Offset <= o.Offset ||
			int(o.Partition) >= len(b.byName[o.Topic]) || b.begun[o.Topic][o.Partition] {
			return
		}
		if first[o.Topic] == nil {
			first[o.Topic] = make(map[int32]kgo.Offset)
		}
		first[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset).WithEpoch(-1)
	})
	return first, ends, nil
}

// firstAt reads the first record of each partition at or after an offset, at which, or after which, it must have one.
func firstAt(
	ctx context.Context, cfg Config, want map[string]map[int32]kgo.Offset, fn func(*kgo.Record) error,
) error {
	left := 0
	for _, parts := range want {
		left += len(parts)
	}
	if left == 0 {
		return nil
	}
	quiet := cfg
	quiet.Registerer = nil
	rd, err := Dial(quiet, kgo.ConsumePartitions(want), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// Of each partition the first batch comes only where it fits.
		kgo.FetchMaxPartitionBytes(64<<10), kgo.FetchMaxBytes(16<<20), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer rd.Close()
	seen := make(map[string]map[int32]bool, len(want))
	for left > 0 {
		fs := rd.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("kafka: read single records: %w", err)
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("kafka: read a record of %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		done := make(map[string][]int32)
		var bad error
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 || seen[p.Topic][p.Partition] || bad != nil {
				return
			}
			bad = fn(p.Records[0])
			if seen[p.Topic] == nil {
				seen[p.Topic] = make(map[int32]bool)
			}
			seen[p.Topic][p.Partition] = true
			done[p.Topic] = append(done[p.Topic], p.Partition)
			left--
		})
		if bad != nil {
			return bad
		}
		rd.PauseFetchPartitions(done) // else a long log would be read on for nothing
	}
	return nil
}

// Observe learns the base from a record that carries one and tells whether it is one that was not known. Records
// without the header change nothing.
func (b *Bases) Observe(rec *kgo.Record) (changed bool, err error) {
	for _, h := range rec.Headers {
		if h.Key != topic.BaseHeader {
			continue
		}
		base, err := topic.ParseBase(h.Value)
		if err != nil {
			return false, fmt.Errorf("kafka: record %d of %s/%d: %w", rec.Offset, rec.Topic, rec.Partition, err)
		}
		return b.add(rec.Topic, rec.Partition, era{rec.Offset, base}, 0), nil
	}
	return false, nil
}

// add puts an era in; false: one with its base is there already, which begins no later.
func (b *Bases) add(name string, n int32, e era, first int64) bool {
	slots := b.byName[name]
	if n < 0 || int(n) >= len(slots) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var p partition
	if old := slots[n].Load(); old != nil {
		p = partition{slices.Clone(old.eras), old.first}
	}
	more := first > p.first
	p.first = max(p.first, first)
	// Bases grow from decision to decision: a later one also counts where an earlier one had begun further on.
	for _, o := range p.eras {
		if o.base > e.base && o.from <= e.from {
			return false
		}
	}
	p.eras = slices.DeleteFunc(p.eras, func(o era) bool { return o.base < e.base && o.from >= e.from })
	at := slices.IndexFunc(p.eras, func(o era) bool { return o.base == e.base })
	switch {
	case at < 0:
		p.eras, more = append(p.eras, e), true
	case e.from < p.eras[at].from:
		p.eras[at], more = e, true
	}
	if !more {
		return false
	}
	slices.SortFunc(p.eras, func(a, b era) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.base, b.base))
	})
	slots[n].Store(&p)
	return true
}

// At returns the position of the record at an offset; of the offset after the last record, the next position.
func (b *Bases) At(t topic.Topic, s topic.Slot, offset int64) topic.Position {
	return b.at(b.cfg.Name(t), int32(s), offset)
}

// end returns the next position of a partition that ends at an offset: where an era would begin there, it has not yet.
func (b *Bases) end(name string, n int32, offset int64) topic.Position {
	if offset <= 0 {
		return b.at(name, n, offset)
	}
	return b.at(name, n, offset-1) + 1
}

// adopted tells whether an operator has decided on a partition.
func (b *Bases) adopted(t topic.Topic, s topic.Slot) bool {
	p := b.of(b.cfg.Name(t), int32(s))
	return p.first > 0 || len(p.eras) > 1 || len(p.eras) == 1 && p.eras[0].from > 0
}

// Position returns the position of a record that was produced or fetched.
func (b *Bases) Position(rec *kgo.Record) topic.Position {
	return b.at(rec.Topic, rec.Partition, rec.Offset)
}

func (b *Bases) at(name string, n int32, offset int64) topic.Position {
	return b.of(name, n).eraAt(offset).base + topic.Position(offset)
}

// Offset returns the offset from which a partition is read on from a position: that of the record there, or of the next
// one where the position was given up. It is negative when the position lies before the partition's first base.
func (b *Bases) Offset(t topic.Topic, s topic.Slot, pos topic.Position) int64 {
	offset, _ := b.of(b.cfg.Name(t), int32(s)).offset(pos)
	return offset
}

// GivenUp tells whether somebody who has taken in everything before a position has taken in what is not in the log any
// more, or has another position there, since an operator has adopted what was left.
func (b *Bases) GivenUp(t topic.Topic, s topic.Slot, next topic.Position) bool {
	_, gone := b.of(b.cfg.Name(t), int32(s)).offset(next)
	return gone
}

// First returns the offset at which an operator has let a partition begin: what lay before it is given up.
func (b *Bases) First(t topic.Topic, s topic.Slot) int64 { return b.of(b.cfg.Name(t), int32(s)).first }

func (b *Bases) of(name string, n int32) *partition {
	if slots := b.byName[name]; n >= 0 && int(n) < len(slots) {
		if p := slots[n].Load(); p != nil {
			return p
		}
	}
	return &partition{}
}

// eraAt returns the era of an offset.
func (p *partition) eraAt(offset int64) era {
	for i := len(p.eras) - 1; i >= 0; i-- {
		if p.eras[i].from <= offset {
			return p.eras[i]
		}
	}
	return era{}
}

// offset is Offset and GivenUp.
func (p *partition) offset(pos topic.Position) (offset int64, gone bool) {
	last := era{}
	for i, e := range p.eras {
		if e.base+topic.Position(e.from) > pos {
			if i == 0 && e.from == 0 {
				return int64(pos - e.base), true // negative
			}
			end := e.from
			if at := int64(pos - last.base); at <= end {
				return at, false
			}
			return end, true
		}
		last = e
	}
	return int64(pos - last.base), false
}
