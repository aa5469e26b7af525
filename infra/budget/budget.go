package budget

import (
	"context"
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"heliograph/infra/run"
)

// The parts of the memory; the rest is for what lives long (connections, states) and for the runtime.
const (
	queueShare = 4  // what waits
	workShare  = 4  // work in hand
	cacheShare = 8  // states that can be loaded again
	keptShare  = 4  // states that cannot be let go; what is beyond that is taken from what may wait
	earlyShare = 16 // connections of strangers
)

// part is how much of what is free one holder may have.
const part = 16

// Budget is the memory of a process that others may fill. Its methods may be called from any goroutine; a nil Budget
// has no limit.
type Budget struct {
	memory int64
	limit  int64
	used   atomic.Int64
	kept   atomic.Int64
	gate   *semaphore.Weighted
	size   int64 // of gate
}

// New returns a budget over so many bytes of memory, and exports it.
func New(memory int64, reg prometheus.Registerer) *Budget {
	b := &Budget{memory: memory, limit: max(1, memory/queueShare), size: max(1, memory/workShare)}
	b.gate = semaphore.NewWeighted(b.size)
	for _, g := range []struct {
		name, help string
		of         func() float64
	}{
		{"helio_budget_memory_bytes", "Memory that the process reckons with.",
			func() float64 { return float64(memory) }},
		{"helio_budget_limit_bytes", "Most bytes that may wait in all queues of the process.",
			func() float64 { return float64(b.limit) }},
		{"helio_budget_used_bytes", "Bytes that wait in all queues of the process.",
			func() float64 { return float64(b.Used()) }},
		{"helio_budget_kept_bytes", "Bytes of states that cannot be let go.",
			func() float64 { return float64(b.kept.Load()) }},
	} {
		run.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.of))
	}
	return b
}

// Add counts n bytes that are held from now on, or with n < 0 are not any more.
func (b *Budget) Add(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

// Used is how many bytes are held.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// Keep counts n bytes of states that are kept from now on, or with n < 0 are not any more: what lives as long as the
// log says, and that nobody can let go. Once they are more than their share, less may wait.
func (b *Budget) Keep(n int) {
	if b != nil && n != 0 {
		b.kept.Add(int64(n))
	}
}

// Kept is how many bytes of states are kept.
func (b *Budget) Kept() int64 {
	if b == nil {
		return 0
	}
	return b.kept.Load()
}

// free is how many more bytes may wait.
func (b *Budget) free() int64 {
	return max(0, b.limit-b.used.Load()-max(0, b.kept.Load()-b.memory/keptShare))
}

// Most is how many bytes one holder may have now, of those that it has already too: most, or less while little is free.
func (b *Budget) Most(most int) int {
	if b == nil {
		return most
	}
	return int(min(int64(most), b.free()/part))
}

// Tight tells whether less than half is free.
func (b *Budget) Tight() bool { return b != nil && b.free() < b.limit/2 }

// Work waits until work that takes n bytes may begin, in the order of asking; it holds them until done is called. Work
// in hand must not ask for more. Its error is that of ctx.
func (b *Budget) Work(ctx context.Context, n int) (done func(), err error) {
	if b == nil {
		return func() {}, nil
	}
	take := min(int64(n), b.size) // what is larger than all goes alone
	if err := b.gate.Acquire(ctx, take); err != nil {
		return nil, err
	}
	return func() { b.gate.Release(take) }, nil
}

// Cache is how many bytes of states that can be loaded again the process may keep.
func (b *Budget) Cache() int { return b.share(cacheShare) }

// Early is how many bytes the connections of strangers may take.
func (b *Budget) Early() int { return b.share(earlyShare) }

func (b *Budget) share(of int64) int {
	if b == nil {
		return math.MaxInt
	}
	return int(b.memory / of)
}

// Memory is how many bytes the process reckons with; the largest number when there is no budget.
func (b *Budget) Memory() int { return b.share(1) }
