package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// PartitionsError says that a topic's partition count is not P: positions and slots would lose their meaning, so
// nothing may start.
type PartitionsError struct {
	Topic string // as named on the cluster
	Have  int
	Want  int
}

// Error names the topic, both counts and what mends it.
func (e *PartitionsError) Error() string {
	return fmt.Sprintf(
		"kafka: topic %s has %d partitions, not %d: partitions are never added to a live topic; "+
			"set the partition count that the log has, or reshard",
		e.Topic, e.Have, e.Want,
	)
}

// minInSync is the setting of how many replicas must have a record before it is acknowledged.
const minInSync = "min.insync.replicas"

// maxMessage is the setting of the longest batch that a topic takes; lowestMax is what ours must take at least: Kafka's
// own default, which MaxBatch fits. An operator may set more.
const (
	maxMessage = "max.message.bytes"
	lowestMax  = 1_048_588
)

// presenceRetention is how long a presence record outlives the minute in which it means something.
const presenceRetention = "3600000"

// settings returns what a topic's configuration must be.
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

// EnsureTopics creates the topics that are missing, mends the settings of those that are there (a broker that created a
// topic by itself would forget messages after a week) and returns P. It is called at every start. A topic with another
// partition count than cfg.Partitions, or than the other topics, is a *PartitionsError. A topic is made with as many
// replicas as there are brokers at that moment, at most three; what was made while some were not there yet stays so,
// and is warned of at each start.
func EnsureTopics(ctx context.Context, cl *kgo.Client, cfg Config) (int, error) {
	adm := kadm.NewClient(cl)
	names := make([]string, len(topic.All))
	for i, t := range topic.All {
		names[i] = cfg.Name(t)
	}
	have, brokers, err := look(ctx, cl, names...)
	if err != nil {
		return 0, fmt.Errorf("kafka: read topics from %s: %w", strings.Join(cfg.Brokers, ","), err)
	}
	p := cfg.Partitions
	var missing, present []topic.Topic
	for i, t := range topic.All {
		h, ok := have[names[i]]
		if !ok {
			missing = append(missing, t)
			continue
		}
		n := h.partitions
		if p == 0 {
			p = n
		}
		if n != p {
			return 0, &PartitionsError{Topic: names[i], Have: n, Want: p}
		}
		present = append(present, t)
	}
	if p == 0 {
		p = topic.DefaultPartitions
	}
	replicas := min(safeReplicas, max(1, brokers))
	for _, t := range missing {
		if err := createTopic(ctx, cl, cfg.Name(t), t, p, replicas); err != nil {
			return 0, err
		}
		cfg.logger().Info("topic created", "topic", cfg.Name(t), "partitions", p, "replicas", replicas)
	}
	for _, t := range present {
		if n := have[cfg.Name(t)].replicas; n < replicas {
			cfg.logger().Warn(
				"topic has fewer replicas than there are brokers for: what they lose is lost; "+
					"give it more with kafka-reassign-partitions",
				"topic", cfg.Name(t), "replicas", n, "want", replicas,
			)
		}
	}
	if err := mendTopics(ctx, adm, cfg, present, have); err != nil {
		return 0, err
	}
	return p, nil
}

// safeReplicas is how many replicas a topic has where there are brokers enough, and safeInSync how many of so many must
// have a record before it is acknowledged.
const (
	safeReplicas = 3
	safeInSync   = 2
)

func createTopic(ctx context.Context, cl *kgo.Client, name string, t topic.Topic, p, replicas int) error {
	conf := make(map[string]*string)
	for k, v := range settings(t) {
		conf[k] = kadm.StringPtr(v)
	}
	conf[maxMessage] = kadm.StringPtr(strconv.Itoa(lowestMax))
	conf[minInSync] = kadm.StringPtr("1")
	if replicas >= safeReplicas {
		conf[minInSync] = kadm.StringPtr(strconv.Itoa(safeInSync))
	}
	resp, err := kadm.NewClient(cl).CreateTopics(ctx, int32(p), int16(replicas), conf, name)
	if err != nil {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	}
	// Another process may have created it between our look and now; its count is checked by the next look.
	if err := resp[name].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	} else if err == nil {
		return nil
	}
	// A topic that exists is not yet known everywhere: a broker that is asked in that moment knows nothing of it.
	var wait run.Backoff
	for {
		have, _, err := look(ctx, cl, name)
		switch {
		case err != nil:
			return fmt.Errorf("kafka: read topic %s: %w", name, err)
		case have[name].partitions == p:
			return nil
		case have[name].partitions != 0:
			return &PartitionsError{Topic: name, Have: have[name].partitions, Want: p}
		}
		if err := wait.Wait(ctx); err != nil {
			return fmt.Errorf("kafka: topic %s exists, but no broker tells of it: %w", name, err)
		}
	}
}

// shape is how a topic is laid out.
type shape struct {
	partitions int
	replicas   int // of the partition that has the fewest
}

// look returns the shapes of the topics that are there, and how many brokers there are. It asks the cluster itself:
// kadm would answer from the client's cache, which does not know a topic that another process has just created.
func look(ctx context.Context, cl *kgo.Client, names ...string) (have map[string]shape, brokers int, err error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, 0, err
	}
	have = make(map[string]shape)
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if t.Topic == nil || errors.Is(err, kerr.UnknownTopicOrPartition) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
		s := shape{partitions: len(t.Partitions)}
		for k, p := range t.Partitions {
			if n := len(p.Replicas); k == 0 || n < s.replicas {
				s.replicas = n
			}
		}
		have[*t.Topic] = s
	}
	return have, len(resp.Brokers), nil
}

// listOffsets asks for the start or end offsets of topics that are known to exist. A client that asked before they did
// may have cached that they do not, so a retriable refusal is asked again for a while.
func listOffsets(ctx context.Context, cl *kgo.Client, ends bool, names []string) (kadm.ListedOffsets, error) {
	adm := kadm.NewClient(cl)
	back := run.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}
	what, list := "start", adm.ListStartOffsets
	if ends {
		what, list = "end", adm.ListEndOffsets
	}
	for deadline := time.Now().Add(3 * time.Second); ; {
		listed, err := list(ctx, names...)
		if err == nil {
			err = listed.Error()
		}
		if err == nil {
			return listed, nil
		}
		if !kerr.IsRetriable(err) || time.Now().After(deadline) || back.Wait(ctx) != nil {
			return nil, fmt.Errorf("kafka: list %s offsets: %w", what, err)
		}
	}
}

// mendTopics sets what a topic's configuration must be, and warns of the one setting that is the operators' and makes
// an acknowledgement worth little.
func mendTopics(ctx context.Context, adm *kadm.Client, cfg Config, ts []topic.Topic, shapes map[string]shape) error {
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
		if n, err := strconv.Atoi(is[minInSync]); err == nil && n < safeInSync &&
			shapes[names[i]].replicas >= safeReplicas {
			cfg.logger().Warn("topic acknowledges what a single broker may have alone: set min.insync.replicas to 2",
				"topic", names[i], "min.insync.replicas", n)
		}
		want := settings(t)
		if n, err := strconv.Atoi(is[maxMessage]); err != nil || n < lowestMax {
			want[maxMessage] = strconv.Itoa(lowestMax)
		}
		var alter []kadm.AlterConfig
		for k, v := range want {
			if !sameSetting(is[k], v) {
				alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: kadm.StringPtr(v)})
				cfg.logger().Warn("topic config corrected", "topic", names[i], "setting", k, "was", is[k], "now", v)
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
