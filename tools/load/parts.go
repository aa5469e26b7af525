package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/id"
)

// pairs connects users, at least 2n, and makes n flows, each from one of the first n to one of the next n.
func (b *bench) pairs(ctx context.Context, fail context.CancelCauseFunc, n, connected int) (*traffic, *fleet, error) {
	t := newTraffic()
	for i := range n {
		from, to := b.users[i].Identity.User, b.users[n+i].Identity.User
		t.add(b.cfg.Body, 1, i, client.To{Thread: id.DirectThread(from, to), Peer: to})
	}
	t.copyOf = func(device, flow int) (int, bool) { return 0, device == n+flow }
	f, err := b.connect(ctx, b.users[:max(2*n, connected)], b.cfg.Window, t.handle, fail)
	if err != nil {
		return nil, nil, err
	}
	t.devices = f.devices
	b.say("%d devices connected in %.1f s", len(f.devices), f.took.Seconds())
	if err := b.opening(ctx, t); err != nil {
		return nil, nil, errors.Join(err, f.stop())
	}
	return t, f, nil
}

// closedLoop keeps the window of each flow full until stop is set, and measures.
func (b *bench) closedLoop(ctx context.Context, t *traffic) (window, error) {
	t.refill.Store(true)
	for range b.cfg.Window {
		for i := range t.flows {
			if err := t.send(i, time.Now()); err != nil {
				return window{}, err
			}
		}
	}
	if err := sleep(ctx, b.cfg.warm()); err != nil {
		return window{}, err
	}
	w, err := b.measure(ctx, t)
	t.refill.Store(false)
	if err != nil {
		return w, err
	}
	return w, b.drain(ctx, t)
}

func (b *bench) throughput(ctx context.Context, fail context.CancelCauseFunc) (err error) {
	b.say("throughput: %d senders with %d in flight, %d bytes, %v",
		b.cfg.Senders, b.cfg.Window, b.cfg.Body, b.cfg.Measure)
	t, f, err := b.pairs(ctx, fail, b.cfg.Senders, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	lag := b.watchLag(ctx)
	w, err := b.closedLoop(ctx, t)
	seen := lag()
	if err != nil {
		return err
	}
	v := w.perSecond()
	b.result.ThroughputPerS, b.result.ServerCPUPer1000 = &v, w.cpuPer1000()
	b.say("throughput: %.0f delivered a second, server CPU %s s per 1,000, %d connections lost",
		v, figure(w.cpuPer1000(), 3), f.lost.Load())
	if most := b.sayLag(seen); most != nil {
		b.result.LagMaxRecords = most
		b.catchUp(ctx)
	}
	return nil
}

// lagSeen is how far a view was behind.
type lagSeen struct{ first, last, most float64 }

// watchLag asks the servers each second, from the end of the warm-up on, until the returned function is called.
func (b *bench) watchLag(ctx context.Context) func() map[string]lagSeen {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan map[string]lagSeen, 1)
	go func() {
		seen := map[string]lagSeen{}
		for err := sleep(ctx, b.cfg.warm()); err == nil; err = sleep(ctx, time.Second) {
			views, err := b.target.lag(ctx)
			if err != nil {
				continue // unknown from here, or asked in vain this time
			}
			for view, n := range views {
				s, ok := seen[view]
				if !ok {
					s.first = n
				}
				s.last, s.most = n, max(s.most, n)
				seen[view] = s
			}
		}
		out <- seen
	}()
	return func() map[string]lagSeen { cancel(); return <-out }
}

// sayLag says how far each view was behind and returns the most, nil when it is unknown.
func (b *bench) sayLag(seen map[string]lagSeen) *float64 {
	if len(seen) == 0 {
		return nil
	}
	most := 0.0
	for _, view := range slices.Sorted(maps.Keys(seen)) {
		s := seen[view]
		most = max(most, s.most)
		b.say("view %s behind: %.0f records at the begin, %.0f at the end, %.0f at most", view, s.first, s.last, s.most)
	}
	return &most
}

// catchUp says how long the views need after the traffic has ended.
func (b *bench) catchUp(ctx context.Context) {
	began := time.Now()
	for time.Since(began) < b.cfg.patience {
		views, err := b.target.lag(ctx)
		if err != nil {
			return
		}
		worst := 0.0
		for _, n := range views {
			worst = max(worst, n)
		}
		if worst == 0 {
			b.say("views have everything %.0f s after the last message", time.Since(began).Seconds())
			return
		}
		if sleep(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
	b.say("views are still behind %v after the last message", b.cfg.patience)
}

func (b *bench) latency(ctx context.Context, fail context.CancelCauseFunc) (err error) {
	t, f, err := b.pairs(ctx, fail, min(b.cfg.Senders, b.cfg.Connected/2), b.cfg.Connected)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	for i, rate := range b.cfg.Rates {
		r, err := b.openLoop(ctx, t, rate)
		if err != nil {
			return fmt.Errorf("%d a second: %w", rate, err)
		}
		if i == 0 {
			b.result.AckMS, b.result.DeliveryMS = &r.AckMS, &r.DeliveryMS
		}
		b.result.Rates = append(b.result.Rates, r)
		b.say("latency at %d/s: ack %v, delivery %v, delivered %.0f/s, server CPU %s s per 1,000",
			rate, r.AckMS, r.DeliveryMS, r.DeliveredPerS, figure(r.ServerCPUPer1000, 3))
	}
	return nil
}

// openLoop sends at a fixed rate, whatever comes back, and takes the latencies of what was due in the measured time.
func (b *bench) openLoop(ctx context.Context, t *traffic, rate int) (Rate, error) {
	b.say("latency: %d messages a second over %d senders, %d connected, %v",
		rate, len(t.flows), len(t.devices), b.cfg.Measure)
	for _, f := range t.flows {
		f.record()
	}
	begin := time.Now().Add(50 * time.Millisecond)
	from := begin.Add(b.cfg.warm())
	total := int(float64(rate) * (b.cfg.warm() + b.cfg.Measure).Seconds())
	var w window
	lag := b.watchLag(ctx)
	measured := make(chan error, 1)
	go func() {
		err := sleep(ctx, time.Until(from))
		if err == nil {
			w, err = b.measure(ctx, t)
		}
		measured <- err
	}()
	send := func() error {
		for k := range total {
			due := begin.Add(time.Duration(k) * time.Second / time.Duration(rate))
			if d := time.Until(due); d > 0 {
				if err := sleep(ctx, d); err != nil {
					return err
				}
			}
			if err := t.send(k%len(t.flows), due); err != nil {
				return err
			}
		}
		return nil
	}
	err := send()
	if merr := <-measured; err == nil {
		err = merr
	}
	b.sayLag(lag())
	if err != nil {
		return Rate{}, err
	}
	if err := b.drain(ctx, t); err != nil {
		return Rate{}, err
	}
	var acks, arrived []time.Duration
	for _, f := range t.flows {
		acks, arrived = f.take(acks, arrived, from, from.Add(b.cfg.Measure))
	}
	return Rate{
		PerS:             rate,
		DeliveredPerS:    w.perSecond(),
		AckMS:            quantiles(acks),
		DeliveryMS:       quantiles(arrived),
		ServerCPUPer1000: w.cpuPer1000(),
	}, nil
}

func (b *bench) fanout(ctx context.Context, fail context.CancelCauseFunc) (err error) {
	n := b.cfg.Group
	b.say("fan-out: a group of %d, one sender with %d in flight, %v", n, b.cfg.Window, b.cfg.Measure)
	t := newTraffic()
	t.copyOf = func(device, _ int) (int, bool) { return device - 1, device > 0 }
	t.add(b.cfg.Body, n-1, 0, client.To{})
	f, err := b.connect(ctx, b.users[:n], b.cfg.Window, t.handle, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	t.devices = f.devices
	members := make([]id.UserID, 0, n-1)
	for _, u := range b.users[1:n] {
		members = append(members, u.Identity.User)
	}
	cctx, cancel := context.WithTimeout(ctx, b.cfg.patience)
	defer cancel()
	group, err := f.devices[0].CreateGroup(cctx, "bench", members...)
	if err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	t.flows[0].aim(client.To{Thread: group})
	if err := b.opening(ctx, t); err != nil {
		return err
	}
	w, err := b.closedLoop(ctx, t)
	if err != nil {
		return err
	}
	v := w.perSecond()
	b.result.FanoutPerS = &v
	b.say("fan-out: %.0f deliveries a second, server CPU %s s per 1,000, %d connections lost",
		v, figure(w.cpuPer1000(), 4), f.lost.Load())
	return nil
}

func (b *bench) connections(ctx context.Context, fail context.CancelCauseFunc) (err error) {
	b.say("connections: %d idle devices, %d at a time", b.cfg.Idle, atOnce)
	before, memErr := b.target.settledRSS(ctx)
	f, err := b.connect(ctx, b.users[:b.cfg.Idle], b.cfg.Window, func(int, client.Event) error { return nil }, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	v := float64(b.cfg.Idle) / f.took.Seconds()
	b.result.ConnectsPerS = &v
	b.say("connections: %.0f a second", v)
	if memErr != nil {
		if !errors.Is(memErr, errUnknown) {
			return memErr
		}
		return nil
	}
	after, err := b.target.settledRSS(ctx)
	if err != nil {
		return err
	}
	each := float64(after-before) / 1024 / float64(b.cfg.Idle)
	b.result.IdleConnKiB = &each
	b.say("connections: %.1f KiB each (servers' process %.1f MiB before, %.1f MiB after), %d lost",
		each, float64(before)/(1<<20), float64(after)/(1<<20), f.lost.Load())
	return nil
}
