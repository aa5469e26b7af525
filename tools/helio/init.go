package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/kafka"
)

// initWait is how long 'helio init' puts up with a cluster that does not answer.
const initWait = time.Minute

// initCmd makes the log, once.
type initCmd struct {
	kafkaFlags
	outputFlags
	Replicas int  `help:"Brokers that keep each record (0: as many as there are, at most 3)." default:"0" env:"HELIO_REPLICAS"`
	DryRun   bool `help:"Say what would be done, and do nothing."`
}

// Help shows how it is used.
func (initCmd) Help() string {
	return `It makes the topics that are missing and mends the settings of those that are there; what is right
stays as it is. The number of partitions is chosen once: no more processes of a role than that share
its work, and only a reshard changes it.

Examples:
  helio init --partitions 1024 --replicas 3 --dry-run
  helio init --partitions 1024 --replicas 3
  helio init --kafka broker:9092 --partitions 16 --replicas 1     (a single broker)`
}

// initTopic is what 'helio init' says of a topic.
type initTopic struct {
	Topic      string            `json:"topic"`
	Exists     bool              `json:"exists"`
	Partitions int               `json:"partitions"`
	Replicas   int               `json:"replicas"`
	Settings   map[string]string `json:"settings,omitempty"`
	Changes    []kafka.Change    `json:"changes,omitempty"`
}

// Run says what it does, and does it.
func (c *initCmd) Run(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, initWait)
	defer cancel()
	if c.Replicas < 0 {
		return fmt.Errorf("--replicas %d is below 0", c.Replicas)
	}
	cfg := c.config(log, nil, "helio-init")
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := kafka.Knock(ctx, cfg); err != nil {
		return mendKafka(err)
	}
	plan, err := kafka.PlanTopics(ctx, cl, cfg, c.Replicas)
	if err != nil {
		return err
	}
	missing := plan.Missing()
	switch {
	case len(missing) > 0 && plan.Replicas > plan.Brokers:
		return fmt.Errorf("--replicas %d needs so many brokers, and %s has %d",
			plan.Replicas, strings.Join(c.Kafka, ","), plan.Brokers)
	case len(missing) == len(plan.Topics) && c.Partitions == 0:
		return fmt.Errorf("no topics named %s* at %s: say how many partitions the log gets, which is chosen once, "+
			"with --partitions (1024 in production)", c.TopicPrefix, strings.Join(c.Kafka, ","))
	}
	if err := c.show(plan); err != nil {
		return err
	}
	if c.DryRun {
		return nil
	}
	return plan.Apply(ctx, cl)
}

// show prints the plan.
func (c *initCmd) show(plan *kafka.Plan) error {
	var all []initTopic
	var rows []table.Row
	for _, tp := range plan.Topics {
		all = append(all, initTopic{
			Topic: tp.Name, Exists: tp.Exists, Partitions: plan.Partitions, Replicas: tp.Replicas,
			Settings: tp.Settings, Changes: tp.Changes,
		})
		does, settings := "make", make([]string, 0, len(tp.Settings))
		for _, k := range slices.Sorted(maps.Keys(tp.Settings)) {
			settings = append(settings, k+"="+tp.Settings[k])
		}
		if tp.Exists {
			does = "there already"
		}
		for _, ch := range tp.Changes {
			if ch.Mended {
				does = "mend"
				settings = append(settings, fmt.Sprintf("%s=%s (was %s)", ch.Setting, ch.Want, ch.Have))
			} else {
				settings = append(settings,
					fmt.Sprintf("%s=%s, and should be %s: yours to set", ch.Setting, ch.Have, ch.Want))
			}
		}
		if c.DryRun && does != "there already" {
			does = "would " + does
		}
		rows = append(rows, table.Row{
			tp.Name, strconv.Itoa(plan.Partitions), strconv.Itoa(tp.Replicas), does, strings.Join(settings, "\n"),
		})
	}
	return c.print(all, table.Row{"topic", "partitions", "replicas", "", "settings"}, rows)
}
