package lag

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
)

// age fills in how old what a view lacks is. What was missing already when the log was first asked has to be read;
// what came later is as old as the first asking that saw it, or a little older.
func (m *Meter) age(ctx context.Context, v *View, src Source, a Answer) {
	seen := m.read[v.View]
	still := map[key]known{} // what is not behind any more is forgotten
	var unread []*Place
	now := m.samples[len(m.samples)-1].at
	for i := range v.Places {
		p := &v.Places[i]
		if p.Records == 0 {
			continue
		}
		k := key{p.Topic, p.Slot}
		if r, ok := seen[k]; ok && r.next == p.Next {
			still[k] = r
			p.Seconds = max(0, now.Sub(r.time).Seconds())
			continue
		}
		first := slices.IndexFunc(m.samples, func(s sample) bool {
			return int(p.Slot) < len(s.ends[p.Topic]) && s.ends[p.Topic][p.Slot] > p.Next
		})
		p.Seconds, p.AtLeast = now.Sub(m.samples[first].at).Seconds(), true
		if first == 0 {
			unread = append(unread, p)
		}
	}
	// Those that have got least far by log time come first.
	slices.SortStableFunc(unread, func(x, y *Place) int {
		return a.Times[x.Topic][x.Slot].Compare(a.Times[y.Topic][y.Slot])
	})
	unread = unread[:min(len(unread), m.cfg.Reads)]
	for k, at := range m.stamps(ctx, unread) {
		still[k] = at
	}
	for _, p := range unread {
		if r, ok := still[key{p.Topic, p.Slot}]; ok {
			p.Seconds, p.AtLeast = max(0, now.Sub(r.time).Seconds()), false
		}
	}
	m.read[v.View] = still
}

// stamps reads the log times of the first records that places lack, as far as it gets in the time of one question.
func (m *Meter) stamps(ctx context.Context, places []*Place) map[key]known {
	out := map[key]known{}
	if len(places) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.askTime)
	defer cancel()
	left := map[string]map[int32]*Place{}
	from := map[string]map[int32]kgo.Offset{}
	for _, p := range places {
		name := m.cfg.Kafka.Name(p.Topic)
		if left[name] == nil {
			left[name], from[name] = map[int32]*Place{}, map[int32]kgo.Offset{}
		}
		left[name][int32(p.Slot)] = p
		// What was removed before it is Place.Lost; the first that is there has an age.
		from[name][int32(p.Slot)] = kgo.NewOffset().At(p.at + p.Lost).WithEpoch(-1)
	}
	quiet := m.cfg.Kafka
	quiet.Registerer, quiet.Budget = nil, nil
	rd, err := kafka.Dial(
		quiet, kgo.ConsumePartitions(from), kgo.FetchMaxPartitionBytes(1<<10), kgo.FetchMaxBytes(1<<20),
		kgo.FetchMaxWait(250*time.Millisecond),
	)
	if err != nil {
		return out
	}
	defer rd.Close()
	for n := len(places); n > 0; {
		fs := rd.PollFetches(ctx)
		if ctx.Err() != nil || fs.IsClientClosed() {
			return out
		}
		done := map[string][]int32{}
		fs.EachPartition(func(f kgo.FetchTopicPartition) {
			p := left[f.Topic][f.Partition]
			if p == nil || len(f.Records) == 0 && f.Err == nil {
				return
			}
			if len(f.Records) > 0 {
				out[key{p.Topic, p.Slot}] = known{p.Next, f.Records[0].Timestamp}
			}
			delete(left[f.Topic], f.Partition)
			done[f.Topic] = append(done[f.Topic], f.Partition)
			n--
		})
		rd.PauseFetchPartitions(done) // else a long log would be read on for nothing
	}
	return out
}
