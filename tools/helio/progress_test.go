package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/projector/generation"
)

func at(done int64) generation.Progress {
	return generation.Progress{
		Generation: 2, Phase: generation.PhaseFill, Done: done, Total: 400, Rate: 50, Left: 7 * time.Second,
		Slots: []generation.SlotProgress{{Slot: 0, Done: done / 2, Total: 200}, {Slot: 1, Done: done / 2, Total: 200}},
	}
}

// Without a terminal a line comes at once, with each phase, and every ten seconds.
func TestProgressWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{
		out: &out, now: func() time.Time { return now }, size: func() (int, int, bool) { return 0, 0, false },
	}
	for i := range 25 {
		p.show(at(int64(i)))
		now = now.Add(time.Second)
	}
	p.show(generation.Progress{Generation: 2, Phase: generation.PhaseVerify})
	p.end()
	want := []string{
		"generation 2: filling, 0%, 0 of 400 records, 50/s, 7s left",
		"generation 2: filling, 2%, 10 of 400 records, 50/s, 7s left",
		"generation 2: filling, 5%, 20 of 400 records, 50/s, 7s left",
		"generation 2: verifying", "",
	}
	if diff := cmp.Diff(want, strings.Split(out.String(), "\n")); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// On a terminal there is a bar for each partition where there is room, and the one for all in any case; each drawing
// takes the place of the one before.
func TestProgressOnATerminal(t *testing.T) {
	for name, c := range map[string]struct{ height, lines int }{
		"high": {24, 4}, "low": {4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &progress{out: &out, now: time.Now, size: func() (int, int, bool) { return 40, c.height, true }}
			p.show(at(200))
			first := out.String()
			if n := strings.Count(first, "\n"); n != c.lines {
				t.Errorf("%d lines, want %d: %q", n, c.lines, first)
			}
			if !strings.Contains(first, "  all [============            ]  50%") {
				t.Errorf("no bar of all in %q", first)
			}
			out.Reset()
			p.show(at(400))
			if up := "\x1b[" + string(rune('0'+c.lines)) + "A"; !strings.HasPrefix(out.String(), up) {
				t.Errorf("it is not drawn over: %q", out.String())
			}
		})
	}
}
