package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"heliograph/infra/run"
	"heliograph/tools/operator"
)

// topCmd shows what waits where. It only reads.
type topCmd struct {
	deploymentFlags
	outputFlags
	Once  bool          `help:"Print one snapshot and end; so it does where there is no terminal."`
	Every time.Duration `help:"How often everything is asked, and over how long rates are measured." default:"2s"`
	N     int           `short:"n" help:"How many of the slowest partitions are shown." default:"10"`
}

// Help shows how it is used.
func (topCmd) Help() string {
	return `Examples:
  helio top
  helio top --once
  helio top -o json

Queues come first, and of the processes the one in which most waits: what grows there is what will be late next. The
processes are found by what they tell the log ('helio status'), and are asked at their admin addresses; one that does
not answer within two seconds comes first of all. How far the views are behind is asked of the stores and the log.

Keys: q ends, up and down scroll.`
}

// Run shows the screen until it is left, or prints one snapshot.
func (c *topCmd) Run(ctx context.Context, log *slog.Logger) error {
	if c.Every <= 0 || c.N < 0 {
		return fmt.Errorf("--every %v or -n %d is too small", c.Every, c.N)
	}
	d, err := c.deployment(ctx, log, "top")
	if err != nil {
		return err
	}
	l, err := operator.OpenLag(ctx, d)
	if err != nil {
		return err
	}
	defer l.Close()
	look := func() operator.Snapshot { return operator.Look(ctx, d.Kafka, l) }
	if c.Once || c.Output == "json" || !isTerminal(os.Stdout) || !isTerminal(os.Stdin) {
		if _, err := l.Ask(ctx); err != nil { // rates take two
			return err
		}
		if !run.Sleep(ctx, c.Every) {
			return ctx.Err()
		}
		s := look()
		if c.Output == "json" {
			return printJSON(os.Stdout, s)
		}
		_, err := fmt.Println(strings.Join(topLines(s, c.N, plain), "\n"))
		return err
	}
	m := &topModel{look: look, every: c.Every, n: c.N, style: coloured}
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return nil // a signal is how it is ended
	}
	return err
}

// topModel is the live screen. Only bubbletea's goroutine calls it.
type topModel struct {
	look  func() operator.Snapshot
	every time.Duration
	n     int
	style topStyle

	seen          *operator.Snapshot // nil: not yet
	width, height int
	from          int // the first line that is shown
}

type topTick struct{}

func (m *topModel) ask() tea.Msg { return m.look() }

// Init asks for the first time.
func (m *topModel) Init() tea.Cmd { return m.ask }

// Update takes an answer, a key or a size.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case operator.Snapshot:
		m.seen = &msg
		return m, tea.Tick(m.every, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		return m, m.ask
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "up", "k":
			m.from--
		case "down", "j":
			m.from++
		case "pgup":
			m.from -= m.height
		case "pgdown":
			m.from += m.height
		}
	}
	return m, nil
}

// View draws the screen.
func (m *topModel) View() tea.View {
	v := tea.NewView("")
	v.AltScreen = true
	v.WindowTitle = "helio top"
	lines := []string{"asking …"}
	if m.seen != nil {
		lines = topLines(*m.seen, m.n, m.style)
	}
	m.from = max(0, min(m.from, len(lines)-m.height))
	lines = lines[m.from:min(len(lines), m.from+max(1, m.height))]
	v.SetContent(fit(lines, m.width))
	return v
}
