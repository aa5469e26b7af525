package fanout

import (
	"errors"
	"fmt"
	"time"

	"heliograph/infra/run"
)

// Config of a Fanout. Zero values mean the defaults.
type Config struct {
	// Wait bounds how long a catch-up waits for a store, and for a link, each time that it does; then it is refused
	// with CODE_UNAVAILABLE, or tried again if nobody asked for it. Default 5 s.
	Wait time.Duration
	// RetryMax is how long after it failed a catch-up that nobody asked for is tried again. Default 2 s.
	RetryMax time.Duration
	// Loaders is how many queries to the history run at one time. Default 3.
	Loaders int
	// Catchups is how many catch-ups that nobody asked for (threads that were joined) run at one time. Default 8.
	Catchups int
	// Page is how many events Sync reads at one time for one thread, and PageBytes after how many bytes of them it
	// stops. Defaults 100 and 64 KiB, which is the largest message: a page has less than twice as much.
	Page, PageBytes int
	// Pending is how many events are held back for a device that catches up; beyond it the device lags. Default 4,096.
	Pending int
}

func (c Config) withDefaults() Config {
	run.Default(&c.Wait, 5*time.Second)
	run.Default(&c.RetryMax, 2*time.Second)
	run.Default(&c.Loaders, 3)
	run.Default(&c.Catchups, 8)
	run.Default(&c.Page, 100)
	run.Default(&c.PageBytes, 64<<10)
	run.Default(&c.Pending, 4096)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"wait", int64(c.Wait)}, {"longest retry", int64(c.RetryMax)}, {"loaders", int64(c.Loaders)},
		{"catchups", int64(c.Catchups)}, {"page", int64(c.Page)}, {"page bytes", int64(c.PageBytes)},
		{"pending", int64(c.Pending)},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("fanout: %s is negative", f.name))
		}
	}
	return errors.Join(errs...)
}
