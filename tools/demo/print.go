package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
)

// width is what the output fits into.
const width = 80

// Printer shows a demo as it goes on, in 80 columns. Colours are left out where the writer is no terminal.
type Printer struct {
	w       io.Writer
	chapter string
}

// NewPrinter returns a printer; environ says what the terminal can show.
func NewPrinter(w io.Writer, environ []string) *Printer {
	return &Printer{w: colorprofile.NewWriter(w, environ)}
}

// The sixteen colours of the terminal: they follow its theme, light or dark.
var (
	headStyle = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Cyan)
	boldStyle = lipgloss.NewStyle().Bold(true)
	dimStyle  = lipgloss.NewStyle().Faint(true)
	goodStyle = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Green)
	badStyle  = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)
)

// Head shows what is about to be seen.
func (p *Printer) Head() {
	p.line("")
	p.line("  " + headStyle.Render("HELIOGRAPH") + "  " + "a conversation with failures on the way")
	p.line("  " + dimStyle.Render(fmt.Sprintf("%8s    %-54s %9s", "since", "what happened", "took")))
}

// Step shows a step.
func (p *Printer) Step(s Step) {
	if s.Chapter != p.chapter {
		p.chapter = s.Chapter
		p.line("")
		p.line("  " + headStyle.Render(s.Chapter))
	}
	sign := goodStyle.Render("✔")
	if s.Error != "" {
		sign = badStyle.Render("✘")
	}
	p.line(fmt.Sprintf("  %s  %s %s %s",
		dimStyle.Render(pad(span(s.AtMS), -8)), sign, pad(s.Name, 54), dimStyle.Render(pad(span(s.TookMS), -9))))
	for _, n := range s.Notes {
		p.indented(n, dimStyle)
	}
	if s.Query != "" {
		p.indented(s.Query, dimStyle)
	}
	if s.Table != nil {
		p.table(*s.Table)
	}
	if s.Error != "" {
		p.indented(s.Error, badStyle)
	}
}

// End shows the differences and the verdict.
func (p *Printer) End(r Result) {
	p.line("")
	for _, c := range r.Views {
		differences(p, c.Place, c.Differences)
	}
	for _, c := range r.Comparisons {
		differences(p, c.Place, c.Differences)
	}
	sign, style := "✔", goodStyle
	if !r.OK {
		sign, style = "✘", badStyle
	}
	lines := wrap(r.Verdict, width-16)
	for i, l := range lines {
		left := strings.Repeat(" ", 12)
		if i == 0 {
			left = "  " + dimStyle.Render(pad(span(r.TookMS), -8)) + "  "
			l = sign + " " + l
		} else {
			l = "  " + l
		}
		p.line(left + style.Render(l))
	}
	p.line("")
}

// differences shows the first of a place.
func differences[D fmt.Stringer](p *Printer, place string, all []D) {
	const most = 5
	for i, d := range all {
		if i == most {
			p.indented(fmt.Sprintf("and %d more", len(all)-most), badStyle)
			return
		}
		p.indented(place+": "+d.String(), badStyle)
	}
}

func (p *Printer) indented(text string, style lipgloss.Style) {
	for line := range strings.Lines(text) {
		for _, l := range wrap(strings.TrimRight(line, "\n"), width-14) {
			p.line(strings.Repeat(" ", 14) + style.Render(l))
		}
	}
}

// table shows columns as wide as they need to be; the last one is cut at the edge.
func (p *Printer) table(t Table) {
	widths := make([]int, len(t.Header))
	number := make([]bool, len(t.Header))
	for i, h := range t.Header {
		widths[i], number[i] = lipgloss.Width(h), len(t.Rows) > 0
		for _, r := range t.Rows {
			widths[i] = max(widths[i], lipgloss.Width(r[i]))
			number[i] = number[i] && strings.Trim(r[i], "0123456789.-") == ""
		}
	}
	row := func(cells []string, style lipgloss.Style) {
		var b strings.Builder
		for i, c := range cells {
			w := widths[i]
			if number[i] {
				w = -w
			}
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(pad(c, w))
		}
		p.line(strings.Repeat(" ", 14) + style.Render(cut(strings.TrimRight(b.String(), " "), width-14)))
	}
	row(t.Header, boldStyle)
	for _, r := range t.Rows {
		row(r, lipgloss.NewStyle())
	}
}

func (p *Printer) line(s string) {
	_, _ = fmt.Fprintln(p.w, s) // the exit code tells what matters
}

// span shows a time in at most 9 columns.
func span(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.2fs", time.Duration(ms*float64(time.Millisecond)).Seconds())
}

// pad fills a text up to a width, to the left of it when that is negative, and cuts what is longer.
func pad(s string, w int) string {
	right := w < 0
	if right {
		w = -w
	}
	s = cut(s, w)
	fill := strings.Repeat(" ", w-lipgloss.Width(s))
	if right {
		return fill + s
	}
	return s + fill
}

func cut(s string, w int) string {
	if lipgloss.Width(s) <= w {
		return s
	}
	r := []rune(s)
	for len(r) > 0 && lipgloss.Width(string(r))+1 > w {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

// wrap breaks a text at blanks, and what is too long anywhere.
func wrap(s string, w int) []string { return strings.Split(lipgloss.Wrap(s, w, " "), "\n") }
