package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/budget"
	"heliograph/projector/generation"
	"heliograph/projector/history"
	"heliograph/projector/threads"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// replayCmd builds views anew, beside the live ones:
//
//	log ──all partitions, no group──▶ fold ──▶ a generation beside the live one ──compare, switch──▶ live
type replayCmd struct {
	Postgres   replayPostgresCmd   `cmd:"" help:"Build the thread views in Postgres anew, beside the live ones, and switch to them."`
	Clickhouse replayClickhouseCmd `cmd:"" help:"Build the history in ClickHouse anew, beside the live one, and switch to it."`
}

// Help shows how it is used.
func (replayCmd) Help() string {
	return `Examples:
  helio replay postgres --dry-run
  helio replay postgres
  helio replay postgres --rollback
  helio replay postgres --drop-old
  helio replay clickhouse --help`
}

// replayFlags are what a replay of any view is told.
type replayFlags struct {
	kafkaFlags
	localFlags
	outputFlags
	List     bool    `help:"Only show the generations that there are." xor:"what"`
	DryRun   bool    `help:"Only show what would be read: records, bytes and time." xor:"what"`
	Rollback bool    `help:"Go back to the generation that was live before: it catches up first." xor:"what,to"`
	DropOld  bool    `help:"Only drop the generations that were live, and those up to a place." xor:"what"`
	Abandon  bool    `help:"Only drop what an earlier replay has begun." xor:"what"`
	To       string  `help:"End at a time, or with the event at SLOT:POSITION of helio.threads; such a generation is to look at, and never goes live." placeholder:"TIME|SLOT:POSITION" xor:"to"`
	Thread   string  `help:"Only replay this thread, and mend its rows in place." placeholder:"ID" xor:"what,to"`
	NoSwitch bool    `help:"Build and compare, and leave the live generation live; the same command without it goes on from there."`
	NoVerify bool    `help:"Do not compare with the log before the switch: that takes memory for all rows, twice."`
	Rate     float64 `help:"Most records a second; 0: as fast as it goes." default:"0" env:"HELIO_REPLAY_RATE"`
	Memory   string  `help:"Memory that it reckons with; default: that of the cgroup, or half of the machine's." placeholder:"SIZE" env:"HELIO_REPLAY_MEMORY"`
}

// replayPostgresCmd replays the thread views.
type replayPostgresCmd struct {
	replayFlags
	postgresFlags
	User      string        `help:"Only replay this user, and mend its rows in place." placeholder:"ID" xor:"what,to"`
	Retention time.Duration `help:"How long messages stay in Postgres, as the projectors have it." default:"720h" env:"HELIO_RETENTION"`
}

// Help shows how it is used.
func (replayPostgresCmd) Help() string {
	return `Examples:
  helio replay postgres --dry-run
  helio replay postgres                          (build, compare, switch)
  helio replay postgres --no-switch --rate 5000  (beside live traffic, and look at it first)
  helio replay postgres --to 2026-03-14T12:00:00Z --no-verify
  helio replay postgres --rollback
  helio replay postgres --drop-old
  helio replay postgres --thread 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio replay postgres --list -o json

A generation is a schema beside the live one, with positions and a quarantine of its own: views_g2 beside views. It is
filled from the first record, all partitions in parallel, with no consumer group, so it takes nothing from the
projectors; it pushes to no device, sends no SMS and appends nothing to the log. Killed at any moment, the same command
goes on from where it was. When it has caught up it is compared with a fresh fold of the log. Then one transaction
renames both schemas: projectors and edges follow by themselves, and no read goes back.

The generation that was live is kept as views_g1, until --drop-old. --rollback lets it catch up and switches to it: no
read goes back then either. Whoever reads tables by identity (views of analysts in other schemas) is warned of.

What holds the live tables for long (a dump, helio verify) delays the switch; it is named.

--thread and --user read the log of one partition, keep what is about the one, and put what comes of it in the place of
its rows, in one transaction; all else stays as it is.`
}

// Run replays.
func (c *replayPostgresCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := errors.Join(checkRetention(c.Retention), c.check()); err != nil {
		return err
	}
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, nil); err != nil {
		return err
	}
	store, err := generation.OpenPostgres(ctx, generation.PostgresConfig{
		Postgres: c.postgresFlags.config(log, nil, "helio replay", 0), Schema: c.PostgresSchema,
		Retention: c.Retention, Logger: log, Look: c.List || c.DryRun,
	})
	if err != nil {
		return err
	}
	defer store.Close()
	return c.replay(ctx, log, store, threads.Topics, c.Retention, c.User)
}

// replayClickhouseCmd replays the history.
type replayClickhouseCmd struct {
	replayFlags
	clickhouseFlags
}

// Help shows how it is used.
func (replayClickhouseCmd) Help() string {
	return `Examples:
  helio replay clickhouse --dry-run
  helio replay clickhouse                          (build, compare, switch)
  helio replay clickhouse --no-switch --rate 20000
  helio replay clickhouse --to 3:120000 --no-verify
  helio replay clickhouse --rollback
  helio replay clickhouse --drop-old
  helio replay clickhouse --thread 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio replay clickhouse --list -o json

A generation is a database beside the live one, with positions and a quarantine of its own: heliograph_g2 beside
heliograph. It is filled from the first record, all partitions in parallel, with no consumer group; it appends nothing
to the log. Killed at any moment, the same command goes on from where it was. When it has caught up it is compared with
a fresh fold of the log. Then the projectors are held back for a moment, the tables are exchanged one after the other,
and the projectors go on by themselves. Whoever reads sees complete tables all the time, and nothing goes back.

A replay that is killed in the middle of the switch holds the projectors back until the command is given again, which
brings the switch to its end; it has to wait some 15 seconds for the lock of the one that was killed.

The tables that were live are in the other database then, until --drop-old. --rollback lets them catch up and switches
to them. Rights and views of analysts go by names, and stay.

--thread reads the log of one partition and puts what comes of it in the place of the thread's rows, while the
projectors are held back; the right rows come before the wrong ones go.`
}

// Run replays.
func (c *replayClickhouseCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := c.fill(ctx, &c.kafkaFlags, nil, &c.clickhouseFlags); err != nil {
		return err
	}
	store, err := generation.OpenClickHouse(ctx, generation.ClickHouseConfig{
		ClickHouse: c.clickhouseFlags.config(log, nil, "helio replay"), Logger: log, Look: c.List || c.DryRun,
	})
	if err != nil {
		return err
	}
	defer store.Close()
	return c.replay(ctx, log, store, history.Topics, 0, "")
}

// replayed is how many records a second a replay takes in where nothing is known: measured on two cores.
const replayed = 25_000

// check finds what is wrong before anything is asked.
func (c *replayFlags) check() error {
	if !(c.Rate >= 0) { // which NaN is not either
		return fmt.Errorf("--rate %v is not a number from 0 on", c.Rate)
	}
	_, err := place(c.To)
	if err == nil && c.Memory != "" {
		if _, err = bytesOf(c.Memory); err != nil {
			err = fmt.Errorf("--memory: %w", err)
		}
	}
	return err
}

// replay does what the flags say with the generations of a view.
func (c *replayFlags) replay(
	ctx context.Context, log *slog.Logger, store generation.Mender, topics []topic.Topic, retention time.Duration,
	user string,
) error {
	switch {
	case c.List:
		return c.list(ctx, store)
	case c.DropOld:
		return c.drop(ctx, store, generation.Retired, generation.AsOf)
	case c.Abandon:
		return c.drop(ctx, store, generation.Building)
	}
	until, err := place(c.To)
	if err != nil {
		return err
	}
	memory, bounded, err := budget.Memory()
	if err != nil {
		log.Warn("the bound of the memory is not known", "err", err)
	}
	if c.Memory != "" {
		if memory, err = bytesOf(c.Memory); err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		bounded = true
	}
	budget.Apply(memory, bounded, log)
	cfg := generation.Config{
		Kafka: c.kafkaFlags.config(log, nil, "helio-replay"), Topics: topics, Retention: retention, Logger: log,
	}
	cfg.Kafka.Budget = budget.New(memory, nil)
	l, err := operator.Open(ctx, cfg.Kafka, topic.Threads)
	if err != nil {
		return err
	}
	cfg.Partitions = l.Partitions()
	cfg.Kafka.Partitions = cfg.Partitions
	l.Close()
	opts := generation.Options{
		Rate: c.Rate, Until: until, Rollback: c.Rollback, Unverified: c.NoVerify, Stay: c.NoSwitch,
	}
	if about, ok, err := subject(c.Thread, user); ok || err != nil {
		return c.mend(ctx, store, cfg, about, err)
	}
	if c.DryRun {
		return c.dry(ctx, store, cfg, opts)
	}
	shown := newProgress(os.Stderr)
	cfg.Progress = shown.show
	sum, err := generation.Replay(ctx, store, cfg, opts)
	shown.end()
	return errors.Join(c.tell(sum), err)
}

// subject reads which thread or user is mended; ok is false where none is.
func subject(thread, user string) (s generation.Subject, ok bool, err error) {
	switch {
	case thread != "":
		t, err := id.Parse[id.ThreadID](thread)
		if err != nil {
			return s, false, fmt.Errorf("--thread %q is no id: %w", thread, err)
		}
		return generation.Subject{Kind: generation.ThreadSubject, ID: topic.Subject(t)}, true, nil
	case user != "":
		u, err := id.Parse[id.UserID](user)
		if err != nil {
			return s, false, fmt.Errorf("--user %q is no id: %w", user, err)
		}
		return generation.Subject{Kind: generation.UserSubject, ID: topic.Subject(u)}, true, nil
	}
	return s, false, nil
}

// mend replays one thread or user in place, unless it is not known which.
func (c *replayFlags) mend(
	ctx context.Context, store generation.Mender, cfg generation.Config, s generation.Subject, err error,
) error {
	if err != nil {
		return err
	}
	out, err := generation.Mend(ctx, store, cfg, s)
	if err != nil {
		return err
	}
	var rows []table.Row
	for _, m := range out {
		rows = append(rows, table.Row{m.Table, m.Rows, m.Wrong, m.Undue})
	}
	return c.print(out, table.Row{"table", "rows", "were wrong", "were undue"}, rows)
}

// tell prints what a replay came to, if it came to anything.
func (c *replayFlags) tell(sum generation.Summary) error {
	if sum.Generation.Number == 0 {
		return nil
	}
	if sum.Report != nil {
		for _, d := range sum.Report.Differences[:min(20, len(sum.Report.Differences))] {
			fmt.Fprintf(os.Stderr, "  %s\n", chat.CleanLine(told(d))) // people wrote some of it
		}
		if len(sum.Report.Differences) > 20 {
			sum.Report.Differences = sum.Report.Differences[:20]
		}
	}
	if c.Output == "json" {
		return printJSON(os.Stdout, sum)
	}
	word := map[bool]string{true: "yes", false: "no"}
	header := table.Row{"generation", "in", "state", "records", "seconds", "records/s", "verified", "switched"}
	return c.print(sum, header,
		[]table.Row{{sum.Generation.Number, sum.Generation.Place, sum.Generation.State, sum.Records,
			fmt.Sprintf("%.1f", sum.Seconds), int64(sum.PerSecond), word[sum.Verified], word[sum.Switched]}})
}

func (c *replayFlags) list(ctx context.Context, store generation.Store) error {
	all, err := store.Generations(ctx)
	if err != nil {
		return err
	}
	rows := make([]table.Row, len(all))
	for i, g := range all {
		since := ""
		if !g.Since.IsZero() {
			since = g.Since.UTC().Format(time.RFC3339)
		}
		rows[i] = table.Row{g.Number, g.Place, g.State, g.Until, since, g.Bytes}
	}
	return c.print(all, table.Row{"generation", "in", "state", "until", "since", "bytes"}, rows)
}

// drop removes the generations in some states.
func (c *replayFlags) drop(ctx context.Context, store generation.Store, states ...string) error {
	all, err := store.Generations(ctx)
	if err != nil {
		return err
	}
	dropped := []generation.Generation{}
	var rows []table.Row
	for _, g := range all {
		for _, s := range states {
			if g.State != s {
				continue
			}
			if err := store.Drop(ctx, g); err != nil {
				return err
			}
			dropped = append(dropped, g)
			rows = append(rows, table.Row{g.Number, g.Place, g.State, g.Bytes})
		}
	}
	return c.print(dropped, table.Row{"dropped", "in", "state", "bytes"}, rows)
}

func (c *replayFlags) dry(
	ctx context.Context, store generation.Store, cfg generation.Config, opts generation.Options,
) error {
	p, err := generation.Estimates(ctx, store, cfg, opts, replayed)
	if err != nil {
		return err
	}
	var rows []table.Row
	records, bytes := int64(0), int64(0)
	for _, e := range p.Topics {
		rows = append(rows, table.Row{e.Topic, e.Records, e.Bytes, duration(e.Seconds)})
		records += e.Records
		bytes += e.Bytes
	}
	rows = append(rows, table.Row{"all", records, bytes, duration(p.Seconds)})
	return c.print(p, table.Row{"topic", "records", "bytes", fmt.Sprintf("time at %.0f/s", p.PerSecond)}, rows)
}

func duration(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// place reads a place of the log; nil: its end.
func place(text string) (*generation.Until, error) {
	if text == "" {
		return nil, nil
	}
	u := &generation.Until{Text: text}
	if slot, at, ok := strings.Cut(text, ":"); ok && !strings.Contains(text, "T") {
		s, serr := strconv.ParseInt(slot, 10, 32)
		p, perr := strconv.ParseInt(at, 10, 64)
		if serr != nil || perr != nil || s < 0 || p < 0 {
			return nil, fmt.Errorf("--to %q is no SLOT:POSITION", text)
		}
		u.Slot, u.Position = topic.Slot(s), topic.Position(p)
		return u, nil
	}
	var err error
	if u.Time, err = time.Parse(time.RFC3339, text); err != nil {
		return nil, fmt.Errorf("--to %q is neither a time like 2026-03-14T12:00:00Z nor SLOT:POSITION", text)
	}
	return u, nil
}

// bytesOf reads a size: a number, or one with Ki, Mi or Gi behind it.
func bytesOf(text string) (int64, error) {
	number, factor := strings.TrimSuffix(text, "B"), int64(1)
	for i, unit := range []string{"Ki", "Mi", "Gi"} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, factor = n, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n <= 0 || n > 1<<53/factor {
		return 0, fmt.Errorf("%q is no size like 512MiB", text)
	}
	return n * factor, nil
}
