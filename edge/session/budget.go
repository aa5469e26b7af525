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
// edges has a budget on each. A user has all of a day at once, and it comes back evenly over a day: at most twice as
// much in any 24 hours. Its methods may be called from any goroutine.
type budgets struct {
	// Fixed.
	sends, pushes float64 // of a day
	now           func() time.Time

	mu    sync.Mutex // guards what follows
	users map[id.UserID]left
	sweep int // how many users there may be before those are forgotten who have everything again
}

// left is what a user had at a moment.
type left struct {
	sends, pushes float64
	at            time.Time
}

// leastSweep is a number of users whose budgets are not worth forgetting.
const leastSweep = 1024

// newBudgets returns budgets of so many messages and deliveries of messages a day.
func newBudgets(sends, pushes int) *budgets {
	return &budgets{
		sends: float64(sends), pushes: float64(pushes), now: time.Now, users: map[id.UserID]left{}, sweep: leastSweep,
	}
}

// take takes a message and its deliveries, at most all of a day's, from a user's budget; a refusal takes nothing and
// says when there is enough again.
func (b *budgets) take(u id.UserID, deliveries int) *wire.Error {
	need := min(float64(deliveries), b.pushes)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	have, known := b.users[u]
	if !known {
		if len(b.users) >= b.sweep {
			b.forget(now)
		}
		have = left{b.sends, b.pushes, now}
	}
	have = b.refilled(have, now)
	if wait := max(pause(have.sends, 1, b.sends), pause(have.pushes, need, b.pushes)); wait > 0 {
		return &wire.Error{
			Code:       wirev1.Code_CODE_RATE_LIMITED,
			Message:    "the messages of a day are sent",
			RetryAfter: max(wait, time.Second),
		}
	}
	b.users[u] = left{have.sends - 1, have.pushes - need, now}
	return nil
}

// pause is how long it takes until there is enough of something again, and of what comes one by one a few; 0: there is.
func pause(have, need, perDay float64) time.Duration {
	const few = 10
	if have >= need {
		return 0
	}
	return time.Duration((max(few, need) - have) / perDay * float64(24*time.Hour))
}

func (b *budgets) refilled(have left, now time.Time) left {
	days := now.Sub(have.at).Hours() / 24
	return left{min(b.sends, have.sends+days*b.sends), min(b.pushes, have.pushes+days*b.pushes), now}
}

// forget drops the users who have their whole budget again, which are nearly all: a message comes back within a second.
// The caller holds mu.
func (b *budgets) forget(now time.Time) {
	for u, have := range b.users {
		if have = b.refilled(have, now); have.sends >= b.sends && have.pushes >= b.pushes {
			delete(b.users, u)
		}
	}
	b.sweep = max(leastSweep, 2*len(b.users))
}
