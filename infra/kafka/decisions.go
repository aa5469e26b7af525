package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/run"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// decisionsTime bounds one question about where the decisions end.
const decisionsTime = 10 * time.Second

// Decisions follows helio.quarantine and knows what operators have decided of what is in quarantine, of all slots. What
// else is on that topic it passes over. Its methods may be called from any goroutine.
type Decisions struct {
	// Fixed after NewDecisions.
	cfg   Config
	name  string // of the topic on this cluster
	log   *slog.Logger
	heard func(Release) // nil: nobody is told

	dialed chan struct{} // closed once cl is there
	cl     *kgo.Client   // guarded by dialed

	askMu sync.Mutex // guards what follows; held while the log is asked, so that one answer serves all who wait
	asked time.Time  // when the log was asked last
	ends  []int64    // what it said, by slot

	mu    sync.Mutex // guards what follows
	slots []decided
}

// decided is what is known of a slot.
type decided struct {
	next     int64 // the first offset that was not read
	releases Releases
	changed  chan struct{} // closed and replaced when releases has changed
	further  chan struct{} // closed when next has moved; nil while nobody waits
}

// NewDecisions returns Decisions of a log of so many partitions that knows nothing until Run. heard is told of each
// decision, those from before Run too, by one goroutine, before Of and All count it as read; it must not block. nil:
// nobody is told.
func NewDecisions(cfg Config, partitions int, heard func(Release)) *Decisions {
	d := &Decisions{
		cfg: cfg, name: cfg.Name(topic.Quarantine), log: cfg.logger(), heard: heard,
		dialed: make(chan struct{}), slots: make([]decided, partitions),
	}
	d.cfg.Registerer = nil
	for i := range d.slots {
		d.slots[i].changed = make(chan struct{})
	}
	return d
}

// Run reads helio.quarantine from its beginning, and follows it until ctx is cancelled; it may be called once. While
// the log does not answer it goes on asking.
func (d *Decisions) Run(ctx context.Context) error {
	at := make(map[int32]kgo.Offset, len(d.slots))
	for s := range d.slots {
		at[int32(s)] = kgo.NewOffset().AtStart()
	}
	// A log that was set back is read once more: decisions are a set.
	cl, err := Dial(d.cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{d.name: at}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(4<<20),
		kgo.FetchMaxPartitionBytes(1<<20), kgo.MaxDecompressBatchBytes(16<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	d.cl = cl
	close(d.dialed)
	back := run.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		fs := cl.PollFetches(ctx)
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			if p.Partition >= 0 && int(p.Partition) < len(d.slots) {
				d.take(topic.Slot(p.Partition), p.Records)
			}
		})
		if err := fs.Err(); err == nil {
			back.Reset()
		} else if ctx.Err() == nil {
			d.log.Warn("reading what was decided of quarantine failed", "topic", d.name, "err", err)
			if !run.Sleep(ctx, back.Next()) {
				break
			}
		}
	}
	return nil
}

// take takes records of a slot in.
func (d *Decisions) take(s topic.Slot, recs []*kgo.Record) {
	if len(recs) == 0 {
		return
	}
	var found []Release
	for _, rec := range recs {
		r, ok, err := releaseOf(s, rec.Offset, rec.Key, rec.Value)
		if err != nil {
			d.log.Warn("what was decided of quarantine is for a newer version, and not obeyed by this one",
				"slot", s, "offset", rec.Offset, "err", err)
		}
		if ok {
			found = append(found, r)
		}
	}
	if d.heard != nil {
		for _, r := range found {
			d.heard(r)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	of := &d.slots[s]
	of.next = max(of.next, recs[len(recs)-1].Offset+1)
	if of.further != nil {
		close(of.further)
		of.further = nil
	}
	if more, grown := of.releases.with(found); grown {
		of.releases = more
		close(of.changed)
		of.changed = make(chan struct{})
	}
}

// Of returns what is decided of a slot, with all that was when it was called, and a channel that is closed when more
// is.
func (d *Decisions) Of(ctx context.Context, s topic.Slot) (Releases, <-chan struct{}, error) {
	ends, err := d.askEnds(ctx)
	if err != nil {
		return Releases{}, nil, err
	}
	if int(s) >= len(d.slots) {
		return Releases{}, nil, fmt.Errorf("kafka: slot %d is not one of %d", s, len(d.slots))
	}
	return d.read(ctx, s, ends[s])
}

// All returns once everything is known that was decided of any slot when it was called.
func (d *Decisions) All(ctx context.Context) error {
	ends, err := d.askEnds(ctx)
	for s := 0; err == nil && s < len(ends); s++ {
		_, _, err = d.read(ctx, topic.Slot(s), ends[s])
	}
	return err
}

// read waits until a slot was read up to an offset.
func (d *Decisions) read(ctx context.Context, s topic.Slot, end int64) (Releases, <-chan struct{}, error) {
	for {
		d.mu.Lock()
		of := &d.slots[s]
		if of.next >= end {
			defer d.mu.Unlock()
			return of.releases, of.changed, nil
		}
		if of.further == nil {
			of.further = make(chan struct{})
		}
		further := of.further
		d.mu.Unlock()
		select {
		case <-further:
		case <-ctx.Done():
			return Releases{}, nil, fmt.Errorf("kafka: read %s/%d: %w", d.name, s, ctx.Err())
		}
	}
}

// Known returns what is known of a slot now. It asks nobody.
func (d *Decisions) Known(s topic.Slot) Releases {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s < 0 || int(s) >= len(d.slots) {
		return Releases{}
	}
	return d.slots[s].releases
}

// askEnds returns the offset after the last record of each slot, as of a moment after the call; 0 where there is none
// to be read.
func (d *Decisions) askEnds(ctx context.Context) ([]int64, error) {
	called := time.Now()
	select {
	case <-d.dialed:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.askMu.Lock()
	defer d.askMu.Unlock()
	if d.asked.After(called) {
		return d.ends, nil
	}
	ctx, cancel := context.WithTimeout(ctx, decisionsTime)
	defer cancel()
	now, ends := time.Now(), make([]int64, len(d.slots))
	for _, end := range []bool{true, false} { // the starts last: they only grow
		listed, err := listOffsets(ctx, d.cl, end, []string{d.name})
		if err != nil {
			return nil, err
		}
		for s := range ends {
			o, ok := listed.Lookup(d.name, int32(s))
			switch {
			case !ok:
				return nil, fmt.Errorf("kafka: no partition %d of %s", s, d.name)
			case end:
				ends[s] = o.Offset
			case o.Offset >= ends[s]:
				ends[s] = 0
			}
		}
	}
	d.asked, d.ends = now, ends
	return ends, nil
}

// Read reads what was decided up to now, without following what comes.
func (d *Decisions) Read(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return d.All(gctx)
	})
	return g.Wait()
}

// releaseOf reads a record of helio.quarantine; ok: it is a decision. The error is a *event.NewerError, wrapped or
// bare.
func releaseOf(s topic.Slot, offset int64, key, value []byte) (r Release, ok bool, err error) {
	e, err := event.Decode(value)
	if newer := (*event.NewerError)(nil); errors.As(err, &newer) {
		return r, false, err
	}
	if err != nil || !e.HasQuarantineReleased() {
		return r, false, nil //nolint:nilerr // what cannot be read decides nothing
	}
	m := e.GetQuarantineReleased()
	k, err := event.ParseKey(topic.Quarantine, key)
	if err != nil || event.CheckReleased(m) != nil || topic.Slot(m.GetSlot()) != s {
		return r, false, nil //nolint:nilerr // ingest writes none of these
	}
	t, _ := topic.FromNumber(m.GetTopic())
	return Release{
		Topic: t, Slot: s, Position: topic.Position(m.GetPosition()), Subject: k.Subject,
		Dropped: m.GetRelease() == eventv1.Release_RELEASE_DROPPED, At: offset,
	}, true, nil
}
