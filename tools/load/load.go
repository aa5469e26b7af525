package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/edge/client"
)

// bench is one run.
type bench struct {
	// Fixed after Run's preparations; only its goroutine changes them.
	cfg    Config
	target Target
	users  []*user
	began  time.Time
	result Result

	saying sync.Mutex // held while a line is written
}

// Run measures the parts one after the other. The result holds what was measured, also when err is not nil: a part that
// failed is null in it.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, fmt.Errorf("bench: %w", err)
	}
	b := &bench{cfg: cfg.withDefaults(), target: cfg.Target, began: time.Now()}
	if n := b.cfg.users(); n > 0 {
		if err := b.register(ctx, n); err != nil {
			return b.result, fmt.Errorf("bench: %w", err)
		}
		if b.cfg.Restart != nil {
			t, err := b.cfg.Restart()
			if err != nil {
				return b.result, fmt.Errorf("bench: restart the servers: %w", err)
			}
			b.target = t
		}
	}
	var errs []error
	for _, p := range b.cfg.Parts {
		part := map[Part]func(context.Context, context.CancelCauseFunc) error{
			Connections: b.connections, Throughput: b.throughput, Latency: b.latency, Fanout: b.fanout,
			Ceiling: b.ceiling,
		}[p]
		pctx, fail := context.WithCancelCause(ctx)
		err := part(pctx, fail)
		if cause := context.Cause(pctx); cause != nil && ctx.Err() == nil {
			err = cause // what went wrong first
		}
		fail(nil)
		if ctx.Err() != nil {
			return b.result, fmt.Errorf("bench: %s: %w", p, context.Cause(ctx))
		}
		if err != nil {
			b.say("%s failed: %v", p, err)
			errs = append(errs, fmt.Errorf("bench: %s: %w", p, err))
		}
	}
	b.result.ratios()
	return b.result, errors.Join(errs...)
}

// say writes a line of progress. Devices say things too.
func (b *bench) say(format string, args ...any) {
	b.saying.Lock()
	defer b.saying.Unlock()
	fmt.Fprintf(b.cfg.Progress, "bench %6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// traffic is a set of flows between the devices of a fleet.
type traffic struct {
	run       uint64
	flows     []*flow
	devices   []*client.Client // of the fleet; set before the first message is sent
	sender    []int            // device that sends flow i
	delivered atomic.Int64
	refill    atomic.Bool // an acknowledgement is followed by the flow's next message
	flowOf    map[int]int // by sending device
	copyOf    func(device, flow int) (recipient int, ok bool)
}

func newTraffic() *traffic { return &traffic{run: rand.Uint64(), flowOf: map[int]int{}} }

// add makes a flow. It is called before any device is connected.
func (t *traffic) add(body, recipients, sender int, to client.To) {
	t.flowOf[sender] = len(t.flows)
	t.flows = append(t.flows, newFlow(t.run, len(t.flows), recipients, body, to))
	t.sender = append(t.sender, sender)
}

// send sends the next message of flow i.
func (t *traffic) send(i int, due time.Time) error {
	o, err := t.flows[i].next(due)
	if err != nil {
		return err
	}
	return t.devices[t.sender[i]].SendRaw(o)
}

// handle books what a device's client yields.
func (t *traffic) handle(device int, e client.Event) error {
	switch e := e.(type) {
	case client.Message:
		run, n, seq, ok := parseBody(e.Text)
		if !ok || run != t.run {
			return nil // of an earlier run
		}
		if n >= len(t.flows) {
			return fmt.Errorf("message %s is of flow %d, of which there are %d", e.ID, n, len(t.flows))
		}
		recipient, ok := t.copyOf(device, n)
		if !ok {
			if device == t.sender[n] {
				return nil // the sender's own copy
			}
			return fmt.Errorf("message %s of flow %d came to device %d, which is none of its recipients",
				e.ID, n, device)
		}
		if err := t.flows[n].delivered(recipient, seq, e.ID, time.Now()); err != nil {
			return err
		}
		t.delivered.Add(1)
	case client.Sent:
		i, ok := t.flowOf[device]
		if !ok {
			return fmt.Errorf("device %d has an acknowledgement for %s but sends nothing", device, e.ID)
		}
		if err := t.flows[i].acked(e.ID, time.Now()); err != nil {
			return err
		}
		if t.refill.Load() {
			return t.send(i, time.Now())
		}
	case client.Failed:
		return fmt.Errorf("message %s was refused: %w", e.ID, e.Err)
	case client.Rejected:
		return fmt.Errorf("message %s was rejected: %v", e.ID, e.Code)
	}
	return nil
}

// open returns what is outstanding over all flows.
func (t *traffic) open() (unacked, missing int) {
	for _, f := range t.flows {
		u, m := f.open()
		unacked, missing = unacked+u, missing+m
	}
	return unacked, missing
}

// drain waits until everything that was sent is acknowledged and has arrived. What is still missing then is lost.
func (b *bench) drain(ctx context.Context, t *traffic) error {
	deadline := time.Now().Add(b.cfg.patience)
	for {
		unacked, missing := t.open()
		if unacked == 0 && missing == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d messages without acknowledgement and %d copies not delivered after %v",
				unacked, missing, b.cfg.patience)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// opening sends the first message of each flow, which makes its thread if it is a direct one, and waits until all have
// arrived.
func (b *bench) opening(ctx context.Context, t *traffic) error {
	began := time.Now()
	for i := range t.flows {
		if err := t.send(i, time.Now()); err != nil {
			return err
		}
	}
	if err := b.drain(ctx, t); err != nil {
		return fmt.Errorf("first messages: %w", err)
	}
	for _, f := range t.flows {
		f.aim(client.To{Thread: f.thread()})
	}
	b.say("first message of %d threads delivered in %.2f s", len(t.flows), time.Since(began).Seconds())
	return nil
}

// window is what was measured between begin and end.
type window struct {
	begin, end time.Time
	delivered  int64
	cpu        *float64 // seconds of the servers; nil: unknown
}

// measure lets the traffic flow for the measured time and returns what came of it.
func (b *bench) measure(ctx context.Context, t *traffic) (window, error) {
	var w window
	cpu0, cpuErr := b.target.cpu()
	own0 := ownCPU()
	n0 := t.delivered.Load()
	w.begin = time.Now()
	next := w.begin
	for left := b.cfg.Measure; left > 0; left = b.cfg.Measure - time.Since(w.begin) {
		step := min(left, 5*time.Second)
		at := t.delivered.Load()
		if err := sleep(ctx, step); err != nil {
			return w, err
		}
		b.say("%.0f delivered a second", float64(t.delivered.Load()-at)/time.Since(next).Seconds())
		next = time.Now()
	}
	w.end = time.Now()
	w.delivered = t.delivered.Load() - n0
	if cpuErr == nil {
		cpu1, err := b.target.cpu()
		if err != nil {
			return w, err
		}
		used := cpu1.sum() - cpu0.sum()
		w.cpu = &used
		took := w.end.Sub(w.begin)
		b.say("cores used: %s; the generator %.2f", cpu1.since(cpu0, took), (ownCPU()-own0).Seconds()/took.Seconds())
	}
	return w, nil
}

func (w window) perSecond() float64 { return float64(w.delivered) / w.end.Sub(w.begin).Seconds() }

// cpuPer1000 returns the servers' CPU seconds per 1,000 delivered messages.
func (w window) cpuPer1000() *float64 {
	if w.cpu == nil || w.delivered == 0 {
		return nil
	}
	v := *w.cpu * 1000 / float64(w.delivered)
	return &v
}
