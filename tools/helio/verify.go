package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/clickhouse"
	"heliograph/infra/postgres"
	"heliograph/projector/verify"
	"heliograph/schemas/topic"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// verifyCmd compares the views with the log. It only reads.
type verifyCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
	View      string        `help:"Which view: threads (Postgres), history (ClickHouse) or all." enum:"threads,history,all" default:"all"`
	Partition []int         `help:"Only these partitions; default: all." placeholder:"N"`
	Retention time.Duration `help:"How long the projector of the thread views keeps messages." default:"720h" env:"HELIO_RETENTION"`
	N         int           `short:"n" help:"How many differences of a view are shown." default:"20"`
}

// Help shows how it is used.
func (verifyCmd) Help() string {
	return `Examples:
  helio verify
  helio verify --view threads --partition 3 --partition 4
  helio verify -n 100 -o json

Each view is read as of one moment, together with the positions up to which it has taken in the log; then the log is
folded anew, in memory, up to those positions, and every row is compared. The projectors may go on meanwhile. It reads
only, with no consumer group, and nothing that it folds has an effect.

It reads whole tables and the whole log of the partitions. Memory holds the rows of a view twice, long values as
digests; to need less, name some partitions at a time. Watermarks of devices that told of more during the comparison
cannot be judged, because the log compacts receipts; they are counted.

A view that has taken in events of a newer version can only be compared by that version; an older one says so.

The exit code is 0 when every view that was compared is what the log gives, and else 1: something differs, or the log
does not reach as far as the view.`
}

// verified is what helio verify says as JSON of a view.
type verified struct {
	*verify.Report
	Equal      bool `json:"equal"`
	Comparable bool `json:"comparable"`
	Different  int  `json:"different"` // all of them; the first are shown
}

// Run compares the views, one after the other.
func (c *verifyCmd) Run(ctx context.Context, log *slog.Logger) error {
	if c.N < 0 {
		return fmt.Errorf("-n %d is negative", c.N)
	}
	if err := checkRetention(c.Retention); err != nil {
		return err
	}
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags); err != nil {
		return err
	}
	cfg := verify.Config{Kafka: c.kafkaFlags.config(log, nil, "helio-verify"), Retention: c.Retention}
	l, err := operator.Open(ctx, cfg.Kafka, topic.Threads)
	if err != nil {
		return err
	}
	cfg.Partitions = l.Partitions()
	l.Close()
	for _, n := range c.Partition {
		if n < 0 || n >= cfg.Partitions {
			return fmt.Errorf("the log has no partition %d: --partition is 0 to %d", n, cfg.Partitions-1)
		}
		cfg.Slots = append(cfg.Slots, topic.Slot(n))
	}
	var out []verified
	for _, v := range []struct {
		name    string
		compare func(context.Context, *slog.Logger, verify.Config) (*verify.Report, error)
	}{{"threads", c.threads}, {"history", c.history}} {
		if c.View != "all" && c.View != v.name {
			continue
		}
		r, err := v.compare(ctx, log, cfg)
		if err != nil {
			return err
		}
		different := len(r.Differences)
		equal, comparable := r.Equal(), r.Comparable()
		r.Differences = r.Differences[:min(different, c.N)]
		out = append(out, verified{r, equal, comparable, different})
	}
	if err := c.show(out); err != nil {
		return err
	}
	var errs []error
	for _, v := range out {
		switch {
		case !v.Comparable:
			errs = append(errs, fmt.Errorf("the log does not reach as far as the %s do", viewName(v.View)))
		case !v.Equal && v.Newer > 0:
			errs = append(errs, fmt.Errorf("the %s hold events of a newer version, which this one cannot read "+
				"(of %d threads and users): only that version can compare them", viewName(v.View), v.Newer))
		case !v.Equal:
			errs = append(errs, fmt.Errorf("the %s differ from the log in %d rows", viewName(v.View), v.Different))
		}
	}
	return errors.Join(errs...)
}

func viewName(view string) string {
	if view == "threads" {
		return "thread views"
	}
	return "rows of the history"
}

func (c *verifyCmd) threads(ctx context.Context, log *slog.Logger, cfg verify.Config) (*verify.Report, error) {
	pool, err := postgres.Open(ctx, c.postgresFlags.config(log, nil, "verify", 2))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return verify.Threads(ctx, cfg, pool)
}

func (c *verifyCmd) history(ctx context.Context, log *slog.Logger, cfg verify.Config) (*verify.Report, error) {
	conn, err := clickhouse.Open(c.clickhouseFlags.config(log, nil, "verify"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // read only
	return verify.History(ctx, cfg, conn)
}

// show prints a line for each table and each topic, and then the differences.
func (c *verifyCmd) show(out []verified) error {
	var rows []table.Row
	for _, v := range out {
		for _, t := range v.Tables {
			state := "equal"
			if t.Different > 0 {
				state = fmt.Sprintf("%d different", t.Different)
			}
			rows = append(rows, table.Row{v.View, t.Name, t.Got, t.Want, state})
		}
	}
	if err := c.print(out, table.Row{"view", "table", "rows", "of the log", "state"}, rows); err != nil {
		return err
	}
	if c.Output == "json" {
		return nil
	}
	for _, v := range out {
		fmt.Fprintf(os.Stdout, "\n%s: %s", v.View, v.summary())
		for _, d := range v.Differences {
			fmt.Fprintf(os.Stdout, "  %s\n", chat.CleanLine(told(d))) // people wrote some of it
		}
	}
	return nil
}

// summary says up to where a view was compared.
func (v verified) summary() string {
	var b strings.Builder
	partitions, events := map[topic.Topic]int{}, map[topic.Topic]topic.Position{}
	for _, p := range v.Places {
		partitions[p.Topic]++
		events[p.Topic] += p.Next
	}
	for i, t := range topic.Folded {
		if partitions[t] == 0 {
			continue
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: partitions %d, events %d", t, partitions[t], events[t])
	}
	if len(v.Places) == 0 {
		b.WriteString("it has taken in nothing yet")
	}
	fmt.Fprintf(&b, "\n  differences %d (shown %d), watermarks not judged %d\n",
		v.Different, len(v.Differences), v.Moved)
	if v.Newer > 0 {
		fmt.Fprintf(
			&b, "  threads and users with events of a newer version %d: the differences may come of these alone\n",
			v.Newer,
		)
	}
	for _, p := range v.Places {
		if p.Log < p.Next {
			fmt.Fprintf(&b, "  not comparable: %s partition %d has position %d, the log ends at %d\n",
				p.Topic, p.Slot, p.Next, p.Log)
		}
	}
	return b.String()
}

// told says a difference in one line: of a row that is there only the columns that differ.
func told(d verify.Difference) string {
	if len(d.Columns) == 0 {
		return d.String()
	}
	parts := make([]string, len(d.Columns))
	for i, c := range d.Columns {
		parts[i] = fmt.Sprintf("%s is %s, want %s", c.Name, c.Got, c.Want)
	}
	return d.Table + " " + d.Key + ": " + strings.Join(parts, "; ")
}
