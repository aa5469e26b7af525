package roster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
)

// Read returns the processes that announced themselves within a time, sorted by role, name and start: what each said
// last. A log that nobody has announced himself on has none.
func Read(ctx context.Context, cfg kafka.Config, within time.Duration) ([]Role, error) {
	cfg.Registerer, cfg.Budget = nil, nil
	name := cfg.Name(Topic)
	cl, err := kafka.Dial(cfg, kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	from, end, err := span(ctx, cl, name, time.Now().Add(-within))
	if err != nil || from >= end {
		return nil, err
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(from)}})
	last := map[string]Role{}
	for at := from; at < end; {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("roster: read %s: %w", name, err)
		}
		if err := fs.Err(); err != nil {
			return nil, fmt.Errorf("roster: read %s: %w", name, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			role, err := decode(r.Value)
			if err != nil {
				return // of a later version, or nobody's: it is nothing that one could tell of
			}
			role.Seen = r.Timestamp.UTC()
			last[role.Instance] = role
		})
	}
	out := make([]Role, 0, len(last))
	for _, r := range last {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Role) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), a.Started.Compare(b.Started),
			cmp.Compare(a.Instance, b.Instance))
	})
	return out, nil
}

// span is what was announced since a time, as offsets; none where there is no topic.
func span(ctx context.Context, cl *kgo.Client, name string, since time.Time) (from, end int64, err error) {
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("roster: where %s ends: %w", name, err)
	}
	e, ok := ends.Lookup(name, 0)
	if !ok {
		return 0, 0, nil
	}
	starts, err := adm.ListOffsetsAfterMilli(ctx, since.UnixMilli(), name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("roster: where %s begins: %w", name, err)
	}
	s, _ := starts.Lookup(name, 0)
	return s.Offset, e.Offset, nil
}
