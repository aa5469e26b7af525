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
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// logCmd looks into the log; it writes nothing and joins no group.
type logCmd struct {
	Topics topicsCmd `cmd:"" help:"List the topics: slots, records, where they begin and end."`
	Tail   tailCmd   `cmd:"" help:"Show events, decoded."`
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
	c.fill(&c.kafkaFlags, nil, nil)
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
		return fmt.Errorf("no topics named %s* at %s yet; 'helio dev' or any role creates them", c.TopicPrefix, strings.Join(c.Kafka, ","))
	}
	return c.print(out, table.Row{"topic", "slots", "begin", "records", "fullest slot", "cleanup"}, rows)
}

type tailCmd struct {
	kafkaFlags
	localFlags
	outputFlags
	Topic   string `arg:"" optional:"" help:"threads, receipts, users, presence or quarantine." default:"threads" enum:"threads,receipts,users,presence,quarantine"`
	N       int    `short:"n" help:"How many of the last events of all slots together to begin with." default:"20"`
	Follow  bool   `short:"f" help:"Go on with what comes."`
	Subject string `help:"Only events about this thread or user." placeholder:"ID"`
	From    string `help:"Begin at SLOT:POSITION instead, and show that slot alone." placeholder:"SLOT:POSITION"`
	Bodies  bool   `help:"Show what messages say."`
}

// Help shows how it is used.
func (tailCmd) Help() string {
	return `Examples:
  helio log tail
  helio log tail users -n 100
  helio log tail threads --follow --bodies
  helio log tail threads --from 3:1200 -o json`
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
	c.fill(&c.kafkaFlags, nil, nil)
	cfg := c.config(log, nil, "helio-log")
	t := topic.Topic(kafka.DefaultTopicPrefix + c.Topic)
	name := cfg.Name(t)
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ask, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	begins, err := adm.ListStartOffsets(ask, name)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", strings.Join(c.Kafka, ","), name, err)
	}
	ends, err := adm.ListEndOffsets(ask, name)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", strings.Join(c.Kafka, ","), name, err)
	}
	if len(ends[name]) == 0 || ends.Error() != nil {
		return fmt.Errorf("there is no topic %s at %s", name, strings.Join(c.Kafka, ","))
	}
	bases, err := kafka.LoadBases(ask, cl, cfg, []topic.Topic{t}, len(ends[name]))
	if err != nil {
		return fmt.Errorf("read bases: %w", err)
	}
	from := map[int32]kgo.Offset{}
	want := map[int32]int64{} // slots that have not reached their end yet
	if c.From != "" {
		var slot int32
		var pos int64
		if _, err := fmt.Sscanf(c.From, "%d:%d", &slot, &pos); err != nil {
			return fmt.Errorf("--from %q is not SLOT:POSITION", c.From)
		}
		end, ok := ends[name][slot]
		if !ok {
			return fmt.Errorf("%s has no slot %d", name, slot)
		}
		pos = max(pos-int64(bases.Of(t, topic.Slot(slot))), begins[name][slot].Offset)
		from[slot] = kgo.NewOffset().At(pos)
		if end.Offset > pos {
			want[slot] = end.Offset
		}
	} else {
		for p, end := range ends[name] {
			at := max(begins[name][p].Offset, end.Offset-int64(c.N))
			from[p] = kgo.NewOffset().At(at)
			if end.Offset > at {
				want[p] = end.Offset
			}
		}
	}
	reader, err := kafka.Dial(cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer reader.Close()
	var lines []logLine
	for len(want) > 0 {
		fs := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fs.Err(); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if l := c.line(cfg, bases, r); c.Subject == "" || l.Subject == c.Subject {
				lines = append(lines, l)
			}
			if end, ok := want[r.Partition]; ok && r.Offset+1 >= end {
				delete(want, r.Partition)
			}
		})
	}
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].Time.Before(lines[j].Time) })
	if c.From == "" && len(lines) > c.N {
		lines = lines[len(lines)-c.N:]
	}
	for _, l := range lines {
		if err := c.show(os.Stdout, l); err != nil {
			return err
		}
	}
	for c.Follow {
		fs := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var errs []error
		fs.EachRecord(func(r *kgo.Record) {
			if l := c.line(cfg, bases, r); c.Subject == "" || l.Subject == c.Subject {
				errs = append(errs, c.show(os.Stdout, l))
			}
		})
		if err := errors.Join(append(errs, fs.Err())...); err != nil {
			return fmt.Errorf("follow %s: %w", name, err)
		}
	}
	return nil
}

func (c *tailCmd) line(cfg kafka.Config, bases *kafka.Bases, r *kgo.Record) logLine {
	l := logLine{Slot: r.Partition, Position: int64(bases.Position(r)), Time: r.Timestamp.UTC(), event: decodeEvent(r.Value, c.Bodies)}
	t, _ := cfg.Topic(r.Topic)
	l.Topic = string(t)
	if len(r.Key) >= 16 {
		l.Subject = uuid(r.Key[:16])
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
		parts = append(parts, fmt.Sprintf("%s=%v", k, v))
	}
	sort.Strings(parts)
	if l.Error != "" {
		parts = append(parts, l.Error)
	}
	_, err := fmt.Fprintf(w, "%s  %2d:%-6d  %-17s about %s by %s  %s\n",
		l.Time.Local().Format("15:04:05.000"), l.Slot, l.Position, l.Kind, l.Subject, short(l.User), strings.Join(parts, " "))
	return err
}

func short(s string) string {
	if s == "" {
		return "system"
	}
	return s
}
