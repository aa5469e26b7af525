package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"heliograph/delivery"
	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

// between is the time between two lines of a burst.
const between = 10 * time.Millisecond

// burst has Ann, Bob and Dana write to the group; after a third of it something happens. It returns the messages, who
// waited with how many at most, and when it happened.
func (p *play) burst(
	ctx context.Context, what string, happens func() error,
) (ms []id.MessageID, waited map[*device]int, at time.Time, err error) {
	waited = map[*device]int{}
	tick := time.NewTicker(between)
	defer tick.Stop()
	for i := range p.cfg.burst {
		if i == p.cfg.burst/3 {
			at = time.Now()
			if err := happens(); err != nil {
				return nil, nil, at, err
			}
		}
		for _, d := range []*device{p.ann, p.bob, p.dana} {
			m, _, err := p.say(d, p.group, fmt.Sprintf("%s: line %d of %s", what, i+1, d.name))
			if err != nil {
				return nil, nil, at, err
			}
			ms = append(ms, m)
			waited[d] = max(waited[d], d.user.Outbox())
		}
		select {
		case <-ctx.Done():
			return nil, nil, at, ctx.Err()
		case <-tick.C:
		}
	}
	return ms, waited, at, nil
}

// readers are the devices that have the group.
func (p *play) readers() []*device { return []*device{p.ann, p.bob, p.tablet, p.dana} }

// silence is the longest time in which a device was given none of the messages, from a moment on.
func (d *device) silence(ms []id.MessageID, from time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	var at []time.Time
	for _, m := range ms {
		if t := d.cameAt[m]; t.After(from) {
			at = append(at, t)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	var longest time.Duration
	for _, t := range at {
		longest, from = max(longest, t.Sub(from)), t
	}
	return longest
}

// edgeDies kills the edge that Ann is connected to.
func (p *play) edgeDies(ctx context.Context) error {
	var (
		victim *cluster.Process
		ms     []id.MessageID
		at     time.Time
		there  []*device
	)
	err := p.step(ctx, "SIGKILL for Ann's edge while three people write", func(ctx context.Context, s *Step) error {
		for _, e := range p.c.All(cluster.Edge) {
			if e.Name == p.ann.at() {
				victim = e
			}
		}
		if victim == nil {
			return fmt.Errorf("%s is at edge %q, which is none of ours", p.ann.name, p.ann.at())
		}
		for _, d := range p.readers() {
			if d.at() == victim.Name {
				there = append(there, d)
			}
		}
		pid := victim.Pid()
		var waited map[*device]int
		var err error
		if ms, waited, at, err = p.burst(ctx, "Ferry", victim.Kill); err != nil {
			return err
		}
		s.note("%s (pid %d) is gone; with it the connections of %s", victim.Name, pid, names(there))
		s.note("up to %d of Ann's messages wait in her outbox", waited[p.ann])
		return nil
	})
	if err != nil {
		return err
	}
	err = p.step(ctx, "The outboxes are sent again over the other edge", func(ctx context.Context, s *Step) error {
		if err := p.acknowledged(ctx, ms); err != nil {
			return err
		}
		if p.ann.at() == victim.Name {
			return fmt.Errorf("%s is connected to %s, which is dead", p.ann.name, victim.Name)
		}
		s.note("all %d lines are in the log %s after the kill; Ann is at %s now",
			len(ms), took(time.Since(at)), p.ann.at())
		return nil
	})
	if err != nil {
		return err
	}
	back := victim.Name + " comes back, and everybody has every line"
	return p.step(ctx, back, func(ctx context.Context, s *Step) error {
		if err := victim.Start(ctx); err != nil {
			return err
		}
		for _, d := range p.readers() {
			if _, err := d.came(ctx, ms...); err != nil {
				return err
			}
		}
		var away []string
		for _, d := range p.readers() {
			away = append(away, fmt.Sprintf("%s %s", d.name, took(d.silence(ms, at))))
		}
		s.note("longest silence: %s", strings.Join(away, ", "))
		return nil
	})
}

// deliveryDies kills the delivery instance that owns the group's slot.
func (p *play) deliveryDies(ctx context.Context) error {
	slot := topic.SlotOf(topic.Subject(p.group.Thread), p.c.Partitions())
	var victim, heir string
	var ms []id.MessageID
	var at time.Time
	const kill = "SIGKILL for the delivery instance of the group's slot"
	err := p.step(ctx, kill, func(ctx context.Context, s *Step) error {
		owner, err := p.owner(ctx, slot)
		if err != nil {
			return err
		}
		victim = owner.Name
		pid := owner.Pid()
		if ms, _, at, err = p.burst(ctx, "Lighthouse", owner.Kill); err != nil {
			return err
		}
		if err := p.acknowledged(ctx, ms); err != nil {
			return err
		}
		s.note("%s (pid %d), owner of slot %d, is gone", victim, pid, slot)
		s.note("writing goes on: all %d lines are in the log", len(ms))
		return nil
	})
	if err != nil {
		return err
	}
	err = p.step(ctx, "Another one takes it, and everybody has every line", func(ctx context.Context, s *Step) error {
		for _, d := range p.readers() {
			if _, err := d.came(ctx, ms...); err != nil {
				return err
			}
		}
		owner, err := p.owner(ctx, slot)
		if err != nil {
			return err
		}
		heir = owner.Name
		if heir == victim {
			return fmt.Errorf("slot %d is still %s's, which is dead", slot, victim)
		}
		s.note("%s reads slot %d on from the log; longest silence %s", heir, slot, took(p.dana.silence(ms, at)))
		return nil
	})
	if err != nil {
		return err
	}
	return p.step(ctx, victim+" comes back, and the talk goes on", func(ctx context.Context, s *Step) error {
		for _, d := range p.c.All(cluster.Delivery) {
			if d.Name == victim {
				if err := d.Start(ctx); err != nil {
					return err
				}
			}
		}
		_, err := p.tell(ctx, s, p.dana, p.group, "What a day. Same time next week?", p.ann, p.bob, p.tablet)
		if err != nil {
			return err
		}
		_, err = p.tell(ctx, s, p.ann, p.group, "Same ferry.", p.dana, p.bob, p.tablet)
		for _, d := range p.readers() {
			d.read(p.group.Thread)
		}
		return err
	})
}

// owner finds the delivery instance that owns a slot.
func (p *play) owner(ctx context.Context, slot topic.Slot) (*cluster.Process, error) {
	cfg := p.kafka()
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for {
		members, err := kafka.DescribeGroup(ctx, cl, cfg, delivery.Group(cfg))
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			for _, d := range p.c.All(cluster.Delivery) {
				if cfg.Instance(d.Name) == m.InstanceID && slices.Contains(m.Slots, slot) {
					return d, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("nobody owns slot %d: %w", slot, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
