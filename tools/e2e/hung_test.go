package e2e

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"

	"heliograph/edge/client"
	"heliograph/infra/embedded"
	"heliograph/schemas/id"
	"heliograph/tools/cluster"
)

// testHung: P5 and P4 with both stores there and hung: they take connections and answer nothing. People who are
// connected go on, a revoked device is cut, and the views catch up.
func testHung(t *testing.T, e *env) {
	const most = 15 * time.Second
	p := e.crowd(t, 4)
	a, b := p.devices[0], p.devices[3]
	lost := e.lose(t, a, "while the stores hang", 1)
	f := p.flow(t, 25*time.Millisecond)
	f.goOn(50)
	began := time.Now()
	thaw := e.freeze(t, embedded.Postgres, embedded.ClickHouse)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if e.pg.Ping(ctx) == nil || e.ch.Ping(ctx) == nil {
		t.Error("a store answers that is to hang")
	}
	cancel()
	a.cuts(lost...)
	f.lasts(min(outage(t), most))
	m := a.say(client.To{Thread: p.threads[0]}, "the views hang")
	b.has(m)
	a.acked(m)
	for _, d := range p.devices {
		if !d.u.Online() {
			t.Errorf("%s lost its connection because the stores hang", d.name)
		}
	}
	thaw()
	t.Logf("both stores hung for %v; %d messages so far", time.Since(began), f.total())
	f.goOn(20)
	f.finish()
	tr := e.agree(t, p.devices...)
	e.accounted(t, tr, f, p.devices...)
	e.viewsAgree(t)
}

// testSilent: P2 with an edge that hangs under traffic: it says nothing more, and its packets wait for it. Its devices
// go to the other edge and all goes on; when it wakes it takes up what it was sent before, which must not count twice.
func testSilent(t *testing.T, e *env) {
	p := e.crowd(t, 4)
	f := p.flow(t, 25*time.Millisecond)
	f.goOn(50)
	sleep(t, e.Edge(0))
	began := time.Now()
	said := make([]id.MessageID, len(p.devices))
	for i, d := range p.devices {
		said[i] = d.say(client.To{Thread: p.threads[0]}, "does anybody answer?")
	}
	for i, d := range p.devices {
		d.acked(said[i])
		d.has(said...)
	}
	t.Logf("all have heard from all after %.1f s; %d messages so far", time.Since(began).Seconds(), f.total())
	wake(t, e.Edge(0))
	f.goOn(50)
	f.finish()
	tr := e.agree(t, p.devices...)
	e.accounted(t, tr, f, p.devices...)
	e.viewsAgree(t)
}

// freeze pauses engines with all their processes; the returned function, or the test's end, lets them go on.
func (e *env) freeze(t *testing.T, kinds ...embedded.Kind) (thaw func()) {
	t.Helper()
	var pids []int
	thaw = func() {
		for _, pid := range slices.Backward(pids) { // one that has ended needs none
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	for _, k := range kinds {
		engine, ok := e.Engine(k).(cluster.Pausable)
		if !ok {
			t.Fatalf("%s is not a process of ours", k)
		}
		// Parents first, and again until there is nobody new: one that sleeps begins no other.
		for found := true; found; {
			found = false
			family, err := descendants(engine.Pid())
			must(t, err)
			for _, pid := range family {
				if slices.Contains(pids, pid) {
					continue
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
				pids, found = append(pids, pid), true
			}
		}
	}
	return thaw
}

// descendants are a process and all that it has begun, directly or not, parents before children.
func descendants(pid int) ([]int, error) {
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, p := range procs {
		if s, err := p.Stat(); err == nil { // else it has ended
			children[s.PPID] = append(children[s.PPID], p.PID)
		}
	}
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out, nil
}
