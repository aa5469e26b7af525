package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/chat"
)

// logCmd looks into the log; it writes nothing and joins no group.
type logCmd struct {
	Topics topicsCmd `cmd:"" help:"List the topics: slots, records, where they begin and end."`
	Tail   tailCmd   `cmd:"" help:"Show events, decoded."`
}

// Help shows how it is used.
func (logCmd) Help() string {
	return `Examples:
  helio log topics
  helio log tail --follow
  helio log tail --help       (what can be picked out)`
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

// topicRow is a line of helio log topics.
type topicRow struct {
	Topic      string `json:"topic"`
	Partitions int    `json:"partitions"`
	Begin      int64  `json:"begin"` // lowest offset over the partitions
	Records    int64  `json:"records"`
	Fullest    int64  `json:"fullest"` // records of the partition with the most
	Cleanup    string `json:"cleanup"`
}

// Run lists the topics.
func (c *topicsCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, nil, nil); err != nil {
		return err
	}
	cfg := c.config(log, nil, "helio-log")
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	adm := kadm.NewClient(cl)
	var names []string
	for _, t := range topic.All {
		names = append(names, cfg.Name(t))
	}
	begins, err := adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask %s for its topics: %w", strings.Join(c.Kafka, ","), err)
	}
	ends, err := adm.ListEndOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask %s for its topics: %w", strings.Join(c.Kafka, ","), err)
	}
	policies := map[string]string{}
	if configs, err := adm.DescribeTopicConfigs(ctx, names...); err == nil {
		for _, rc := range configs {
			for _, kv := range rc.Configs {
				if kv.Key == "cleanup.policy" && kv.Value != nil {
					policies[rc.Name] = *kv.Value
				}
			}
		}
	}
	var out []topicRow
	var rows []table.Row
	for _, name := range names {
		r := topicRow{Topic: name, Cleanup: policies[name], Begin: -1}
		for p, end := range ends[name] {
			if end.Err != nil {
				continue
			}
			r.Partitions++
			begin := begins[name][p].Offset
			if r.Begin < 0 || begin < r.Begin {
				r.Begin = begin
			}
			r.Records += end.Offset - begin
			r.Fullest = max(r.Fullest, end.Offset-begin)
		}
		if r.Partitions == 0 {
			continue
		}
		out = append(out, r)
		rows = append(rows, table.Row{r.Topic, r.Partitions, r.Begin, r.Records, r.Fullest, r.Cleanup})
	}
	if len(out) == 0 {
		return fmt.Errorf(
			"no topics named %s* at %s yet; 'helio dev' or any role creates them", c.TopicPrefix,
			strings.Join(c.Kafka, ","),
		)
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

With --since and --from the events of each slot come in order as they are read; between slots their order means nothing.`
}

// logLine is an event as helio log tail prints it as JSON, one a line.
type logLine struct {
	Topic    string    `json:"topic"`
	Slot     int32     `json:"slot"`
	Position int64     `json:"position"`
	Time     time.Time `json:"time"`
	Subject  string    `json:"subject"`
	event
}

// Run prints events until it has all that were asked for, or until a signal.
func (c *tailCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := c.fill(ctx, &c.kafkaFlags, nil, nil); err != nil {
		return err
	}
	if err := c.tail(ctx, c.config(log, nil, "helio-log"), os.Stdout); ctx.Err() == nil {
		return err
	}
	return nil // a signal is how it is ended
}

func (c *tailCmd) tail(ctx context.Context, cfg kafka.Config, w io.Writer) error {
	if c.N < 0 {
		return fmt.Errorf("-n %d is negative", c.N)
	}
	o, err := lookAt(ctx, cfg, topic.Topic(kafka.DefaultTopicPrefix+c.Topic))
	if err != nil {
		return err
	}
	defer o.close()
	slots, wanted := o.all(), func(*kgo.Record) bool { return true }
	if c.Subject != "" {
		subject, err := id.Parse[id.ThreadID](c.Subject)
		if err != nil {
			return fmt.Errorf("--subject: %w", err)
		}
		slots = []topic.Slot{topic.SlotOf(topic.Subject(subject), o.slots)}
		wanted = func(r *kgo.Record) bool { return len(r.Key) >= id.Size && [id.Size]byte(r.Key) == subject }
	}
	var failed error
	show := func(r *kgo.Record) bool {
		if wanted(r) && failed == nil {
			failed = c.show(w, c.line(o, r))
		}
		return failed == nil
	}
	switch {
	case c.From != "" || c.Since != "":
		sp, err := c.begin(ctx, o, &slots)
		if err != nil {
			return err
		}
		if err := o.scan(ctx, sp, show); err != nil {
			return err
		}
	case c.Subject != "":
		found, err := o.backwards(ctx, slots[0], c.N, wanted)
		if err != nil {
			return err
		}
		for _, r := range found {
			show(r)
		}
	default:
		sp := span{}
		for _, s := range slots {
			sp[s] = [2]int64{max(o.begin(s), o.end(s)-int64(c.N)), o.end(s)}
		}
		var found []*kgo.Record
		if err := o.scan(ctx, sp, func(r *kgo.Record) bool { found = append(found, r); return true }); err != nil {
			return err
		}
		sort.SliceStable(found, func(i, j int) bool { return found[i].Timestamp.Before(found[j].Timestamp) })
		for _, r := range found[max(0, len(found)-c.N):] {
			show(r)
		}
	}
	if failed != nil || !c.Follow {
		return failed
	}
	from := map[topic.Slot]int64{}
	for _, s := range slots {
		from[s] = o.end(s)
	}
	reader, err := o.reader(from)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		fs := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fs.EachRecord(func(r *kgo.Record) { show(r) })
		if err := errors.Join(failed, fs.Err()); err != nil {
			return fmt.Errorf("follow %s: %w", o.name, err)
		}
	}
}

// begin tells what --from and --since ask for. --from leaves one slot.
func (c *tailCmd) begin(ctx context.Context, o *openTopic, slots *[]topic.Slot) (span, error) {
	sp := span{}
	if c.From != "" {
		first, rest, _ := strings.Cut(c.From, ":")
		n, err := strconv.Atoi(first)
		pos, err2 := strconv.ParseInt(rest, 10, 64)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("--from %q is not SLOT:POSITION", c.From)
		}
		if n < 0 || n >= o.slots {
			return nil, fmt.Errorf("%s has no slot %d", o.name, n)
		}
		slot := topic.Slot(n)
		if c.Subject != "" && (*slots)[0] != slot {
			return nil, fmt.Errorf(
				"the events about %s are in slot %d, not in slot %d of --from", c.Subject, (*slots)[0], slot,
			)
		}
		*slots = []topic.Slot{slot}
		sp[slot] = [2]int64{max(pos-int64(o.bases.Of(o.topic, slot)), o.begin(slot)), o.end(slot)}
		return sp, nil
	}
	var at time.Time
	if c.Since != "start" {
		ago, err := time.ParseDuration(c.Since)
		if at = time.Now().Add(-ago); err != nil {
			if at, err = time.Parse(time.RFC3339, c.Since); err != nil {
				return nil, fmt.Errorf(
					"--since %q is neither a time like 2026-03-14T12:00:00Z, nor a duration like 90m, nor the word start",
					c.Since,
				)
			}
		}
		first, err := o.since(ctx, at, *slots)
		for _, s := range *slots {
			sp[s] = [2]int64{first[s], o.end(s)}
		}
		return sp, err
	}
	for _, s := range *slots {
		sp[s] = [2]int64{o.begin(s), o.end(s)}
	}
	return sp, nil
}

func (c *tailCmd) line(o *openTopic, r *kgo.Record) logLine {
	l := logLine{
		Topic:    string(o.topic),
		Slot:     r.Partition,
		Position: int64(o.bases.Position(r)),
		Time:     r.Timestamp.UTC(),
		event:    decodeEvent(r.Value, c.Bodies),
	}
	if len(r.Key) >= id.Size {
		l.Subject = uuid(r.Key[:id.Size])
	}
	return l
}

func (c *tailCmd) show(w io.Writer, l logLine) error {
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
	if l.Error != "" {
		parts = append(parts, l.Error)
	}
	_, err := fmt.Fprintf(
		w,
		"%s  %2d:%-6d  %-17s about %s by %s  %s\n",
		l.Time.Local().Format(
			"15:04:05.000",
		),
		l.Slot,
		l.Position,
		l.Kind,
		l.Subject,
		short(l.User),
		strings.Join(parts, " "),
	)
	return err
}

func short(s string) string {
	if s == "" {
		return "system"
	}
	return s
}
