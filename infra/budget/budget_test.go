package budget_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"heliograph/infra/budget"
)

// However many take as much as they are let, the sum stays within the limit but for what an empty holder takes, and
// who holds little is served longer than who holds much.
func TestSumIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const memory, one, most = 64 << 20, 1 << 10, 1 << 20 // 16 MiB for queues
		b := budget.New(memory, nil)
		held := make([]int, rapid.IntRange(1, 3000).Draw(t, "holders"))
		put := func(i int) bool { // as outboxes and queues do
			if held[i] > 0 && held[i]+one > b.Most(most) {
				return false
			}
			held[i] += one
			b.Add(one)
			return true
		}
		for full := false; !full; {
			full = true
			for i := range held {
				if held[i] < 2*most && put(i) {
					full = false
				}
			}
		}
		if b.Used() > memory/4+int64(len(held)*one) {
			t.Fatalf("%d bytes are held", b.Used())
		}
		if len(held) < 1000 { // then something is free still, for those that come now
			if m := b.Most(most); m < 4*one {
				t.Fatalf("%d holders leave %d bytes to another", len(held), m)
			}
		}
		for i := range held {
			b.Add(-held[i])
		}
		if b.Used() != 0 || b.Most(most) != most {
			t.Fatalf("%d bytes are held at the end", b.Used())
		}
	})
}

func TestWorkWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(400, nil) // 100 bytes of work
		done, err := b.Work(t.Context(), 1000)
		if err != nil {
			t.Fatalf("work larger than all: %v", err)
		}
		began := make(chan func())
		go func() {
			d, _ := b.Work(t.Context(), 50)
			began <- d
		}()
		synctest.Wait()
		select {
		case <-began:
			t.Fatal("work began beside all that fits")
		default:
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Work(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		done()
		(<-began)()
	})
}

// What is kept beyond a quarter of the memory is taken from what may wait.
func TestWhatIsKeptIsTakenFromWhatMayWait(t *testing.T) {
	const memory, most = 64 << 20, 1 << 20
	b := budget.New(memory, nil)
	for _, x := range []struct {
		kept, most int
		tight      bool
	}{
		{0, most, false}, {memory / 4, most, false}, {memory * 3 / 8, memory / 8 / 16, false},
		{memory*3/8 + 16, memory/8/16 - 1, true}, {memory / 2, 0, true}, {memory, 0, true}, {0, most, false},
	} {
		b.Keep(x.kept - int(b.Kept()))
		if got := b.Most(most); got != x.most || b.Tight() != x.tight {
			t.Errorf("with %d bytes kept one may have %d, want %d; tight %v", x.kept, got, x.most, b.Tight())
		}
	}
}

func TestNoBudgetIsNoLimit(t *testing.T) {
	var b *budget.Budget
	b.Add(1 << 40)
	done, err := b.Work(t.Context(), 1<<40)
	if err != nil || b.Most(7) != 7 || b.Tight() || b.Used() != 0 || b.Cache() < 1<<40 {
		t.Fatal("a nil budget limits something")
	}
	done()
}
