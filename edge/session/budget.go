package session

import (
	"sync"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// budgets bounds what a user sends in a day, over all his devices on this edge: every fold remembers a thread's
// messages of the last 24 hours, so without a bound one member could make it remember any number; and what a message
// costs is its deliveries (wire 7.12). It is kept by each edge alone, because a send does no I/O: who goes to several
// edges has a budget on each. A user has perDay at once, which come back evenly over a day: at most twice perDay in any
// 24 hours. Its methods may be called from any goroutine.
type budgets struct {
	// Fixed.
	perDay float64
	now    func() time.Time

	mu    sync.Mutex // guards what follows
	users map[id.UserID]spent
	sweep int // how many users there may be before those are forgotten who have everything again
}

type spent struct {
	left float64
	at   time.Time
}

// leastSweep is a number of users whose budgets are not worth forgetting.
const leastSweep = 1024

func newBudgets(perDay int) *budgets {
	return &budgets{perDay: float64(perDay), now: time.Now, users: map[id.UserID]spent{}, sweep: leastSweep}
}

// take takes cost of a user's budget, at most all of it; a refusal says when there is some again.
func (b *budgets) take(u id.UserID, cost int) *wire.Error {
	need := min(float64(cost), b.perDay)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	have, known := b.users[u]
	if !known {
		if len(b.users) >= b.sweep {
			b.forget(now)
		}
		have = spent{b.perDay, now}
	}
	left := b.refilled(have, now)
	if left < need {
		const few = 10
		wait := time.Duration((max(few, need) - left) / b.perDay * float64(24*time.Hour))
		return &wire.Error{
			Code:       wirev1.Code_CODE_RATE_LIMITED,
			Message:    "the messages of a day are sent",
			RetryAfter: max(wait, time.Second),
		}
	}
	b.users[u] = spent{left - need, now}
	return nil
}

func (b *budgets) refilled(have spent, now time.Time) float64 {
	return min(b.perDay, have.left+now.Sub(have.at).Hours()/24*b.perDay)
}

// forget drops the users who have their whole budget again, which are nearly all: a message comes back within a second.
// The caller holds mu.
func (b *budgets) forget(now time.Time) {
	for u, have := range b.users {
		if b.refilled(have, now) >= b.perDay {
			delete(b.users, u)
		}
	}
	b.sweep = max(leastSweep, 2*len(b.users))
}
