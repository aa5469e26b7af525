package kafka

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// TestGatherWaitsForCompany: a quiet slot's batch goes soon after its last record, a busy one's when it has gathered
// long enough or much enough.
func TestGatherWaitsForCompany(t *testing.T) {
	g := gathering{
		linger:     50 * time.Millisecond,
		busy:       2 * time.Second,
		enough:     100,
		maxRecords: 1000,
		maxBytes:   1 << 20,
	}
	for _, test := range []struct {
		name        string
		every       time.Duration // between two records
		records     int
		least, most time.Duration // until the batch
		size        int           // 0: not looked at
	}{
		{"a single record", 0, 1, 50 * time.Millisecond, 50 * time.Millisecond, 1},
		{"a few, then nothing", 20 * time.Millisecond, 5, 130 * time.Millisecond, 130 * time.Millisecond, 5},
		{"without a pause", 40 * time.Millisecond, 90, 1500 * time.Millisecond, 2600 * time.Millisecond, 0},
		{"as many as are worth it", time.Millisecond, 500, 99 * time.Millisecond, 101 * time.Millisecond, 100},
		{"more than fit", 0, 1500, 0, 0, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(0, place{}, nil, false, []topic.Topic{topic.Threads})
				bases := &Bases{}
				ctx, stop := context.WithCancel(t.Context())
				var pusher sync.WaitGroup
				defer pusher.Wait()
				defer stop()
				pusher.Go(func() {
					for i := range test.records {
						if i > 0 && test.every > 0 && !run.Sleep(ctx, test.every) {
							return
						}
						f.push(
							topic.Threads, []*kgo.Record{{Offset: int64(i), Value: []byte{1}}}, bases, 1<<20, 1<<30,
						)
					}
				})
				synctest.Wait()
				begun := time.Now()
				recs, _, _, err := f.gather(t.Context(), g, nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took < test.least || took > test.most {
					t.Errorf("the batch went after %v, not within %v and %v", took, test.least, test.most)
				}
				if test.size > 0 && len(recs) != test.size {
					t.Errorf("the batch has %d records, not %d", len(recs), test.size)
				}
			})
		})
	}
}
