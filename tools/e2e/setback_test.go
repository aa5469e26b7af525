package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// TestDevAfterItsLogWasSetBack: P8 for helio dev. Its log loses the last messages that were acknowledged, as at a power
// cut, and the views and devices are ahead of it. It says so in one line and goes on: the views are what is left of the
// log, what is sent from then on reaches everybody once, and no position is told twice.
func TestDevAfterItsLogWasSetBack(t *testing.T) {
	if os.Getenv("HELIO_E2E_LOG") == "kafka" {
		t.Skip("HELIO_E2E_LOG=kafka")
	}
	e := startDev(t)
	dev := e.Edge(0)
	ann, bob := e.user(t, "ann"), e.user(t, "bob")
	chat := func(round string, n int) (ms []id.MessageID) {
		t.Helper()
		for i := range n {
			from, to := ann, bob
			if i%2 == 1 {
				from, to = bob, ann
			}
			ms = append(ms, from.say(from.to(to), fmt.Sprintf("%s %d", round, i)))
		}
		ann.has(ms...)
		bob.has(ms...)
		return ms
	}
	chat("kept", 6)
	e.viewsAgree(t)
	log := filepath.Join(e.Dir(), "data", "kafka")
	kept := filepath.Join(t.TempDir(), "kafka")
	must(t, dev.Stop(e.context(t)))
	must(t, os.CopyFS(kept, os.DirFS(log)))
	must(t, dev.Start(e.context(t)))
	lost := chat("lost", 7)
	e.viewsAgree(t)

	ann.leave()
	bob.leave()
	killFamily(t, dev, random(t))
	must(t, os.RemoveAll(log))
	must(t, os.CopyFS(log, os.DirFS(kept)))
	must(t, dev.Start(e.context(t)))
	said, err := os.ReadFile(dev.Log)
	must(t, err)
	if n := strings.Count(string(said), "the log is not the one that the views have read"); n != 1 {
		t.Errorf("the loss is told %d times, want once", n)
	}
	ann.come()
	bob.come()
	ann.waitSynced()
	bob.waitSynced()
	after := chat("after", 6)
	e.viewsAgree(t)
	told := make(map[topic.Position]bool)
	for i, m := range append(lost, after...) {
		p, ok := bob.place(m)
		if !ok || told[p.Position] || i >= len(lost) != (p.Position >= 1<<40) {
			t.Errorf("message %d of %d lost and %d more lies at %d", i, len(lost), len(after), p.Position)
		}
		told[p.Position] = true
	}
	must(t, dev.Kill()) // what was adopted stays so
	must(t, dev.Start(e.context(t)))
	chat("later", 2)
	e.viewsAgree(t)
	said, err = os.ReadFile(dev.Log)
	must(t, err)
	if n := strings.Count(string(said), "making the thread views anew"); n != 1 {
		t.Errorf("the thread views were made anew %d times, want once", n)
	}
}
