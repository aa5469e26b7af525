package main

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/lag"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// topStyle marks what stands out. What it tells is told without it too.
type topStyle struct{ title, head, bad func(string) string }

func unmarked(s string) string { return s }

// plain is for what is not a terminal.
var plain = topStyle{unmarked, unmarked, unmarked}

// coloured is for a terminal, light or dark.
var coloured = topStyle{
	title: func(s string) string { return lipgloss.NewStyle().Bold(true).Reverse(true).Render(s) },
	head:  func(s string) string { return lipgloss.NewStyle().Faint(true).Render(s) },
	bad:   func(s string) string { return lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true).Render(s) },
}

// What is marked.
const (
	lateSeconds = 5    // that an event has waited
	fullShare   = 0.75 // of the memory for what waits
)

// topLines are the lines of a snapshot: queues, then views, then the slowest partitions.
func topLines(s operator.Snapshot, n int, style topStyle) (out []string) {
	waiting, oldest, at := 0.0, 0.0, ""
	for _, g := range s.Processes {
		waiting += g.Waiting()
		if o := g.Oldest(); o > oldest {
			oldest, at = o, " at "+chat.CleanLine(g.Process.Role.Role+" "+g.Process.Name)
		}
	}
	out = append(out, style.title(fmt.Sprintf("helio top  %s  waiting %.0f  oldest undelivered %s%s",
		s.At.Local().Format("15:04:05"), waiting, operator.Ago(oldest), at)), "")
	out = append(out, processLines(s, style)...)
	out = append(out, "")
	if s.Log != "" {
		return append(out, style.bad("the log does not answer: "+chat.CleanLine(s.Log)))
	}
	out = append(out, viewLines(s.Views, style)...)
	rows, _ := partitionRows(s.Views, false, n)
	if len(rows) > 0 {
		out = append(out, "")
		out = append(out, columns(partitionHeader, rows, style, nil)...)
	}
	return out
}

func processLines(s operator.Snapshot, style topStyle) []string {
	if s.Roster != "" {
		return []string{style.bad("the roster does not answer: " + chat.CleanLine(s.Roster))}
	}
	if len(s.Processes) == 0 {
		return []string{style.bad("no role tells that it runs")}
	}
	var rows []table.Row
	bad := map[int]bool{}
	for i, g := range s.Processes {
		p := g.Process
		if g.Error != "" {
			bad[i] = true
			rows = append(rows, table.Row{
				chat.CleanLine(p.Role.Role), chat.CleanLine(p.Name), "?", "", "", "", "", "", "", "", "",
				chat.CleanLine("no answer: " + g.Error),
			})
			continue
		}
		q := g.Queues
		share, memory := 0.0, ""
		if q[operator.BudgetLimit] > 0 {
			share = q[operator.BudgetUsed] / q[operator.BudgetLimit]
			memory = fmt.Sprintf("%.0f%%", 100*share)
		}
		bad[i] = g.Oldest() > lateSeconds || share > fullShare || q[operator.SlotsStalled] > 0
		show := func(name string) string {
			v, ok := q[name]
			if !ok {
				return ""
			}
			return fmt.Sprintf("%.0f", v)
		}
		rows = append(rows, table.Row{
			chat.CleanLine(p.Role.Role), chat.CleanLine(p.Name),
			show(operator.OutboxFrames), show(operator.OutboxBytes), show(operator.ProduceRecords),
			show(operator.FetchedRecords), show(operator.LinkFrames),
			operator.Ago(g.Oldest()), memory, show(operator.Connections), show(operator.SlotsStalled), slotsOwned(p),
		})
	}
	return columns(table.Row{
		"role", "name", "outboxes", "bytes", "produce", "fetched", "link", "oldest", "memory", "devices", "stalled",
		"slots",
	}, rows, style, bad)
}

func viewLines(views []lag.View, style topStyle) []string {
	bad := map[int]bool{}
	for i, v := range views {
		bad[i] = v.Error != "" || v.Unowned > 0 || v.Lost > 0 || v.Ahead > 0 || v.Seconds > lateSeconds
	}
	out := columns(viewHeader, viewRows(views), style, bad)
	for _, v := range views {
		if v.Error != "" {
			out = append(out, style.bad(v.View+": "+chat.CleanLine(v.Error)))
		}
	}
	return out
}

// columns are the lines of a table; bad names rows that are marked.
func columns(header table.Row, rows []table.Row, style topStyle, bad map[int]bool) []string {
	cells := make([][]string, 0, len(rows)+1)
	wide := make([]int, len(header))
	for _, row := range append([]table.Row{header}, rows...) {
		line := make([]string, len(row))
		for i, c := range row {
			line[i] = fmt.Sprint(c)
			wide[i] = max(wide[i], ansi.StringWidth(line[i]))
		}
		cells = append(cells, line)
	}
	out := make([]string, len(cells))
	for i, line := range cells {
		var b strings.Builder
		for j, c := range line {
			b.WriteString(c)
			if j < len(line)-1 {
				b.WriteString(strings.Repeat(" ", wide[j]-ansi.StringWidth(c)+2))
			}
		}
		text := strings.TrimRight(b.String(), " ")
		switch {
		case i == 0:
			text = style.head(text)
		case bad[i-1]:
			text = style.bad(text)
		}
		out[i] = text
	}
	return out
}

// fit cuts lines to a width.
func fit(lines []string, width int) string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = ansi.Truncate(l, width, "…")
	}
	return strings.Join(out, "\n")
}
