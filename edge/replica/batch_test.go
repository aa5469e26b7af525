package replica

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The first call waits for nothing; those that come within the pace share the next load; after a pause nothing waits
// again.
func TestCallsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		type load struct {
			At   time.Duration
			Keys int
		}
		var mu sync.Mutex
		var loads []load
		b := newBatcher(100, 4*time.Millisecond, time.Second, func(_ context.Context, keys []int) ([]int, error) {
			mu.Lock()
			defer mu.Unlock()
			loads = append(loads, load{time.Since(began), len(keys)})
			return slices.Clone(keys), nil
		})
		var loaders, callers sync.WaitGroup
		for range 3 {
			loaders.Go(func() { _ = b.run(ctx) })
		}
		for i := range 60 { // one at once, one each 100 µs, then none for a while, then one more
			callers.Go(func() {
				at := time.Duration(i)*100*time.Microsecond - 50*time.Microsecond
				switch i {
				case 0:
					at = 0
				case 59:
					at = time.Second
				}
				time.Sleep(at)
				if got, err := b.get(ctx, []int{i}); err != nil || len(got) != 1 || got[0] != i {
					t.Errorf("key %d: %v, %v", i, got, err)
				}
			})
		}
		callers.Wait()
		ms := time.Millisecond
		if diff := cmp.Diff([]load{{0, 1}, {4 * ms, 40}, {8 * ms, 18}, {time.Second, 1}}, loads); diff != "" {
			t.Errorf("loads (-want +got):\n%s", diff)
		}
		cancel()
		loaders.Wait()
	})
}

// What is asked while the replica stops ends with its caller's context, and every loader ends.
func TestGatheringEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newBatcher(
			100, time.Hour, time.Second, func(_ context.Context, keys []int) ([]int, error) { return keys, nil },
		)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _ = b.run(ctx) })
		}
		if _, err := b.get(ctx, []int{1}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if _, err := b.get(ctx, []int{2}); err == nil {
				t.Error("an answer without a load")
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}
