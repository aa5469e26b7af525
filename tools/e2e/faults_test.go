package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"heliograph/edge/client"
	"heliograph/infra/embedded"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
	"heliograph/tools/cluster"
)

// crowd is people on both edges who write to each other, alone and in a group.
type crowd struct {
	devices []*device
	lines   []*line
	threads []id.ThreadID
}

func (e *env) crowd(t *testing.T, size int) *crowd {
	t.Helper()
	return e.crowdOn(t, size, func(i, edges int) []int { return []int{i % edges, (i + 1) % edges} })
}

// crowdOn has each device know the edges that on gives for its number.
func (e *env) crowdOn(t *testing.T, size int, on func(i, edges int) []int) *crowd {
	t.Helper()
	c := &crowd{}
	for i := range size {
		c.devices = append(c.devices, e.user(t, fmt.Sprintf("p%d", i), on(i, len(e.All(cluster.Edge)))...))
	}
	first := c.devices[0]
	var others []id.UserID
	for _, d := range c.devices[1:] {
		others = append(others, d.me.User)
	}
	group, err := first.u.CreateGroup(e.context(t), "crowd", others...)
	must(t, err)
	c.threads = append(c.threads, group)
	begin := first.say(client.To{Thread: group}, "begin")
	for i, d := range c.devices {
		d.has(begin)
		next := c.devices[(i+1)%size]
		c.lines = append(c.lines, &line{from: d, to: client.To{Thread: group}}, &line{from: d, to: d.to(next)})
		c.threads = append(c.threads, d.to(next).Thread)
	}
	return c
}

// flow has everybody write to the group and to the next one.
func (c *crowd) flow(t *testing.T, every time.Duration) *traffic { return flow(t, every, c.lines...) }

// testOutages: P5. Each engine alone, and both stores together, are down for a while under traffic.
func testOutages(t *testing.T, e *env) {
	long := outage(t)
	short := min(long, 3*time.Second)
	stores := min(long, 12*time.Second) // longer than every deadline of a question to one
	cases := []struct {
		name  string
		kinds []embedded.Kind
		lasts time.Duration
	}{
		{"postgres", []embedded.Kind{embedded.Postgres}, stores},
		{"clickhouse", []embedded.Kind{embedded.ClickHouse}, stores},
		{"both views", []embedded.Kind{embedded.Postgres, embedded.ClickHouse}, short},
	}
	if e.real { // the views' part of it does not depend on the log
		cases = cases[2:]
		cases[0].lasts = min(long, 10*time.Second)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { testStoresDown(t, e, c.lasts, c.kinds...) })
	}
	t.Run("kafka", func(t *testing.T) { testLogDown(t, e, long) })
}

// testStoresDown: without stores, what is written is acknowledged and reaches everybody, and no connection is lost; the
// views catch up.
func testStoresDown(t *testing.T, e *env, lasts time.Duration, kinds ...embedded.Kind) {
	p := e.crowd(t, 4)
	a, b := p.devices[0], p.devices[3]
	f := p.flow(t, 25*time.Millisecond)
	f.goOn(50)
	for _, k := range kinds {
		must(t, e.Engine(k).Kill())
	}
	marks := f.marks()
	f.lasts(lasts)
	for i, l := range f.lines {
		until(t, l.from.name+" writes while the stores are down", func() bool { return len(l.since(marks[i])) > 0 })
		written := l.since(marks[i])
		l.from.acked(written[len(written)-1]) // the stores are still down
	}
	m := a.say(client.To{Thread: p.threads[0]}, "the views are down")
	b.has(m)
	a.acked(m)
	for _, d := range p.devices {
		if !d.u.Online() {
			t.Errorf("%s lost its connection because a view is down", d.name)
		}
	}
	for _, k := range kinds {
		must(t, e.Engine(k).Restart(e.context(t)))
	}
	f.goOn(20)
	f.finish()
	tr := e.agree(t, p.devices...)
	e.accounted(t, tr, f, p.devices...)
	e.viewsAgree(t)
}

// testLogDown: without the log, everybody goes on writing; every send is refused, to be tried again, and stays in its
// outbox. Nothing is acknowledged that the log does not have, and what was acknowledged before is not lost.
func testLogDown(t *testing.T, e *env, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), patience+lasts)
	defer cancel()
	// Each device knows one edge only: that each edge refuses is seen only if somebody is there.
	p := e.crowdOn(t, 4, func(i, edges int) []int { return []int{i % edges} })
	a := p.devices[0]
	f := p.flow(t, 50*time.Millisecond)
	f.goOn(50)
	before := e.refusals(t)
	must(t, e.Engine(embedded.Kafka).Kill())
	marks := f.marks()
	stuck := a.say(client.To{Thread: p.threads[0]}, "nobody takes this yet")
	until(t, "each edge refuses sends, to be tried again", e.refusedMore(t, before))
	again := e.refusals(t)
	soon, cancelSoon := context.WithTimeout(ctx, 5*time.Second)
	_, err := a.u.CreateGroup(soon, "not now")
	cancelSoon()
	// the client tries again until then
	if codeOf(err) != wirev1.Code_CODE_UNAVAILABLE && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a group is asked for while the log is down: %v", err)
	}
	f.lasts(lasts)
	until(t, "they are tried, and refused, again", e.refusedMore(t, again))
	for i, l := range f.lines {
		written := l.since(marks[i] + 1) // the first may have been on its way already
		if len(written) == 0 {
			t.Errorf("%s wrote nothing while the log was down", l.from.name)
		}
		if l.from == a {
			written = append(written, stuck)
		}
		for _, m := range written {
			if acked, failed, _ := l.from.outcome(m); acked || failed != nil {
				t.Fatalf("message %s of %s was acknowledged (%v) or given up (%v) while the log was down",
					m, l.from.name, acked, failed)
			}
		}
		if n := l.from.u.Outbox(); n < len(written) {
			t.Errorf("%s has %d messages in the outbox, and wrote %d while the log was down",
				l.from.name, n, len(written))
		}
	}
	for _, d := range p.devices {
		if !d.u.Online() {
			t.Errorf("%s lost its connection because the log is down", d.name)
		}
	}
	must(t, e.Engine(embedded.Kafka).Restart(ctx))
	a.acked(stuck)
	f.goOn(20)
	f.finish()
	tr := e.agree(t, p.devices...)
	e.accounted(t, tr, f, p.devices...)
	e.viewsAgree(t)
}

// refusals counts, by edge, the sends that were refused because the log cannot be reached.
func (e *env) refusals(t *testing.T) []float64 {
	t.Helper()
	var out []float64
	for i := range e.All(cluster.Edge) {
		out = append(out, metric(t, e, i, `helio_session_refusals_total{code="unavailable"}`))
	}
	return out
}

// refusedMore tells whether every edge has refused more sends than that.
func (e *env) refusedMore(t *testing.T, than []float64) func() bool {
	return func() bool {
		for i, n := range e.refusals(t) {
			if n <= than[i] {
				return false
			}
		}
		return true
	}
}

// victim is what one round of the kill test kills.
type victim struct {
	name    string
	roles   []*cluster.Process
	engines []embedded.Kind
}

func (e *env) victims() []victim {
	var out []victim
	for _, p := range e.Processes() {
		out = append(out, victim{p.String(), []*cluster.Process{p}, nil})
	}
	engines := []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse}
	for _, k := range engines {
		out = append(out, victim{"engine " + string(k), nil, []embedded.Kind{k}})
	}
	return append(out,
		victim{"all edges", e.All(cluster.Edge), nil},
		victim{"all delivery instances", e.All(cluster.Delivery), nil},
		victim{"all projectors", append(e.All(cluster.Threads), e.All(cluster.History)...), nil},
		victim{"all roles", e.Processes(), nil},
		victim{"everything", e.Processes(), engines},
		victim{"everything", e.Processes(), engines},
	)
}

// testKills: SIGKILL at random points under traffic, then log, views and devices compared message by message, round
// after round.
func testKills(t *testing.T, e *env) {
	rng := random(t)
	rounds := 15
	if e.real {
		rounds = 5
	}
	rounds = number(t, "HELIO_E2E_ROUNDS", rounds)
	p := e.crowd(t, 4)
	var order []victim
	sent := 0
	for round := range rounds {
		if len(order) == 0 {
			order = e.victims()
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			if e.real { // few rounds: the two that say most come first
				engines := []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse}
				order = append([]victim{
					{"everything", e.Processes(), engines},
					{"engine kafka", nil, []embedded.Kind{embedded.Kafka}},
				}, order...)
			}
		}
		v := order[0]
		order = order[1:]
		began := time.Now()
		f := p.flow(t, 20*time.Millisecond)
		f.goOn(20 + rng.IntN(60))
		f.lasts(time.Duration(rng.IntN(20_000)) * time.Microsecond)
		e.kill(t, v, rng)
		f.goOn(20)
		e.revive(t, v)
		f.goOn(40)
		f.finish()
		back := time.Since(began)
		tr := e.agree(t, p.devices...)
		e.accounted(t, tr, f, p.devices...)
		agreed := time.Since(began)
		e.viewsAgree(t)
		t.Logf("round %d: killed %s; %d messages so far; "+
			"all sent after %.1f s, on all devices after %.1f s, in both views after %.1f s",
			round+1, v.name, f.total(), back.Seconds(), agreed.Seconds(), time.Since(began).Seconds())
		sent = f.total()
		if t.Failed() {
			t.Fatalf("round %d (killed %s) failed", round+1, v.name)
		}
	}
	t.Logf("%d messages in %d rounds", sent, rounds)
}

// kill kills all that a victim names, in random order.
func (e *env) kill(t *testing.T, v victim, rng *rand.Rand) {
	t.Helper()
	var kills []func() error
	for _, p := range v.roles {
		kills = append(kills, p.Kill)
	}
	for _, k := range v.engines {
		kills = append(kills, e.Engine(k).Kill)
	}
	rng.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	var errs []error
	for _, k := range kills {
		errs = append(errs, k())
	}
	must(t, errors.Join(errs...))
}

// revive starts it all again.
func (e *env) revive(t *testing.T, v victim) {
	t.Helper()
	ctx := e.context(t)
	for _, p := range v.roles {
		must(t, p.Launch(ctx)) // roles wait for engines
	}
	for _, k := range v.engines {
		must(t, e.Engine(k).Restart(ctx))
	}
	must(t, e.WaitReady(ctx))
}
