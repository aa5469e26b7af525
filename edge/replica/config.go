package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heliograph/infra/budget"
	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// Log is where the log's end is asked for: ingest.
type Log interface {
	// Ends returns the next position of a topic in each slot, as of a moment after the call.
	Ends(ctx context.Context, t topic.Topic) ([]topic.Position, error)
}

// Config of a Replica. Zero values mean the defaults.
type Config struct {
	// Partitions is P, the number of slots of the deployment. Default topic.DefaultPartitions.
	Partitions int
	// Name is how this edge calls itself to delivery instances. Default "edge".
	Name string

	// Budget is the memory that backlogs and the windows of recent messages count against; nil: each has a bound alone.
	Budget *budget.Budget

	// Log tells where the log ends. Without it nobody is ever said to be unknown.
	Log Log
	// Decisions is what operators have decided of quarantine; its news go to Released. nil: nothing ever is.
	Decisions Decisions

	// Linger is how long a subject stays subscribed after the last interest in it. Default 20 s; at least 15 s in
	// production, so that a message rejected late is still seen.
	Linger time.Duration
	// Idle is how long a thread must be of no use, and is at most twice that, until its state is packed. Default 1 min.
	Idle time.Duration
	// Wait bounds how long a call waits for Postgres and for links before it says CODE_UNAVAILABLE. Default 5 s.
	Wait time.Duration

	// Batch is the most subjects of one snapshot or one Subscribe. Default 256.
	Batch int
	// Backlog is how many events a subject that waits for its snapshot may hold, 8 MiB of them at most, and less while
	// little of Budget is free; beyond it they are dropped and it is subscribed anew. Default 4,096.
	Backlog int
}

const (
	// refresh is how often the directory is asked who runs delivery.
	refresh = time.Second
	// retryMin and retryMax bound the backoff of links and snapshots.
	retryMin, retryMax = 10 * time.Millisecond, 2 * time.Second
	// loaders is how many snapshots, and how many of each kind of query, run at one time.
	loaders = 3
	// gathering is the least time from one snapshot to the next, and from one query for devices or for cursors to the
	// next: when thousands of devices come at once, those of a few milliseconds share a query.
	gathering = 4 * time.Millisecond
)

func (c Config) withDefaults() Config {
	run.Default(&c.Name, "edge")
	run.Default(&c.Partitions, topic.DefaultPartitions)
	run.Default(&c.Batch, 256)
	run.Default(&c.Backlog, 4096)
	run.Default(&c.Idle, time.Minute)
	run.Default(&c.Linger, 20*time.Second)
	run.Default(&c.Wait, 5*time.Second)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Partitions < 0 || c.Partitions > topic.MaxPartitions {
		errs = append(errs, fmt.Errorf("replica: %d partitions are not in 1..%d", c.Partitions, topic.MaxPartitions))
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"batch", int64(c.Batch)}, {"backlog", int64(c.Backlog)},
		{"linger", int64(c.Linger)}, {"idle", int64(c.Idle)}, {"wait", int64(c.Wait)},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("replica: %s is negative", f.name))
		}
	}
	return errors.Join(errs...)
}
