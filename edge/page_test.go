package edge

import (
	"context"
	"testing"
	"time"

	"heliograph/infra/budget"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// A device asks for pages of history and reads none of them, as many as an edge has places for. In: another asks for
// one, while there is memory in which pages can wait, and while there is too little. Expected: it gets it, at once or
// when those that take nothing were given up.
func TestPagesThatNobodyReadsStarveNobody(t *testing.T) {
	const memory, pages = 256 << 20, 4 // places of an edge with so little
	for name, used := range map[string]int{"memory": 0, "little memory": 56 << 20} {
		t.Run(name, func(t *testing.T) {
			b := budget.New(memory, nil)
			f := start(t, func(c *Config) { c.Budget, c.Session.RequestTimeout = b, time.Minute })
			silent, other := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
			f.world.mu.Lock()
			f.world.page = 1 << 20
			f.world.mu.Unlock()
			b.Add(used)
			defer b.Add(-used)
			ask := func(d *device) uint64 {
				th := id.NewGroup()
				get := wirev1.GetHistory_builder{ThreadId: th[:]}.Build()
				return d.send(wirev1.ClientFrame_builder{GetHistory: get})
			}
			for range pages {
				ask(silent)
			}
			until(t, "the silent one's pages", func() bool {
				f.world.mu.Lock()
				defer f.world.mu.Unlock()
				return f.world.pagesRead == pages
			})
			req := ask(other)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s, err := other.conn.AcceptUniStream(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got := other.page(s)
			if n := len(got.GetHistoryPage().GetEvents()); got.GetRequestId() != req || n != 1 {
				t.Errorf("got an answer to %d with %d events", got.GetRequestId(), n)
			}
			if waits := b.Used(); used == 0 && waits < pages<<20 {
				t.Errorf("%d bytes wait for the silent one: it was waited for that some of them were given up", waits)
			}
			_ = silent.conn.CloseWithError(0, "")
			until(t, "what waited to be free", func() bool { return b.Used() == int64(used) })
		})
	}
}
