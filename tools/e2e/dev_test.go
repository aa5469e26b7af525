package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"heliograph/infra/embedded/enginetest"
	"heliograph/tools/cluster"
)

// devRounds is how often helio dev is killed.
const devRounds = 4

// TestDev: P1 and P2 for helio dev. Everything in one process is killed under traffic, alone or with its engines, and
// started again on the same data, round after round: log, views and devices are compared message by message.
func TestDev(t *testing.T) {
	if os.Getenv("HELIO_E2E_LOG") == "kafka" {
		t.Skip("HELIO_E2E_LOG=kafka")
	}
	e := startDev(t)
	dev, rng := e.Edge(0), random(t)
	p := e.crowd(t, 4)
	f := p.flow(t, 10*time.Millisecond)
	for round := range devRounds {
		f.goOn(40 + rng.IntN(200))
		began := time.Now()
		what := "helio dev"
		if round%2 == 1 {
			what = "helio dev with its engines"
			killFamily(t, dev, rng)
		} else {
			must(t, dev.Kill())
		}
		f.goOn(20)
		must(t, dev.Start(e.context(t)))
		up := time.Since(began)
		f.goOn(40)
		f.finish()
		tr := e.agree(t, p.devices...)
		e.accounted(t, tr, f, p.devices...)
		e.viewsAgree(t)
		t.Logf("round %d: killed %s, up again after %.1f s, all compared after %.1f s; %d messages so far",
			round+1, what, up.Seconds(), time.Since(began).Seconds(), f.total())
		f = p.flow(t, 10*time.Millisecond)
	}
	f.finish()
}

// startDev starts helio dev; it ends with the test.
func startDev(t *testing.T) *env {
	t.Helper()
	engines, err := enginetest.FindEngines()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c, err := cluster.StartDev(ctx, cluster.Options{Dir: workDir(t), Helio: helio, EnginesDir: engines, Partitions: 4})
	if err != nil {
		enginetest.Absent(t, err)
	}
	return attach(t, c, false)
}

// killFamily kills a process and all that it has begun, in random order.
func killFamily(t *testing.T, p *cluster.Process, rng *rand.Rand) {
	t.Helper()
	family, err := descendants(p.Pid())
	must(t, err)
	rng.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
	for _, pid := range family {
		if pid == p.Pid() {
			must(t, p.Kill())
			continue
		}
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended with another
	}
}
