package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// Ends asks the log for the next position of a topic in each slot, in the order of the slots: whatever was acknowledged
// before the call lies before it.
func (b *Bases) Ends(ctx context.Context, cl *kgo.Client, t topic.Topic) ([]topic.Position, error) {
	name := b.cfg.Name(t)
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: list end offsets of %s: %w", name, err)
	}
	out := make([]topic.Position, len(b.byName[name]))
	for s := range out {
		end, ok := listed.Lookup(name, int32(s))
		if !ok {
			return nil, fmt.Errorf("kafka: list end offsets of %s: nothing of partition %d", name, s)
		}
		out[s] = b.end(name, int32(s), end.Offset)
	}
	return out, nil
}
