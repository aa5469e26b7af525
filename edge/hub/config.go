package hub

import (
	"errors"
	"fmt"
	"time"

	"heliograph/schemas/topic"
)

// Config of a Hub. Zero values mean the defaults.
type Config struct {
	// Partitions is P, the number of slots of the deployment. Default topic.DefaultPartitions.
	Partitions int
	// Name is how this edge calls itself to delivery instances. Default "edge".
	Name string

	// Linger is how long a subject stays subscribed after the last interest in it. Default 20 s; at least 15 s in
	// production, so that a message rejected late is still seen.
	Linger time.Duration
	// Wait bounds how long Attach, Sync, EnsureThread and DeviceKey wait for Postgres and for links before they say
	// CODE_UNAVAILABLE. Default 5 s.
	Wait time.Duration
	// DeviceWait bounds how long DeviceKey waits for a device that nobody knows: its registration may be milliseconds
	// old. Default 1 s.
	DeviceWait time.Duration
	// Refresh is how often the directory is asked who runs delivery. Default 1 s.
	Refresh time.Duration
	// RetryMin and RetryMax bound the backoff of links and snapshots. Defaults 10 ms and 2 s.
	RetryMin, RetryMax time.Duration

	// Loaders is how many snapshots, and how many of each kind of query, run at one time. Default 3.
	Loaders int
	// Gather is the least time from one snapshot to the next, and from one query for devices or for cursors to the
	// next: when thousands of devices come at once, those of a few milliseconds share a query. Default 4 ms.
	Gather time.Duration
	// Batch is the most subjects of one snapshot or one Subscribe. Default 256.
	Batch int
	// Catchups is how many internal catch-ups (threads that were joined) run at one time. Default 8.
	Catchups int
	// Page is how many events Sync reads at one time for one thread, and PageBytes after how many bytes of them it
	// stops. Defaults 100 and 64 KiB, which is the largest message: a page has less than twice as much.
	Page, PageBytes int
	// SubjectBuffer is how many events a subject that waits for its snapshot may hold; beyond it they are dropped and
	// it is subscribed anew. Default 4,096.
	SubjectBuffer int
	// SessionBuffer is how many events a session that is synchronising may hold; beyond it the session lags. Default
	// 4,096.
	SessionBuffer int
}

func (c Config) withDefaults() Config {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if c.Name == "" {
		c.Name = "edge"
	}
	set(&c.Partitions, topic.DefaultPartitions)
	set(&c.Loaders, 3)
	set(&c.Batch, 256)
	set(&c.Catchups, 8)
	set(&c.Page, 100)
	set(&c.PageBytes, 64<<10)
	set(&c.SubjectBuffer, 4096)
	set(&c.SessionBuffer, 4096)
	wait(&c.Linger, 20*time.Second)
	wait(&c.Gather, 4*time.Millisecond)
	wait(&c.Wait, 5*time.Second)
	wait(&c.DeviceWait, time.Second)
	wait(&c.Refresh, time.Second)
	wait(&c.RetryMin, 10*time.Millisecond)
	wait(&c.RetryMax, 2*time.Second)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Partitions < 0 || c.Partitions > topic.MaxPartitions {
		errs = append(errs, fmt.Errorf("hub: %d partitions are not in 1..%d", c.Partitions, topic.MaxPartitions))
	}
	for _, f := range []struct {
		name string
		v    int
	}{{"loaders", c.Loaders}, {"batch", c.Batch}, {"catchups", c.Catchups}, {"page", c.Page}, {"page bytes", c.PageBytes}, {"subject buffer", c.SubjectBuffer}, {"session buffer", c.SessionBuffer}} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("hub: %s is negative", f.name))
		}
	}
	for _, f := range []struct {
		name string
		v    time.Duration
	}{{"linger", c.Linger}, {"gather", c.Gather}, {"wait", c.Wait}, {"device wait", c.DeviceWait}, {"refresh", c.Refresh}, {"shortest retry", c.RetryMin}, {"longest retry", c.RetryMax}} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("hub: %s is negative", f.name))
		}
	}
	if d := c.withDefaults(); d.RetryMin > d.RetryMax {
		errs = append(errs, errors.New("hub: the shortest retry is longer than the longest"))
	}
	return errors.Join(errs...)
}
