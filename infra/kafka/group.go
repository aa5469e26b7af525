package kafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// Member is one process of a consumer group and the slots it owns.
type Member struct {
	ClientID   string
	InstanceID string // empty without static membership
	Host       string // as the broker sees it
	Slots      []topic.Slot
}

// DescribeGroup lists a group's members, sorted by instance and client id. A group that nobody has joined has none.
func DescribeGroup(ctx context.Context, cl *kgo.Client, cfg Config, group string) ([]Member, error) {
	groups, err := kadm.NewClient(cl).DescribeGroups(ctx, group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: describe group %s: %w", group, err)
	}
	name := cfg.Name(topic.Threads)
	var out []Member
	for _, m := range groups[group].Members {
		one := Member{ClientID: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			one.InstanceID = *m.InstanceID
		}
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				if t.Topic != name {
					continue
				}
				for _, p := range t.Partitions {
					one.Slots = append(one.Slots, topic.Slot(p))
				}
			}
		}
		slices.Sort(one.Slots)
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.ClientID, b.ClientID))
	})
	return out, nil
}
