package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"

	"heliograph/projector/generation"
)

// progress shows how far a replay is: on a terminal a bar for all and one for each partition, as far as there is room;
// elsewhere a line every lineEvery. It belongs to one goroutine.
type progress struct {
	out   io.Writer
	size  func() (width, height int, ok bool) // of the terminal
	now   func() time.Time
	lines int // drawn last
	last  time.Time
	phase string
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func newProgress(f *os.File) *progress {
	return &progress{out: f, now: time.Now, size: func() (int, int, bool) {
		if !term.IsTerminal(f.Fd()) {
			return 0, 0, false
		}
		w, h, err := term.GetSize(f.Fd())
		return w, h, err == nil
	}}
}

func (p *progress) show(at generation.Progress) {
	width, height, terminal := p.size()
	if !terminal {
		if now := p.now(); at.Phase != p.phase || now.Sub(p.last) >= lineEvery {
			fmt.Fprintln(p.out, headline(at))
			p.last, p.phase = now, at.Phase
		}
		return
	}
	lines := []string{headline(at)}
	if len(at.Slots) > 0 {
		lines = append(lines, bar("all", at.Done, at.Total, width))
		if len(at.Slots)+len(lines) < height {
			for _, s := range at.Slots {
				lines = append(lines, bar(fmt.Sprint(s.Slot), s.Done, s.Total, width))
			}
		}
	}
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.lines)
	}
	for _, l := range lines {
		b.WriteString("\r\x1b[K" + l + "\n")
	}
	b.WriteString("\x1b[J")
	p.lines = len(lines)
	_, _ = io.WriteString(p.out, b.String()) // it is only shown
}

// end leaves what was shown last.
func (p *progress) end() { p.lines = 0 }

func headline(at generation.Progress) string {
	text := fmt.Sprintf("generation %d: %s", at.Generation, at.Phase)
	if at.Total == 0 {
		return text
	}
	text += fmt.Sprintf(", %s, %d of %d records, %.0f/s", percent(at.Done, at.Total), at.Done, at.Total, at.Rate)
	if at.Left > 0 {
		text += ", " + at.Left.Round(time.Second).String() + " left"
	}
	return text
}

func percent(done, total int64) string {
	if total == 0 {
		return "100%"
	}
	return fmt.Sprintf("%d%%", done*100/total)
}

// bar is a line of a terminal.
func bar(name string, done, total int64, width int) string {
	room := max(10, min(width-16, 60))
	full := room
	if total > 0 {
		full = int(done * int64(room) / total)
	}
	return fmt.Sprintf("%5s [%s%s] %4s", name, strings.Repeat("=", full), strings.Repeat(" ", room-full),
		percent(done, total))
}
