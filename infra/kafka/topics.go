package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// PartitionsError says that a topic's partition count is not P: positions and slots would lose their meaning, so nothing may start.
type PartitionsError struct {
	Topic string // as named on the cluster
	Have  int
	Want  int
}

// Error names the topic, both counts and what mends it.
func (e *PartitionsError) Error() string {
	return fmt.Sprintf("kafka: topic %s has %d partitions, not %d: partitions are never added to a live topic; set the partition count that the log has, or reshard",
		e.Topic, e.Have, e.Want)
}

// presenceRetention is how long a presence record outlives the minute in which it means something.
const presenceRetention = "3600000"

// settings returns what a topic's configuration must be (DESIGN section 3).
func settings(t topic.Topic) map[string]string {
	m := map[string]string{
		"cleanup.policy":         "delete",
		"retention.ms":           "-1",
		"retention.bytes":        "-1",
		"message.timestamp.type": "LogAppendTime",
	}
	switch t {
	case topic.Receipts:
		m["cleanup.policy"] = "compact"
	case topic.Presence:
		m["cleanup.policy"] = "compact,delete"
		m["retention.ms"] = presenceRetention
		m["segment.ms"] = "600000"
	}
	return m
}

// EnsureTopics creates the topics that are missing, mends the settings of those that are there (a broker that created a topic by itself
// would forget messages after a week) and returns P. It is called at every start. A topic with another partition count than cfg.Partitions, or
// than the other topics, is a *PartitionsError.
func EnsureTopics(ctx context.Context, cl *kgo.Client, cfg Config) (int, error) {
	adm := kadm.NewClient(cl)
	names := make([]string, len(topic.All))
	for i, t := range topic.All {
		names[i] = cfg.Name(t)
	}
	meta, err := adm.Metadata(ctx, names...)
	if err != nil {
		return 0, fmt.Errorf("kafka: read topics from %s: %w", strings.Join(cfg.Brokers, ","), err)
	}
	p := cfg.Partitions
	var missing, present []topic.Topic
	for i, t := range topic.All {
		d, ok := meta.Topics[names[i]]
		switch {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, t)
		case d.Err != nil:
			return 0, fmt.Errorf("kafka: topic %s: %w", names[i], d.Err)
		default:
			if p == 0 {
				p = len(d.Partitions)
			}
			if len(d.Partitions) != p {
				return 0, &PartitionsError{Topic: names[i], Have: len(d.Partitions), Want: p}
			}
			present = append(present, t)
		}
	}
	if p == 0 {
		p = topic.DefaultPartitions
	}
	replicas := min(3, max(1, len(meta.Brokers)))
	for _, t := range missing {
		if err := createTopic(ctx, adm, cfg.Name(t), t, p, replicas); err != nil {
			return 0, err
		}
		cfg.logger().Info("topic created", "topic", cfg.Name(t), "partitions", p, "replicas", replicas)
	}
	if err := mendTopics(ctx, adm, cfg, present); err != nil {
		return 0, err
	}
	return p, nil
}

func createTopic(ctx context.Context, adm *kadm.Client, name string, t topic.Topic, p, replicas int) error {
	conf := make(map[string]*string)
	for k, v := range settings(t) {
		conf[k] = kadm.StringPtr(v)
	}
	conf["min.insync.replicas"] = kadm.StringPtr("1")
	if replicas >= 3 {
		conf["min.insync.replicas"] = kadm.StringPtr("2")
	}
	resp, err := adm.CreateTopics(ctx, int32(p), int16(replicas), conf, name)
	if err != nil {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	}
	// Another process may have created it between our look and now; its count is checked by the next look.
	if err := resp[name].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	} else if err == nil {
		return nil
	}
	d, err := adm.ListTopics(ctx, name)
	if err != nil {
		return fmt.Errorf("kafka: read topic %s: %w", name, err)
	}
	if n := len(d[name].Partitions); n != p {
		return &PartitionsError{Topic: name, Have: n, Want: p}
	}
	return nil
}

func mendTopics(ctx context.Context, adm *kadm.Client, cfg Config, ts []topic.Topic) error {
	if len(ts) == 0 {
		return nil
	}
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = cfg.Name(t)
	}
	have, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("kafka: read topic settings: %w", err)
	}
	for i, t := range ts {
		rc, err := have.On(names[i], nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return fmt.Errorf("kafka: read settings of topic %s: %w", names[i], err)
		}
		is := make(map[string]string)
		for _, c := range rc.Configs {
			is[c.Key] = c.MaybeValue()
		}
		var alter []kadm.AlterConfig
		for k, v := range settings(t) {
			if !sameSetting(is[k], v) {
				alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: kadm.StringPtr(v)})
				cfg.logger().Warn("topic setting mended", "topic", names[i], "setting", k, "was", is[k], "now", v)
			}
		}
		if len(alter) == 0 {
			continue
		}
		resp, err := adm.AlterTopicConfigs(ctx, alter, names[i])
		if err == nil {
			for _, r := range resp {
				err = errors.Join(err, r.Err)
			}
		}
		if err != nil {
			return fmt.Errorf("kafka: mend settings of topic %s: %w", names[i], err)
		}
	}
	return nil
}

// sameSetting compares list settings without regard to their order.
func sameSetting(a, b string) bool {
	split := func(s string) []string {
		parts := strings.Split(strings.ReplaceAll(s, " ", ""), ",")
		slices.Sort(parts)
		return parts
	}
	return slices.Equal(split(a), split(b))
}
