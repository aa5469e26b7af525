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
	c, edges := &crowd{}, len(e.All(cluster.Edge))
	for i := range size {
		c.devices = append(c.devices, e.user(t, fmt.Sprintf("p%d", i), i%edges, (i+1)%edges))
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

// testOutages: P5. An engine is down for a while under traffic.
func testOutages(t *testing.T, e *env) {
	long := outage(t)
	short := min(long, 3*time.Second)
	if e.real {
		long = min(long, 10*time.Second) // the views' part of it does not depend on the log
	}
	for _, c := range []struct {
		name  string
		kinds []embedded.Kind
		lasts time.Duration
	}{
		{"postgres", []embedded.Kind{embedded.Postgres}, short},
		{"clickhouse", []embedded.Kind{embedded.ClickHouse}, short},
		{"both views", []embedded.Kind{embedded.Postgres, embedded.ClickHouse}, long},
	} {
		if e.real && len(c.kinds) == 1 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			ctx := e.context(t)
			p := e.crowd(t, 4)
			a, b := p.devices[0], p.devices[3]
			f := p.flow(t, 25*time.Millisecond)
			f.goOn(50)
			for _, k := range c.kinds {
				must(t, e.Engine(k).Kill())
			}
			f.lasts(c.lasts)
			m := a.say(client.To{Thread: p.threads[0]}, "the views are down")
			b.has(m)
			a.acked(m)
			for _, d := range p.devices {
				if !d.u.Online() {
					t.Errorf("%s lost its connection because a view is down", d.name)
				}
			}
			for _, k := range c.kinds {
				must(t, e.Engine(k).Restart(ctx))
			}
			f.goOn(20)
			f.finish()
			tr := e.agree(t, p.devices...)
			e.accounted(t, tr, f, p.devices...)
			e.viewsAgree(t, tr, p.threads...)
		})
	}
	t.Run("kafka", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience+long)
		defer cancel()
		p := e.crowd(t, 4)
		a := p.devices[0]
		f := p.flow(t, 25*time.Millisecond)
		f.goOn(50)
		f.finish()
		before := metric(t, e, 0, `helio_session_refusals_total{code="unavailable"}`) + metric(t, e, 1, `helio_session_refusals_total{code="unavailable"}`)
		must(t, e.Engine(embedded.Kafka).Kill())
		stuck := a.say(client.To{Thread: p.threads[0]}, "nobody takes this yet")
		until(t, "the send is refused, to be tried again", func() bool {
			return metric(t, e, 0, `helio_session_refusals_total{code="unavailable"}`)+metric(t, e, 1, `helio_session_refusals_total{code="unavailable"}`) > before
		})
		if acked, failed, _ := a.outcome(stuck); acked || failed != nil {
			t.Errorf("the message was acknowledged (%v) or given up (%v) while the log was down", acked, failed)
		}
		if a.u.Outbox() != 1 {
			t.Errorf("%d messages in the outbox, want 1", a.u.Outbox())
		}
		soon, cancelSoon := context.WithTimeout(ctx, 5*time.Second)
		_, err := a.u.CreateGroup(soon, "not now")
		cancelSoon()
		if codeOf(err) != wirev1.Code_CODE_UNAVAILABLE && !errors.Is(err, context.DeadlineExceeded) { // the client tries again until then
			t.Errorf("a group is asked for while the log is down: %v", err)
		}
		f = p.flow(t, 50*time.Millisecond)
		f.lasts(long)
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
		e.viewsAgree(t, tr, p.threads...)
	})
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

// testKills: SIGKILL at random points under traffic, then log, views and devices compared message by message, round after round.
func testKills(t *testing.T, e *env) {
	rng := random(t)
	rounds := 20
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
				order = append([]victim{{"everything", e.Processes(), []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse}}, {"engine kafka", nil, []embedded.Kind{embedded.Kafka}}}, order...)
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
		e.viewsAgree(t, tr, p.threads...)
		t.Logf("round %d: killed %s; %d messages so far; all sent after %.1f s, on all devices after %.1f s, in both views after %.1f s",
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
