package chdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestKillUnderInserts kills the engine while several writers insert: every batch that was answered must be there, and
// every other one whole or not at all.
func TestKillUnderInserts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, childConfig{DataDir: dir})
	p.sql(t, "CREATE TABLE t (batch UInt64, k UInt64) ENGINE = MergeTree ORDER BY (batch, k)")
	const rows = 700
	var next atomic.Uint64
	var mu sync.Mutex
	answered := map[uint64]bool{}
	for round := range 4 {
		c := p.open(t, nil)
		var wg sync.WaitGroup
		var count atomic.Int32
		for range 4 {
			wg.Go(func() {
				for {
					id := next.Add(1)
					b, err := c.PrepareBatch(context.Background(), "INSERT INTO t (batch, k)")
					if err != nil {
						return
					}
					for k := range uint64(rows) {
						if err := b.Append(id, k); err != nil {
							return
						}
					}
					if err := b.Send(); err != nil {
						return
					}
					mu.Lock()
					answered[id] = true
					mu.Unlock()
					count.Add(1)
				}
			})
		}
		enough := int32(10 + rand.IntN(20))
		until(t, "some batches are answered", func() bool { return count.Load() >= enough })
		_ = p.stop(t, syscall.SIGKILL)
		wg.Wait()
		_ = c.Close()
		p = start(t, childConfig{DataDir: dir})
		torn := fmt.Sprintf("SELECT batch, count() AS n FROM t GROUP BY batch HAVING n != %d", rows)
		if got := p.sql(t, torn); got != "" {
			t.Errorf("round %d: batches in part:\n%s", round, got)
		}
		have := map[string]bool{}
		for line := range strings.Lines(p.sql(t, "SELECT DISTINCT batch FROM t")) {
			have[strings.TrimSpace(line)] = true
		}
		for id := range answered {
			if !have[fmt.Sprint(id)] {
				t.Errorf("round %d: batch %d was answered and is lost", round, id)
			}
		}
	}
}

// TestCancelStorm cancels many statements at random moments: the engine must go on, and nothing may be left running.
func TestCancelStorm(t *testing.T) {
	p := start(t, childConfig{MaxConcurrent: 6})
	c := p.open(t, nil)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 25 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(40))*time.Millisecond)
				if (w+i)%2 == 0 {
					_ = c.Exec(ctx, endless)
				} else if rows, err := c.Query(ctx, "SELECT number FROM numbers(1000000000000)"); err == nil {
					for rows.Next() {
					}
					_ = rows.Close()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	until(t, "all queries end", func() bool { return p.runningEndless(t) == 0 })
	if got := p.sql(t, "SELECT 1"); got != "1" {
		t.Errorf("got %q", got)
	}
	if err := p.stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}
