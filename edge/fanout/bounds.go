package fanout

import "time"

// bounds of a Fanout; tests lower them.
type bounds struct {
	// wait is how long a catch-up waits for a store, and for a link, each time that it does; then it is refused with
	// CODE_UNAVAILABLE, or tried again if nobody asked for it.
	wait time.Duration
	// page is how many events Sync reads at one time for one thread, and pageBytes after how many bytes of them it
	// stops, which is the largest message: a page has less than twice as much.
	page, pageBytes int
	// pending is how many events are held back for a device that catches up, and pendingBytes how many bytes of them;
	// beyond either the device lags.
	pending, pendingBytes int
}

func defaultBounds() bounds {
	return bounds{wait: 5 * time.Second, page: 100, pageBytes: 64 << 10, pending: 4096, pendingBytes: 4 << 20}
}

const (
	// retryAfter is how long after it failed a catch-up that nobody asked for is tried again.
	retryAfter = 2 * time.Second
	// loaders is how many queries to the history run at one time.
	loaders = 3
	// catchups is how many catch-ups that nobody asked for (threads that were joined) read pages at one time. They wait
	// without that: what waits for one slot's views must not keep the others' waiting.
	catchups = 8
	// patience is how long such a catch-up waits for a thread to be live, or for the views, before it is left for
	// later.
	patience = time.Second
	// lateAfter is how long a device may be behind with a thread, while it is on line, before that is said.
	lateAfter = 5 * time.Second
)
