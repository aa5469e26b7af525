package client

import (
	"errors"
	"math/rand/v2"
	"time"

	"heliograph/schemas/wire"
)

const (
	// settled is after how long a connection was a good one, whatever ended it.
	settled = 30 * time.Second
	// silentBackoff bounds the wait after an attempt that nothing answered, which took five seconds itself: what died
	// may be back at any moment, and a device that somebody looks at is to be live within ten seconds then. An edge
	// that has too much to do answers, and is given more time.
	silentBackoff = 4 * time.Second
)

// unreached ends an attempt that made no connection; silent: nothing answered.
type unreached struct {
	error
	silent bool
}

func (u unreached) Unwrap() error { return u.error }

// attempts is how those of Run to connect went.
type attempts struct {
	n      int  // by which the next wait grows
	silent bool // nothing answered the last one
	slow   int  // of the last ones, those whose edge fell silent before the device was synchronised
}

// ended takes in how an attempt ended, and after how long. The first connection after a silence says that an outage is
// over: how long that was is no measure for what comes. One that fell silent itself says nothing.
func (a *attempts) ended(lived time.Duration, why error) {
	var u unreached
	reached := !errors.As(why, &u)
	if lived > settled || a.silent && reached && !errors.Is(why, errSilent) {
		a.n = 0
	}
	a.silent = u.silent
	switch {
	case errors.Is(why, errSlow):
		a.slow++
	case reached:
		a.slow = 0
	}
}

// mostSlow bounds how often the patience with an edge is doubled.
const mostSlow = 2

// patience is how long an edge may say nothing until the device is synchronised. When a crowd comes back at once an
// edge needs longer for each than the device waits; who gives up then begins anew, and so the edge would never be
// through.
func (a *attempts) patience(silence time.Duration) time.Duration {
	return silence << min(a.slow, mostSlow)
}

// wait returns how long Run is to wait before its next attempt, and not less than an edge asked for.
func (c *Client) wait(a attempts, why *wire.Error) time.Duration {
	wait := c.backoff(a.n, why)
	if a.silent && !c.background.Load() {
		wait = min(wait, between(silentBackoff))
	}
	return wait
}

// backoff returns how long to wait before a further attempt: drawn at random below a bound that doubles, and not before
// the moment that the server named, at which not everybody comes who was told the same.
func (c *Client) backoff(attempt int, why *wire.Error) time.Duration {
	wait := between(min(c.cfg.MaxBackoff, c.cfg.MinBackoff<<min(attempt, 20)))
	if why != nil && why.RetryAfter > wait {
		wait = why.RetryAfter + rand.N(why.RetryAfter/4+1)
	}
	return wait
}

// between draws a wait at random from the upper half below a bound.
func between(bound time.Duration) time.Duration { return bound/2 + rand.N(bound/2+1) }
