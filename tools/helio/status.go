package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// statusCmd shows which roles run. It only reads.
type statusCmd struct {
	kafkaFlags
	localFlags
	outputFlags
}

// Help shows how it is used.
func (statusCmd) Help() string {
	return `Examples:
  helio status
  helio status -o json

Every role tells the log every ten seconds that it runs: its version, which events it reads, where its admin server is
and how many slots of which view it owns. What was last heard is shown, of the last quarter of an hour. "silent" is one
that was heard no more and did not say that it stops: it is dead, or does not reach the log.

The exit code is 0 when a role runs, and else 1.`
}

// Run prints the roles.
func (c *statusCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, nil, nil); err != nil {
		return err
	}
	all, err := operator.Processes(ctx, c.config(log, nil, "helio-status"))
	if err != nil {
		return err
	}
	if err := c.show(os.Stdout, all, time.Now()); err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(p operator.Process) bool { return p.State == operator.StateRuns }) {
		return fmt.Errorf("no role has told %s within the last seconds that it runs", strings.Join(c.Kafka, ","))
	}
	return nil
}

func (c *statusCmd) show(w io.Writer, all []operator.Process, now time.Time) error {
	if c.Output == "json" {
		return printJSON(w, all)
	}
	var rows []table.Row
	for _, p := range all {
		version := p.Version
		if p.Commit != "" {
			version += " " + p.Commit[:min(len(p.Commit), 10)]
		}
		rows = append(rows, table.Row{
			p.Role.Role, chat.CleanLine(p.Name), p.State, chat.CleanLine(version), p.Reader, len(p.Types),
			operator.Ago(now.Sub(p.Started).Seconds()) + " ago", slotsOwned(p), chat.CleanLine(p.Admin),
			operator.Ago(max(0, now.Sub(p.Seen).Seconds())) + " ago",
		})
	}
	writeTable(w, table.Row{
		"role", "name", "state", "version", "reader", "event types", "started", "slots", "admin", "heard",
	}, rows)
	for _, p := range all {
		if len(p.Lacks) > 0 {
			fmt.Fprintf(w, "%s %s does not read events that others read: %s\n",
				p.Role.Role, chat.CleanLine(p.Name), chat.CleanLine(strings.Join(p.Lacks, ", ")))
		}
	}
	return nil
}

// slotsOwned is how many slots of which view a process owns.
func slotsOwned(p operator.Process) string {
	var parts []string
	for view, n := range p.Slots {
		parts = append(parts, fmt.Sprintf("%s %d", view, n))
	}
	slices.Sort(parts)
	return chat.CleanLine(strings.Join(parts, ", "))
}
