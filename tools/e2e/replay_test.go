package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/projector/generation"
)

// replayArgs are those of 'helio replay VIEW' for the cluster.
func (e *env) replayArgs(view string, more ...string) []string {
	args := append([]string{"replay", view, "--kafka", e.KafkaAddr(), "-o", "json"}, more...)
	if view == "postgres" {
		return append(args, "--postgres", e.PostgresURL())
	}
	return append(args, "--clickhouse", e.ClickHouseAddr())
}

func (e *env) replayCmd(view string, more ...string) (cmd *exec.Cmd, out, said *bytes.Buffer) {
	cmd = exec.Command(helio, e.replayArgs(view, more...)...)
	password := e.ClickHousePassword()
	cmd.Env = append(os.Environ(), "HELIO_CLICKHOUSE_PASSWORD="+password.Reveal())
	out, said = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, said
	return cmd, out, said
}

// replay runs one to its end.
func (e *env) replay(t *testing.T, view string, more ...string) generation.Summary {
	t.Helper()
	cmd, out, said := e.replayCmd(view, more...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("replay of %s: %v\n%s", view, err, clip(said.String()))
	}
	var sum generation.Summary
	must(t, json.Unmarshal(out.Bytes(), &sum))
	if !sum.Switched || !sum.Verified && !sum.Resumed {
		t.Errorf("replay of %s: %+v\n%s", view, sum, clip(said.String()))
	}
	t.Logf("replay of %s: generation %d, %d records, %.0f/s", view, sum.Generation.Number, sum.Records, sum.PerSecond)
	return sum
}

// killedReplay runs one and kills it after a while, if it has not ended by then.
func (e *env) killedReplay(t *testing.T, view string, after time.Duration) {
	t.Helper()
	cmd, _, said := e.replayCmd(view)
	must(t, cmd.Start())
	late := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer late.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() >= 0) {
		t.Errorf("replay of %s: %v\n%s", view, err, clip(said.String()))
	}
}

// connections is how often the device has been brought up to date: once for each connection.
func (d *device) connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced
}

// testReplay: P3 and P7. Both views are built anew beside the live ones while people chat, by processes that are killed
// on the way, and go over, and back: nobody is dropped, no read goes back, and nobody hears of it.
func testReplay(t *testing.T, e *env) {
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	ann.has(bob.say(bob.to(ann), "before"))
	bob.has(ann.say(ann.to(bob), "before"))
	connections := [2]int{ann.connections(), bob.connections()}
	wentBack := e.watchPositions(t)
	f := flow(t, 30*time.Millisecond, &line{from: ann, to: ann.to(bob)}, &line{from: bob, to: bob.to(ann)})
	f.goOn(10)
	r := random(t)
	kills := number(t, "HELIO_E2E_REPLAY_KILLS", 3)
	for range kills {
		e.killedReplay(t, "postgres", time.Duration(200+r.IntN(2500))*time.Millisecond)
	}
	e.replay(t, "postgres")
	f.goOn(20)
	e.replay(t, "postgres", "--rollback")
	f.goOn(20)
	e.killedReplay(t, "clickhouse", time.Duration(500+r.IntN(4000))*time.Millisecond)
	e.replay(t, "clickhouse")
	f.goOn(20)
	e.replay(t, "clickhouse", "--rollback")
	f.goOn(20)
	f.finish()
	e.agree(t, ann, bob)
	if complaint := wentBack(); complaint != "" {
		t.Error(complaint)
	}
	if got := [2]int{ann.connections(), bob.connections()}; got != connections {
		t.Errorf("devices had connected %v times and have %v after the replays", connections, got)
	}
	e.viewsAgree(t)

	// At rest nothing at all is heard of it.
	sms, err := os.ReadFile(e.SMS())
	must(t, err)
	logged, err := e.ends(e.context(t))
	must(t, err)
	pushed := [2]int{ann.total(), bob.total()}
	for _, view := range []string{"postgres", "clickhouse"} {
		e.replay(t, view)
		cmd, _, said := e.replayCmd(view, "--drop-old")
		if err := cmd.Run(); err != nil {
			t.Errorf("drop: %v\n%s", err, clip(said.String()))
		}
	}
	again, err := os.ReadFile(e.SMS())
	must(t, err)
	if string(again) != string(sms) {
		t.Error("a replay sent SMS")
	}
	now, err := e.ends(e.context(t))
	must(t, err)
	if diff := cmp.Diff(logged, now); diff != "" {
		t.Errorf("a replay appended to the log (-before +after):\n%s", diff)
	}
	if got := [2]int{ann.total(), bob.total()}; got != pushed {
		t.Errorf("devices had %v events and have %v after the replays", pushed, got)
	}
	m := ann.say(ann.to(bob), "rebuilt")
	bob.has(m)
	e.agree(t, ann, bob)
	e.viewsAgree(t)
}
