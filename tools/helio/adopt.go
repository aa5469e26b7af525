package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/views"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// logCheckCmd holds the log against where the views stand in it. It only reads.
type logCheckCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
}

// Help shows how it is used.
func (logCheckCmd) Help() string {
	return `Examples:
  helio log check
  helio log check -o json

Every view keeps, with each position, the identity of the record before it. This tells whether each of them still is in
the log: whether a partition was set back (restored from an older copy, an unclean election, a power cut), made anew,
changed or cut at its head. While one is, no edge acknowledges anything in it, and the views take nothing in.

The way out is to bring the right log back, after which all goes on by itself; or 'helio log adopt'.

The exit code is 0 when nothing is wrong, and else 1.`
}

// Run prints what is wrong.
func (c *logCheckCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags); err != nil {
		return err
	}
	a, err := readAdoption(ctx, c.kafkaFlags, c.postgresFlags, c.clickhouseFlags, log)
	if err != nil {
		return err
	}
	if err := a.print(c.outputFlags); err != nil {
		return err
	}
	if len(a.Faults) > 0 {
		return errFound
	}
	return nil
}

// logAdoptCmd makes what is there the log.
type logAdoptCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
	Note   string `help:"Why; it stands in the log beside the decision." placeholder:"WORDS"`
	DryRun bool   `help:"Show what would be decided, and decide nothing."`
	Yes    bool   `short:"y" help:"Do not ask."`
}

// Help shows how it is used.
func (logAdoptCmd) Help() string {
	return `Examples:
  helio log adopt --dry-run
  helio log adopt --note "broker 2 restored from the backup of noon"

For every partition that is not the log that was read: what the views share with it keeps its positions; what was
appended since gets positions past all that were ever told, so that devices, cursors and views go on without meeting a
position twice; and what was acknowledged and is not there any more is given up for good. The decision is an event in
helio.quarantine, which every role and every later rebuild obeys. Edges acknowledge again within seconds.

A view that had read what was given up takes nothing in until it is rebuilt: 'helio replay postgres' and 'helio replay
clickhouse' do that beside the live one.

All roles must be of this version: an older one does not know the new positions. Should it fail when the decision is
already in helio.quarantine ('helio log tail quarantine' shows it), restart the roles: they learn of it at their start.`
}

// Run decides.
func (c *logAdoptCmd) Run(ctx context.Context, log *slog.Logger) error {
	if len(c.Note) > 1024 {
		return fmt.Errorf("--note has %d bytes, at most 1024", len(c.Note))
	}
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags); err != nil {
		return err
	}
	a, err := readAdoption(ctx, c.kafkaFlags, c.postgresFlags, c.clickhouseFlags, log)
	if err != nil {
		return err
	}
	if err := a.print(c.outputFlags); err != nil {
		return err
	}
	if c.DryRun || len(a.Plan) == 0 {
		return nil
	}
	if !c.Yes {
		if err := confirm(os.Stdin, os.Stderr,
			fmt.Sprintf("Adopt %d partitions as they are, and give up what is not there?", len(a.Plan))); err != nil {
			return err
		}
	}
	if !c.Yes { // whoever was asked may have taken his time
		now, err := readAdoption(ctx, c.kafkaFlags, c.postgresFlags, c.clickhouseFlags, log)
		if err != nil {
			return err
		}
		if !slices.Equal(now.Plan, a.Plan) {
			return errors.New("the log has changed meanwhile, nothing was adopted: look again")
		}
	}
	for i := range a.Plan {
		a.Plan[i].Note = c.Note
	}
	if err := kafka.Adopt(ctx, c.kafkaFlags.config(log, nil, "helio-log"), a.Plan); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "adopted: %d partitions go on from what is there\n", len(a.Plan))
	for _, v := range a.Rebuild {
		fmt.Fprintf(os.Stderr, "rebuild %s: helio replay %s\n", v, map[string]string{
			viewThreads: "postgres", viewHistory: "clickhouse",
		}[v])
	}
	return nil
}

// confirm asks a person on a terminal; elsewhere --yes has to be given.
func confirm(in *os.File, out io.Writer, question string) error {
	if st, err := in.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return errors.New("this asks first, on a terminal; without one, give --yes")
	}
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// errFound ends a command whose output has said what is wrong.
var errFound = errors.New("the log is not the one that was read")

// The views, as people call them.
const (
	viewThreads = "the thread views"
	viewHistory = "the history"
)

// adoption is what is wrong with the log, and what adopting it would decide.
type adoption struct {
	Faults  []fault        `json:"faults"`
	Plan    []kafka.Opened `json:"plan"`
	Rebuild []string       `json:"rebuild"` // views that have read what is not there
}

// fault is what is wrong with a partition for a view.
type fault struct {
	View      string         `json:"view"`
	Topic     topic.Topic    `json:"topic"`
	Partition topic.Slot     `json:"partition"`
	Fault     kafka.Fault    `json:"fault"`
	Next      topic.Position `json:"next"` // the view's
	At        topic.Position `json:"at"`   // where the log ends, or begins
}

func readAdoption(
	ctx context.Context, kf kafkaFlags, pf postgresFlags, cf clickhouseFlags, log *slog.Logger,
) (*adoption, error) {
	cfg := kf.config(log, nil, "helio-log")
	s, err := operator.OpenStores(ctx, pf.config(log, nil, "helio-log", 2), cf.config(log, nil, "helio-log"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	l, err := operator.Open(ctx, cfg, topic.Threads)
	if err != nil {
		return nil, err
	}
	cfg.Partitions = l.Partitions()
	l.Close()
	return planAdoption(ctx, cfg, nil, s.Views, s.History)
}

// planAdoption holds the log against both views. Without bases they are loaded.
func planAdoption(
	ctx context.Context, cfg kafka.Config, bases *kafka.Bases, v *views.Views, h *history.History,
) (*adoption, error) {
	if bases == nil {
		cl, err := kafka.Dial(cfg)
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		if bases, err = kafka.LoadBases(ctx, cl, cfg, topic.Folded, cfg.Partitions); err != nil {
			return nil, err
		}
	}
	threads, err := operator.Standing(ctx, v)
	if err != nil {
		return nil, err
	}
	past, err := operator.StandingOfHistory(ctx, h)
	if err != nil {
		return nil, err
	}
	a := &adoption{Faults: []fault{}, Rebuild: []string{}}
	for _, view := range []struct {
		name string
		at   []kafka.Standing
	}{{viewThreads, threads}, {viewHistory, past}} {
		faults, err := kafka.Look(ctx, cfg, bases, view.at)
		if err != nil {
			return nil, err
		}
		rebuild := false
		for _, f := range faults {
			a.Faults = append(a.Faults, fault{view.name, f.Topic, f.Slot, f.Fault, f.Next, f.At})
			rebuild = rebuild || f.Fault != kafka.FaultCut
		}
		if rebuild {
			a.Rebuild = append(a.Rebuild, view.name)
		}
	}
	a.Plan, _, err = kafka.PlanAdoption(ctx, cfg, bases, append(threads, past...))
	if a.Plan == nil {
		a.Plan = []kafka.Opened{}
	}
	return a, err
}

// lost returns how many positions that were read are not in the log, as far as is known.
func (a *adoption) lost() (n int64) {
	for _, o := range a.Plan {
		n += max(0, int64(o.Read)-max(o.From, 0))
	}
	return n
}

// print shows the faults and, by partition, what adopting would keep.
func (a *adoption) print(out outputFlags) error {
	if out.Output == "json" {
		return printJSON(os.Stdout, a)
	}
	if len(a.Faults) == 0 {
		fmt.Println("the log is the one that both views have read")
		return nil
	}
	rows := make([]table.Row, len(a.Faults))
	for i, f := range a.Faults {
		rows[i] = table.Row{f.View, f.Topic, f.Partition, f.Fault, f.Next, f.At}
	}
	err := out.print(a, table.Row{"view", "topic", "partition", "the log was", "view read up to", "log is at"}, rows)
	if err != nil || len(a.Plan) == 0 {
		return err
	}
	fmt.Println("\nAdopting what is there:")
	rows = make([]table.Row, len(a.Plan))
	for i, o := range a.Plan {
		rows[i] = table.Row{o.Topic, o.Slot, o.First, o.From, o.Read, o.Base + topic.Position(o.From)}
	}
	return out.print(a, table.Row{
		"topic", "partition", "begins at offset", "kept up to offset", "was read up to", "goes on at position",
	}, rows)
}
