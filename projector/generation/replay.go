package generation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector/verify"
	"heliograph/schemas/topic"
)

// Config of a replay. Zero means default.
type Config struct {
	Kafka      kafka.Config  // its Budget bounds what is in hand
	Partitions int           // P; must be set
	Topics     []topic.Topic // that the view is folded from; must be set
	Retention  time.Duration // of the thread views, as their projectors have it
	Logger     *slog.Logger  // nil is silent
	// Progress is told how far the replay is, a few times a second. It must not block. nil: nobody is told.
	Progress func(Progress)
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.Partitions <= 0 {
		errs = append(errs, errors.New("generation: the number of partitions is not set"))
	}
	if len(c.Topics) == 0 {
		errs = append(errs, errors.New("generation: no topics"))
	}
	return errors.Join(errs...)
}

// Options of one replay.
type Options struct {
	// Rate is how many records a second are taken in at most; 0: no limit.
	Rate float64
	// Until makes a generation that ends at a place and can never be live; nil: it follows the log.
	Until *Until
	// Rollback takes the generation that was live last instead of a new one.
	Rollback bool
	// Fresh drops what is being built, and begins anew.
	Fresh bool
	// Unverified leaves out the comparison with the log.
	Unverified bool
	// Stay leaves the live generation live.
	Stay bool
}

// Until is a place of the log: what was logged before a time, or up to an event of a thread. Of an event all that was
// logged before it in other partitions is taken along.
type Until struct {
	Text string    // as an operator wrote it; two of the same text are the same place
	Time time.Time // zero: an event
	// Slot and Position are those of the event, in helio.threads; it is the last of its partition.
	Slot     topic.Slot
	Position topic.Position
}

// Progress is how far a replay is.
type Progress struct {
	Generation int
	Phase      string // a constant Phase…
	Slots      []SlotProgress
	Done       int64         // records of all partitions that were taken in
	Total      int64         // of those that there are
	Rate       float64       // records a second lately
	Left       time.Duration // until all are taken in at that rate; 0: not known
}

// SlotProgress is how far a partition is.
type SlotProgress struct {
	Slot        topic.Slot
	Done, Total int64
}

// The phases of a replay.
const (
	PhaseFill   = "filling"
	PhaseVerify = "verifying"
	PhaseSwitch = "switching"
)

// Summary is what a replay came to.
type Summary struct {
	View       string         `json:"view"`
	Generation Generation     `json:"generation"`
	Resumed    bool           `json:"resumed"` // it went on from where an earlier one was
	Records    int64          `json:"records"` // taken in by this run until it had caught up
	Seconds    float64        `json:"seconds"` // that it took to catch up
	PerSecond  float64        `json:"per_second"`
	Verified   bool           `json:"verified"` // compared with the log, and equal
	Switched   bool           `json:"switched"`
	Report     *verify.Report `json:"report,omitempty"` // of a comparison that found something
}

// ErrBehind is what Store.Switch returns when the generation did not catch up with the live one in time.
var ErrBehind = errors.New("it does not catch up with the live one")

// DifferentError says that a generation is not what the log gives.
type DifferentError struct{ Report *verify.Report }

// Error says how much differs.
func (e *DifferentError) Error() string {
	if !e.Report.Comparable() {
		return "the log does not reach as far as the generation does: it was not switched to"
	}
	return fmt.Sprintf("the generation differs from the log in %d rows: it was not switched to",
		len(e.Report.Differences))
}

// Replay builds a generation and has it take the live one's place.
func Replay(ctx context.Context, store Store, cfg Config, o Options) (Summary, error) {
	r := &replay{store: store, cfg: cfg, opts: o, sum: Summary{View: store.View()}}
	run.Default(&r.cfg.Logger, slog.New(slog.DiscardHandler))
	if err := cfg.Validate(); err != nil {
		return r.sum, err
	}
	err := r.do(ctx)
	return r.sum, err
}

// replay is one run, and belongs to its goroutine.
type replay struct {
	store Store
	cfg   Config
	opts  Options
	log   *log
	until map[topic.Slot]kafka.Positions // nil: no end
	fill  *fill
	stop  func() // of the fill
	sum   Summary
	rates meter
}

func (r *replay) do(ctx context.Context) error {
	if g := r.store.Finished(); g.Number > 0 { // what the command is given again for was done by that
		r.sum.Generation, r.sum.Resumed, r.sum.Switched = g, true, true
		return nil
	}
	target, err := r.choose(ctx)
	if err != nil {
		return err
	}
	if r.log, err = openLog(ctx, r.cfg.Kafka, r.cfg.Topics); err != nil {
		return err
	}
	defer r.log.close()
	if r.opts.Until != nil {
		if r.until, err = r.ends(ctx, *r.opts.Until); err != nil {
			return err
		}
	}
	if target, err = r.store.Prepare(ctx, target); err != nil {
		return err
	}
	r.sum.Generation = target
	consumer := r.cfg.consumer()
	r.store.Tune(&consumer)
	log := &again{}
	sink, done, err := r.store.Sink(ctx, target, consumer, log)
	if err != nil {
		return err
	}
	defer done()
	if r.fill, err = newFill(consumer, sink, log, r.opts.Rate, r.until); err != nil {
		return err
	}
	filling, cancel := context.WithCancel(ctx)
	// Whatever is done beside the fill ends when the fill fails.
	beside, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		if err := r.fill.run(filling); filling.Err() == nil {
			fail(fmt.Errorf("fill generation %d: %w", target.Number, err))
		}
	}()
	r.stop = func() { cancel(); <-filled }
	defer r.stop()
	err = r.after(beside, target, sink)
	if cause := context.Cause(beside); cause != nil && err != nil && !r.sum.Switched {
		err = cause
	}
	return err
}

// after is what happens while the generation is being filled.
func (r *replay) after(ctx context.Context, target Generation, sink kafka.Sink) error {
	if err := r.catchUp(ctx, target); err != nil {
		return err
	}
	if err := r.store.Settle(ctx, target, sink); err != nil {
		return err
	}
	if !r.opts.Unverified {
		r.tell(target, PhaseVerify, nil)
		report, err := r.store.Verify(ctx, target, verify.Config{
			Kafka: r.cfg.Kafka, Partitions: r.cfg.Partitions, Retention: r.cfg.Retention,
		})
		if err != nil {
			return err
		}
		if !report.Equal() {
			r.sum.Report = report
			return &DifferentError{report}
		}
		r.sum.Verified = true
	}
	if r.opts.Stay || r.opts.Until != nil {
		return nil
	}
	for try := 1; ; try++ {
		if err := r.catchUp(ctx, target); err != nil {
			return err
		}
		r.tell(target, PhaseSwitch, nil)
		err := r.store.Switch(ctx, target, r.stop)
		if errors.Is(err, ErrBehind) && try == behindTries {
			return fmt.Errorf("%w, although it has taken in all that the log has: the live one is ahead of the log, "+
				"which may have been set back (see 'helio log check'), or it grows faster than it is read", err)
		}
		if errors.Is(err, ErrBehind) {
			r.cfg.Logger.Warn("the generation is behind the live one still, trying again", "err", err)
			continue
		}
		if err != nil {
			return err
		}
		r.sum.Switched = true
		r.sum.Generation = r.now(ctx, target)
		return nil
	}
}

// now is a generation as the store has it since it is live.
func (r *replay) now(ctx context.Context, g Generation) Generation {
	all, err := r.store.Generations(ctx)
	if err != nil {
		g.State, g.Since = Live, time.Now().UTC() // it is live all the same
		return g
	}
	for _, x := range all {
		if x.Number == g.Number {
			g = x
		}
	}
	return g
}

// behindTries is how often a switch is tried that does not catch up.
const behindTries = 5

// choose says which generation is to be filled.
func (r *replay) choose(ctx context.Context) (Generation, error) {
	all, err := r.store.Generations(ctx)
	if err != nil {
		return Generation{}, err
	}
	last, until := 0, ""
	if r.opts.Until != nil {
		until = r.opts.Until.Text
	}
	var found *Generation
	for i := range all {
		g := &all[i]
		last = max(last, g.Number)
		switch {
		case r.opts.Rollback:
			if g.State == Retired && (found == nil || g.Since.After(found.Since)) {
				found = g
			}
		case g.State == Building && r.opts.Until == nil, g.State == AsOf && r.opts.Until != nil && g.Until == until:
			found = g
		}
	}
	if r.opts.Rollback {
		if found == nil {
			return Generation{}, errors.New("no earlier generation is kept: there is nothing to go back to")
		}
		return *found, nil
	}
	if found != nil && r.opts.Fresh {
		if err := r.store.Drop(ctx, *found); err != nil {
			return Generation{}, err
		}
		found = nil
	}
	if found != nil {
		r.sum.Resumed = true
		return *found, nil
	}
	g := Generation{Number: last + 1, State: Building, Until: until}
	if r.opts.Until != nil {
		g.State = AsOf
	}
	return g, nil
}

// ends are the positions of a place of the log.
func (r *replay) ends(ctx context.Context, u Until) (map[topic.Slot]kafka.Positions, error) {
	at, err := r.log.extents(ctx)
	if err != nil {
		return nil, err
	}
	when := u.Time
	if when.IsZero() {
		if when, err = r.log.logged(ctx, u.Slot, u.Position, at[u.Slot][topic.Threads]); err != nil {
			return nil, err
		}
	}
	out, err := r.log.at(ctx, when)
	if err != nil {
		return nil, err
	}
	if u.Time.IsZero() {
		out[u.Slot][topic.Threads] = u.Position + 1
	}
	for slot, ends := range out {
		for t, end := range ends {
			e := at[slot][t]
			if ends[t] = min(end, e.End); ends[t] <= e.Begin {
				delete(ends, t) // nothing of it is there
			}
		}
	}
	return out, nil
}

// consumer is how a generation is filled.
func (c Config) consumer() kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Kafka: c.Kafka, View: "replay", Topics: c.Topics, Partitions: c.Partitions,
		Linger: 20 * time.Millisecond, LingerBusy: 200 * time.Millisecond, LingerRecords: fillRecords / 2,
		MaxRecords: fillRecords, MaxBytes: fillBytes, QueueRecords: 2 * fillRecords, QueueBytes: 2 * fillBytes,
	}
}

// near is how many records a generation may be behind and count as caught up: what comes while it is asked for.
const near = 1000

// catchUp waits until the generation has taken in the log.
func (r *replay) catchUp(ctx context.Context, target Generation) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for {
		at, err := r.log.extents(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.cfg.Logger.Warn("the log does not say where it ends, asking again", "err", err)
		} else if p, opened := r.progress(at); opened {
			r.tell(target, PhaseFill, &p)
			least := int64(near)
			if r.until != nil {
				least = 0
			}
			if p.Total-p.Done <= least {
				if r.sum.Seconds == 0 { // what comes later is the pace of the log
					r.sum.Records, r.sum.Seconds = r.fill.sink.taken.Load(), time.Since(began).Seconds()
					r.sum.PerSecond = float64(r.sum.Records) / r.sum.Seconds
				}
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// progress compares what was taken in with what there is; opened: every partition has told.
func (r *replay) progress(at Extents) (p Progress, opened bool) {
	next := r.fill.sink.positions()
	for _, s := range slices.Sorted(maps.Keys(at)) {
		if next[s] == nil {
			return p, false
		}
		one := SlotProgress{Slot: s}
		for t, e := range at[s] {
			end := e.End
			if r.until != nil {
				end = r.until[s][t]
			}
			if end > e.Begin {
				one.Total += r.log.upTo(t, s, e, end)
				one.Done += r.log.upTo(t, s, e, min(next[s][t], end))
			}
		}
		p.Slots = append(p.Slots, one)
		p.Done += one.Done
		p.Total += one.Total
	}
	return p, true
}

func (r *replay) tell(target Generation, phase string, p *Progress) {
	if p == nil {
		p = &Progress{}
	} else {
		p.Rate = r.rates.add(time.Now(), p.Done)
		if p.Rate > 0 {
			p.Left = time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second))
		}
	}
	p.Generation, p.Phase = target.Number, phase
	if r.cfg.Progress != nil {
		r.cfg.Progress(*p)
	}
}

// meter is a rate over the last seconds.
type meter struct {
	at   []time.Time
	done []int64
}

// meterSpan is how far back a rate looks.
const meterSpan = 10 * time.Second

func (m *meter) add(now time.Time, done int64) float64 {
	m.at, m.done = append(m.at, now), append(m.done, done)
	for len(m.at) > 2 && now.Sub(m.at[1]) > meterSpan {
		m.at, m.done = m.at[1:], m.done[1:]
	}
	if took := now.Sub(m.at[0]).Seconds(); took > 0 {
		return float64(done-m.done[0]) / took
	}
	return 0
}

// Estimate is what a replay would read.
type Estimate struct {
	Topic   topic.Topic `json:"topic"`
	Records int64       `json:"records"`
	Bytes   int64       `json:"bytes"` // as the log stores them; 0: the brokers do not say
	Seconds float64     `json:"seconds"`
}

// Plan is what Replay would do.
type Plan struct {
	View       string     `json:"view"`
	Generation Generation `json:"generation"`
	Resumed    bool       `json:"resumed"`
	PerSecond  float64    `json:"per_second"` // by which the time is reckoned
	Topics     []Estimate `json:"topics"`
	Seconds    float64    `json:"seconds"`
}

// Estimates tells what Replay would do, and does nothing. What an earlier run has taken in already counts too. The time
// is reckoned by perSecond, or by Options.Rate where that is less.
func Estimates(ctx context.Context, store Store, cfg Config, o Options, perSecond float64) (Plan, error) {
	r := &replay{store: store, cfg: cfg, opts: o}
	p := Plan{View: store.View(), PerSecond: perSecond}
	if o.Rate > 0 {
		p.PerSecond = min(o.Rate, perSecond)
	}
	r.opts.Fresh = false
	var err error
	if p.Generation, err = r.choose(ctx); err != nil {
		return p, err
	}
	p.Resumed = r.sum.Resumed
	if r.log, err = openLog(ctx, cfg.Kafka, cfg.Topics); err != nil {
		return p, err
	}
	defer r.log.close()
	at, err := r.log.extents(ctx)
	if err != nil {
		return p, err
	}
	if o.Until != nil {
		if r.until, err = r.ends(ctx, *o.Until); err != nil {
			return p, err
		}
	}
	size := r.log.bytes(ctx)
	for _, t := range cfg.Topics {
		e := Estimate{Topic: t}
		whole := int64(0)
		for s, of := range at {
			x, ok := of[t]
			if !ok {
				continue
			}
			whole += x.Records
			end := x.End
			if r.until != nil {
				end = max(x.Begin, r.until[s][t])
			}
			e.Records += r.log.upTo(t, s, x, end)
		}
		if whole > 0 {
			e.Bytes = int64(float64(size[t]) * float64(e.Records) / float64(whole))
		}
		e.Seconds = float64(e.Records) / p.PerSecond
		p.Seconds += e.Seconds
		p.Topics = append(p.Topics, e)
	}
	return p, nil
}
