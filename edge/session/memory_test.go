package session

import (
	"testing"

	"heliograph/infra/budget"
	"heliograph/schemas/id"
)

// What waits for all devices has one bound: those that take nothing are refused, the fullest first, and one that reads
// gets what it is sent all the while. What is taken or dropped is free again.
func TestOutboxesShareABudget(t *testing.T) {
	const frame, each, limit = 60 << 10, 1 << 20, 16 << 20
	b := budget.New(4*limit, nil)
	l := load{budget: b}
	put := func(o *outbox) verdict { return o.put(make([]byte, frame), true, false, 4096, each, &l) }
	silent := make([]outbox, 200) // 200 MiB by their own bounds
	refused := 0
	for range 20 {
		for i := range silent {
			if put(&silent[i]) == full {
				refused++
			}
		}
	}
	if used := b.Used(); used > limit+int64(len(silent))*frame || used < limit/2 {
		t.Errorf("%d bytes wait, of a limit of %d", used, limit)
	}
	if refused == 0 {
		t.Error("nobody was refused")
	}
	var reader outbox
	for i := range 100 {
		if v := put(&reader); v == full {
			t.Fatalf("push %d to a device that reads was refused", i)
		}
		for len(reader.take(nil, &l)) > 0 {
		}
	}
	for i := range silent {
		if i%2 == 0 {
			silent[i].putReceipts(id.NewGroup(), markOf(1), 10, &l)
			silent[i].lag(nil, &l)
		}
		silent[i].close(&l)
	}
	if b.Used() != 0 || l.bytes.Load() != 0 {
		t.Errorf("%d bytes are counted when nothing waits", b.Used())
	}
}

// A device that reads is answered, however little memory is free.
func TestAnswersWithoutMemory(t *testing.T) {
	b := budget.New(4<<20, nil)
	l := load{budget: b}
	b.Add(1 << 20) // all of it
	var o outbox
	for range 15 {
		if v := o.put(make([]byte, 1<<10), false, false, 4096, 1<<20, &l); v == full {
			t.Fatal("an answer was refused")
		}
	}
	if v := o.put(make([]byte, 1<<10), true, false, 4096, 1<<20, &l); v != full {
		t.Errorf("a push behind them: %v", v)
	}
}
