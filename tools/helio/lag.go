package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/delivery"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/lag"
	"heliograph/infra/run"
	"heliograph/infra/views"
	"heliograph/tools/operator"
)

// deploymentFlags find a deployment's log and stores, for commands that only read.
type deploymentFlags struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	DeliveryGroup string `help:"Consumer group of the delivery instances; default: after --topic-prefix." placeholder:"GROUP" env:"HELIO_DELIVERY_GROUP"`
}

// deployment is what the flags say, or the helio dev of this machine.
func (f *deploymentFlags) deployment(ctx context.Context, log *slog.Logger, name string) (operator.Deployment, error) {
	if err := f.fill(ctx, &f.kafkaFlags, &f.postgresFlags, &f.clickhouseFlags); err != nil {
		return operator.Deployment{}, err
	}
	cfg := f.kafkaFlags.config(log, nil, "helio-"+name)
	group := f.DeliveryGroup
	if group == "" {
		group = delivery.Group(cfg)
	}
	return operator.Deployment{
		Kafka: cfg, Postgres: f.postgresFlags.config(log, nil, name, 2),
		ClickHouse: f.clickhouseFlags.config(log, nil, name),
		Sources: func(cl *kgo.Client, b *kafka.Bases, v *views.Views, h *history.History) []lag.Source {
			return viewSources(cl, cfg, b, v, h, f.PostgresSchema, f.ClickhouseDatabase, group)
		},
	}, nil
}

// lagCmd tells how far the views are behind. It only reads.
type lagCmd struct {
	deploymentFlags
	outputFlags
	View  string        `help:"Which view: threads (Postgres), history (ClickHouse), delivery or all." enum:"threads,history,delivery,all" default:"all"`
	All   bool          `help:"Show every partition, not only those that are behind."`
	N     int           `short:"n" help:"How many partitions are shown, those that are furthest behind first; with --all every one." default:"20"`
	Watch bool          `short:"w" help:"Go on, until interrupted; JSON comes as a line each time."`
	Every time.Duration `help:"Over how long rates are measured, and how often --watch shows them; 0: no rates." default:"2s"`
}

// Help shows how it is used.
func (lagCmd) Help() string {
	return `Examples:
  helio lag
  helio lag --watch
  helio lag --view threads --all -o json

The stores are asked how far the views are, and the log where it ends; no role is asked, so a view of which every
projector is dead shows too. How old a lag is, is the age of the first record that the view lacks. Delivery stores
nothing: what is shown of it is what its instances commit to Kafka every few seconds, so that much of its lag may be
over already.

The rates are of records taken in and of records that came; the time to catch up is what the two make together, and
"never" where more comes than is taken in. "lost" are records that the log has no more and the view never took in,
"ahead" positions that a view has and the log does not: the log was cut, or set back.

The exit code is 0 when every view could be asked, however far behind it is ('helio check' judges that), and else 1.`
}

// Run asks and prints.
func (c *lagCmd) Run(ctx context.Context, log *slog.Logger) error {
	if c.Every < 0 || c.Every == 0 && c.Watch {
		return fmt.Errorf("--every %v is too short", c.Every)
	}
	d, err := c.deployment(ctx, log, "lag")
	if err != nil {
		return err
	}
	l, err := operator.OpenLag(ctx, d)
	if err != nil {
		return err
	}
	defer l.Close()
	all, err := l.Ask(ctx)
	if err != nil {
		return err
	}
	if !c.Watch {
		if c.Every > 0 {
			if !run.Sleep(ctx, c.Every) {
				return ctx.Err()
			}
			if all, err = l.Ask(ctx); err != nil {
				return err
			}
		}
		all = c.chosen(all)
		if err := c.show(os.Stdout, all); err != nil {
			return err
		}
		return unanswered(all)
	}
	screen := isTerminal(os.Stdout)
	for {
		if screen && c.Output == "table" {
			fmt.Print("\x1b[H\x1b[2J")
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "helio: %v\n", err) // it may be there again
		} else if err := c.show(os.Stdout, c.chosen(all)); err != nil {
			return err
		}
		if !run.Sleep(ctx, c.Every) {
			return nil // a signal is how it is ended
		}
		all, err = l.Ask(ctx)
	}
}

func (c *lagCmd) chosen(all []lag.View) []lag.View {
	return slices.DeleteFunc(all, func(v lag.View) bool { return c.View != "all" && c.View != v.View })
}

// unanswered says which views could not be asked.
func unanswered(all []lag.View) error {
	var errs []error
	for _, v := range all {
		if v.Error != "" {
			errs = append(errs, fmt.Errorf("how far %s is, is not known: %s", v.View, v.Error))
		}
	}
	return errors.Join(errs...)
}

// show prints the views, and the partitions that are behind.
func (c *lagCmd) show(w io.Writer, all []lag.View) error {
	if c.Output == "json" {
		if !c.Watch {
			return printJSON(w, all)
		}
		b, err := json.Marshal(all)
		if err != nil {
			return fmt.Errorf("write json: %w", err)
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	writeTable(w, viewHeader, viewRows(all))
	rows, more := partitionRows(all, c.All, c.N)
	if len(rows) > 0 {
		fmt.Fprintln(w)
		writeTable(w, partitionHeader, rows)
	}
	if more > 0 {
		fmt.Fprintf(w, "and partitions that are less far behind: %d (-n %d shows more)\n", more, c.N)
	}
	for _, v := range all {
		switch {
		case v.Error != "":
			fmt.Fprintf(w, "%s: %s\n", v.View, v.Error)
		case v.GroupError != "":
			fmt.Fprintf(w, "%s: owners not known: %s\n", v.View, v.GroupError)
		}
	}
	return nil
}

var viewHeader = table.Row{
	"view", "generation", "records", "behind", "taken in/s", "arriving/s", "catch-up", "slots behind", "no owner",
	"owners", "lost", "ahead",
}

func viewRows(all []lag.View) (rows []table.Row) {
	for _, v := range all {
		unowned, owners := fmt.Sprint(v.Unowned), cut(strings.Join(v.Owners, " "), 40)
		if v.GroupError != "" {
			unowned = "?"
		}
		if v.Error != "" {
			rows = append(rows, table.Row{v.View, "", "?", "?", "", "", "", "", unowned, owners, "", ""})
			continue
		}
		rows = append(rows, table.Row{
			v.View, v.Generation, v.Records, behind(v.Seconds, v.AtLeast), number(v.Rate), number(v.Arrivals),
			catchUp(v.Flow), fmt.Sprintf("%d of %d", v.Lagging, v.Slots), unowned, owners, v.Lost, v.Ahead,
		})
	}
	return rows
}

var partitionHeader = table.Row{
	"view", "topic", "slot", "next", "end", "records", "behind", "taken in/s", "catch-up", "owner", "generation",
}

// partitionRows are those of the partitions that are furthest behind, at most n; all of them, in order, if all.
func partitionRows(views []lag.View, all bool, n int) (rows []table.Row, more int) {
	type place struct {
		lag.Place
		view, generation string
	}
	var places []place
	for _, v := range views {
		for _, p := range v.Places {
			if all || p.Records > 0 || p.Lost > 0 || p.Ahead > 0 {
				places = append(places, place{p, v.View, v.Generation})
			}
		}
	}
	if !all {
		slices.SortStableFunc(places, func(a, b place) int {
			return cmp.Or(
				cmp.Compare(b.Lost+b.Ahead, a.Lost+a.Ahead), cmp.Compare(b.Seconds, a.Seconds),
				cmp.Compare(b.Records, a.Records),
			)
		})
		more = max(0, len(places)-n)
		places = places[:min(len(places), n)]
	}
	for _, p := range places {
		owner := p.Owner
		if owner == "" {
			owner = "none"
		}
		rows = append(rows, table.Row{
			p.view, p.Topic, p.Slot, p.Next, p.End, p.Records, behind(p.Seconds, p.AtLeast), number(p.Rate),
			catchUp(p.Flow), owner, p.generation,
		})
	}
	return rows, more
}

// behind is the age of a lag.
func behind(seconds float64, atLeast bool) string {
	if atLeast {
		return ">" + operator.Ago(seconds)
	}
	return operator.Ago(seconds)
}

func number(n *float64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("%.1f", *n)
}

func catchUp(f lag.Flow) string {
	switch {
	case f.Rate == nil:
		return ""
	case f.CatchUp == nil:
		return "never"
	}
	return operator.Ago(*f.CatchUp)
}

// cut is a text of at most n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func writeTable(w io.Writer, header table.Row, rows []table.Row) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.AppendHeader(header)
	t.AppendRows(rows)
	t.Render()
}

func isTerminal(f *os.File) bool { return term.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb" }
