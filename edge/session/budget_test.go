package session

import (
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
)

// sendUntil takes from a user's budget until it is refused, or limit times, and returns how often that went well.
func sendUntil(b *budgets, u id.UserID, limit int) (n int, refused *wire.Error) {
	for ; n < limit; n++ {
		if refused = b.take(u, 1); refused != nil {
			break
		}
	}
	return n, refused
}

func TestBudgetBoundsADay(t *testing.T) {
	now := time.UnixMilli(0)
	b := newBudgets(1000, 1<<40)
	b.now = func() time.Time { return now }
	hostile, other := id.UserID{1}, id.UserID{2}
	n, refused := sendUntil(b, hostile, 1<<20)
	if n != 1000 {
		t.Errorf("%d messages at once, want 1000", n)
	}
	if !refused.Retriable() || refused.RetryAfter < time.Second {
		t.Errorf("refused with %v after %v", refused, refused.RetryAfter)
	}
	if n, _ := sendUntil(b, other, 10); n != 10 {
		t.Errorf("another user got %d through", n)
	}
	now = now.Add(refused.RetryAfter)
	if n, _ := sendUntil(b, hostile, 1<<20); n < 9 || n > 11 {
		t.Errorf("%d messages after the pause that was asked for, want about 10", n)
	}
	total := 1000
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Minute) {
		n, _ := sendUntil(b, hostile, 1<<20)
		total += n
	}
	if total > 2000 {
		t.Errorf("%d messages within a day, want at most 2000", total)
	}
	now = now.Add(48 * time.Hour)
	if n, _ := sendUntil(b, hostile, 1<<20); n != 1000 {
		t.Errorf("%d messages at once after two days of rest, want 1000", n)
	}
}

func TestBudgetsOfIdleUsersAreForgotten(t *testing.T) {
	now := time.UnixMilli(0)
	b := newBudgets(86_400, 1<<40)
	b.now = func() time.Time { return now }
	busy := id.UserID{255}
	if n, refused := sendUntil(b, busy, 86_400); refused != nil {
		t.Fatalf("refused after %d messages of a budget that holds more: %v", n, refused)
	}
	for k := range 10 * leastSweep {
		if refused := b.take(id.UserID{byte(k), byte(k >> 8), 1}, 1); refused != nil {
			t.Fatal(refused)
		}
		now = now.Add(10 * time.Millisecond)
	}
	if len(b.users) > 3*leastSweep {
		t.Errorf("%d budgets are kept", len(b.users))
	}
	if n, _ := sendUntil(b, busy, 1<<20); n > 200 {
		t.Errorf("a spent budget was forgotten: %d more messages", n)
	}
}

// TestAMessageCostsItsDeliveries: what a group of 1,000 costs, it costs, and a group that is larger than a whole budget
// is not shut out.
func TestAMessageCostsItsDeliveries(t *testing.T) {
	now := time.UnixMilli(0)
	b := newBudgets(1<<40, 5000)
	b.now = func() time.Time { return now }
	u := id.UserID{1}
	for k := range 5 {
		if refused := b.take(u, 1000); refused != nil {
			t.Fatalf("message %d to a group of 1,000: %v", k+1, refused)
		}
	}
	refused := b.take(u, 1000)
	if refused == nil || refused.RetryAfter < 4*time.Hour {
		t.Fatalf("the sixth: %v, want a pause of a fifth of a day", refused)
	}
	now = now.Add(refused.RetryAfter + time.Second)
	if refused := b.take(u, 1000); refused != nil {
		t.Errorf("after the pause that was asked for: %v", refused)
	}
	if refused := b.take(id.UserID{2}, 1_000_000); refused != nil {
		t.Errorf("one that costs more than a budget: %v", refused)
	}
}

// TestARefusedMessageCostsNothing: whoever is refused for what a message costs has as many messages as before.
func TestARefusedMessageCostsNothing(t *testing.T) {
	now := time.UnixMilli(0)
	b := newBudgets(3, 2000)
	b.now = func() time.Time { return now }
	u := id.UserID{1}
	var refused *wire.Error
	for range 100 {
		if err := b.take(u, 1000); err != nil {
			refused = err
		}
	}
	if refused == nil {
		t.Fatal("100,000 deliveries of 2,000")
	}
	if again := b.take(u, 0); again != nil {
		t.Errorf("the third message: %v", again)
	}
	if again := b.take(u, 0); again == nil {
		t.Error("a fourth message of three")
	}
}
