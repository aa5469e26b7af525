package operator

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// TopicState is what a topic has on a cluster.
type TopicState struct {
	Topic      string `json:"topic"`
	Partitions int    `json:"partitions"`
	Begin      int64  `json:"begin"` // lowest offset over the partitions
	Records    int64  `json:"records"`
	Fullest    int64  `json:"fullest"` // records of the partition with the most
	Cleanup    string `json:"cleanup"` // empty: the brokers did not say
}

// Topics lists the topics of the log that are on the cluster.
func Topics(ctx context.Context, cfg kafka.Config) ([]TopicState, error) {
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	adm := kadm.NewClient(cl)
	var names []string
	for _, t := range topic.All {
		names = append(names, cfg.Name(t))
	}
	begins, err := adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its topics: %w", strings.Join(cfg.Brokers, ","), err)
	}
	ends, err := adm.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its topics: %w", strings.Join(cfg.Brokers, ","), err)
	}
	policies := cleanup(ctx, adm, names)
	var out []TopicState
	for _, name := range names {
		s := TopicState{Topic: name, Cleanup: policies[name], Begin: -1}
		for p, end := range ends[name] {
			if end.Err != nil {
				continue
			}
			s.Partitions++
			begin := begins[name][p].Offset
			if s.Begin < 0 || begin < s.Begin {
				s.Begin = begin
			}
			s.Records += end.Offset - begin
			s.Fullest = max(s.Fullest, end.Offset-begin)
		}
		if s.Partitions > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// cleanup asks for the topics' cleanup policies. Brokers that do not tell leave them out.
func cleanup(ctx context.Context, adm *kadm.Client, names []string) map[string]string {
	out := map[string]string{}
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return out
	}
	for _, rc := range configs {
		for _, kv := range rc.Configs {
			if kv.Key == "cleanup.policy" && kv.Value != nil {
				out[rc.Name] = *kv.Value
			}
		}
	}
	return out
}
