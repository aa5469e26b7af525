package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// logCmd looks into the log; but for adopt it writes nothing, and it joins no group.
type logCmd struct {
	Topics topicsCmd   `cmd:"" help:"List the topics: slots, records, where they begin and end."`
	Tail   tailCmd     `cmd:"" help:"Show events, decoded."`
	Check  logCheckCmd `cmd:"" help:"Tell whether the log is the one that the views have read."`
	Adopt  logAdoptCmd `cmd:"" help:"Make what is there the log, after it was set back, made anew or cut."`
}

// Help shows how it is used.
func (logCmd) Help() string {
	return `Examples:
  helio log topics
  helio log tail --follow
  helio log tail --help       (what can be picked out)
  helio log check             (after a restore, a power cut, an unclean election)`
}

type topicsCmd struct {
	kafkaFlags
	localFlags
	outputFlags
}

// Help shows how it is used.
func (topicsCmd) Help() string {
	return "Examples:\n  helio log topics\n  helio log topics -o json --kafka broker:9092"
}

// Run lists the topics.
func (c *topicsCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, nil, nil); err != nil {
		return err
	}
	out, err := operator.Topics(ctx, c.config(log, nil, "helio-log"))
	if err != nil {
		return err
	}
	if len(out) == 0 {
		return fmt.Errorf("no topics named %s* at %s yet; 'helio init' makes them, and 'helio dev' its own",
			c.TopicPrefix, strings.Join(c.Kafka, ","))
	}
	rows := make([]table.Row, len(out))
	for i, t := range out {
		rows[i] = table.Row{t.Topic, t.Partitions, t.Begin, t.Records, t.Fullest, t.Cleanup}
	}
	return c.print(out, table.Row{"topic", "slots", "begin", "records", "fullest slot", "cleanup"}, rows)
}

type tailCmd struct {
	kafkaFlags
	localFlags
	outputFlags
	Topic   string `arg:"" optional:"" help:"threads, receipts, users, presence or quarantine." default:"threads" enum:"threads,receipts,users,presence,quarantine"`
	N       int    `short:"n" help:"How many of the last events to begin with: of the subject, or of all slots together." default:"20"`
	Follow  bool   `short:"f" help:"Go on with what comes."`
	Subject string `help:"Only events about this thread or user; only its slot is read, backwards from the end." placeholder:"ID"`
	Since   string `help:"Begin at a time instead, or so long ago, or at the log's start." placeholder:"TIME|1h|start" xor:"begin"`
	From    string `help:"Begin at SLOT:POSITION instead, and show that slot alone." placeholder:"SLOT:POSITION" xor:"begin"`
	Bodies  bool   `help:"Show what messages say."`
}

// Help shows how it is used.
func (tailCmd) Help() string {
	return `Examples:
  helio log tail
  helio log tail users -n 100
  helio log tail threads --follow --bodies
  helio log tail threads --subject 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 -n 50
  helio log tail users --subject 9b1c7f3e-0d52-8e6f-b0a4-2c9e51a7d830 --since start
  helio log tail --since 2026-03-14T12:00:00Z
  helio log tail threads --from 3:1200 -o json

With --since and --from the events of each slot come in order as they are read; between slots their order means
nothing.`
}

// Run prints events until it has all that were asked for, or until a signal.
func (c *tailCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, nil, nil); err != nil {
		return err
	}
	t, err := c.tail(time.Now())
	if err != nil {
		return err
	}
	err = t.Run(ctx, c.config(log, nil, "helio-log"), func(l operator.Line) error { return c.show(os.Stdout, l) })
	if ctx.Err() == nil {
		return err
	}
	return nil // a signal is how it is ended
}

// tail is what the flags ask for.
func (c *tailCmd) tail(now time.Time) (operator.Tail, error) {
	t := operator.Tail{
		Topic: topic.Topic(kafka.DefaultTopicPrefix + c.Topic), Last: c.N, Follow: c.Follow, Bodies: c.Bodies,
	}
	if c.N < 0 {
		return t, fmt.Errorf("-n %d is negative", c.N)
	}
	if c.Subject != "" {
		subject, err := id.Parse[id.ThreadID](c.Subject)
		if err != nil {
			return t, fmt.Errorf("--subject: %w", err)
		}
		t.Subject = (*topic.Subject)(&subject)
	}
	if c.From != "" {
		slot, position, _ := strings.Cut(c.From, ":")
		n, err := strconv.ParseInt(slot, 10, 32)
		at, err2 := strconv.ParseInt(position, 10, 64)
		if err != nil || err2 != nil {
			return t, fmt.Errorf("--from %q is not SLOT:POSITION", c.From)
		}
		t.From = &operator.From{Slot: topic.Slot(n), Position: topic.Position(at)}
	}
	if c.Since != "" {
		since, err := sinceOf(c.Since, now)
		if err != nil {
			return t, err
		}
		t.Since = &since
	}
	return t, nil
}

// sinceOf reads --since; the log's start is the zero time.
func sinceOf(s string, now time.Time) (time.Time, error) {
	if s == "start" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(s); err == nil {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return at, fmt.Errorf(
			"--since %q is neither a time like 2026-03-14T12:00:00Z, nor a duration like 90m, nor the word start", s,
		)
	}
	return at, nil
}

// show prints an event: one line, as JSON or for people.
func (c *tailCmd) show(w io.Writer, l operator.Line) error {
	if c.Output == "json" {
		b, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("write json: %w", err)
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	var parts []string
	for k, v := range l.Fields {
		// people wrote it: a terminal must not act upon it
		parts = append(parts, chat.CleanLine(fmt.Sprintf("%s=%v", k, v)))
	}
	sort.Strings(parts)
	for _, word := range l.Words() {
		parts = append(parts, chat.CleanLine(word))
	}
	if l.Error != "" {
		parts = append(parts, l.Error)
	}
	_, err := fmt.Fprintf(w, "%s  %2d:%-6d  %-17s about %s by %s  %s\n",
		l.Time.Local().Format("15:04:05.000"), l.Slot, l.Position, l.Kind, l.Subject,
		short(l.User), strings.Join(parts, " "))
	return err
}

func short(s string) string {
	if s == "" {
		return "system"
	}
	return s
}
