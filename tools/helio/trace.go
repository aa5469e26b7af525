package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/schemas/id"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// traceCmd tells how far one message has got. It only reads.
type traceCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
	Message string        `arg:"" help:"The message's id."`
	Thread  string        `help:"Thread that it was sent to: where no view has the message, only that slot is searched." placeholder:"ID"`
	Window  time.Duration `help:"How long before and after the time in the message's id the log is searched, where no view has the message." default:"15m"`
}

// Help shows how it is used.
func (traceCmd) Help() string {
	return `Examples:
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f -o json
  helio trace 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f --window 24h

The views are asked first, because they know the place in the log; that place is then read. A message that no view has,
or that no view can tell of, is searched for in the log itself, among what was logged around the time that its id
carries: the clock of the device that wrote it. A message that is in the log and not in a view is not there yet, or it
was refused or parked by the fold, which is then told with its reason.`
}

// Run prints what Trace finds. A message that is nowhere is a failure, told after the table.
func (c *traceCmd) Run(ctx context.Context, log *slog.Logger) error {
	q, err := c.question()
	if err != nil {
		return err
	}
	if err := c.fill(ctx, &c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags); err != nil {
		return err
	}
	v, err := operator.OpenViews(
		ctx, c.postgresFlags.config(log, nil, "trace", 2), c.clickhouseFlags.config(log, nil, "trace"),
	)
	if err != nil {
		return err
	}
	defer v.Close()
	out, err := operator.Trace(ctx, c.kafkaFlags.config(log, nil, "helio-trace"), v, q)
	if err != nil {
		return err
	}
	if err := c.print(out, table.Row{"place", "state", "detail"}, placeRows(out)); err != nil {
		return err
	}
	if out.LogError != "" {
		return fmt.Errorf("the log could not be asked: %s", out.LogError)
	}
	if out.Log == nil {
		return fmt.Errorf("no view has message %s, and it is not in the log: %s", out.Message, searched(out.Searched))
	}
	return nil
}

// question is what the flags ask.
func (c *traceCmd) question() (q operator.Question, err error) {
	if q.Message, err = id.Parse[id.MessageID](c.Message); err != nil {
		return q, fmt.Errorf("%q is not a message id: %w", c.Message, err)
	}
	if c.Thread != "" {
		t, err := id.Parse[id.ThreadID](c.Thread)
		if err != nil {
			return q, fmt.Errorf("--thread %q is not a thread's id: %w", c.Thread, err)
		}
		q.Thread = &t
	}
	if c.Window <= 0 {
		return q, fmt.Errorf("--window %v is not positive", c.Window)
	}
	q.Window = c.Window
	return q, nil
}

// searched names the flag by which more is searched.
func searched(s *operator.Searched) string {
	if s == nil {
		return s.String()
	}
	return s.String() + " (--window)"
}

func placeRows(p *operator.Place) []table.Row {
	at := func(l operator.LogPlace) string {
		place := fmt.Sprintf("%s slot %d offset %d position %d at %s ",
			l.Topic, l.Slot, l.Offset, l.Position, l.Time.Local().Format("2006-01-02 15:04:05.000"))
		return chat.CleanLine(strings.TrimSpace(place + strings.Join(l.Words(), " ")))
	}
	var rows []table.Row
	switch {
	case p.LogError != "":
		rows = append(rows, table.Row{"log", operator.StateUnknown, p.LogError})
	case p.Log == nil:
		rows = append(rows, table.Row{"log", operator.StatePassed, searched(p.Searched)})
	default:
		rows = append(rows, table.Row{"log", operator.StateHas, at(*p.Log)})
	}
	for _, l := range p.Copies {
		rows = append(rows, table.Row{"log", "again", at(l)})
	}
	if p.Refused != "" {
		rows = append(rows, table.Row{"fold", "refused", p.Refused})
	}
	rows = append(
		rows, table.Row{"postgres", p.Postgres.State, p.Postgres.Detail()},
		table.Row{"clickhouse", p.ClickHouse.State, p.ClickHouse.Detail()},
	)
	for _, d := range p.Devices {
		state := operator.StateNotYet
		switch {
		case d.Read:
			state = "read"
		case d.Delivered:
			state = "delivered"
		}
		rows = append(rows, table.Row{"device", state, fmt.Sprintf("%s %s of %s", d.Device, d.Name, d.User)})
	}
	return rows
}
