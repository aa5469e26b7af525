package session

import (
	"errors"
	"fmt"
	"time"

	"heliograph/infra/budget"
	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// Config of a Server. Zero means default.
type Config struct {
	// Edge is the name of this edge as Welcome says it; default "edge".
	Edge string
	// Partitions is P; needed.
	Partitions int

	// HelloTimeout is how long a connection may stay unauthenticated; default 30 s (wire 3.4).
	HelloTimeout time.Duration
	// RequestTimeout bounds one request; default 15 s.
	RequestTimeout time.Duration
	// WriteTimeout is how long a device may read nothing while there is something to write; default 30 s.
	WriteTimeout time.Duration

	// RetryAfter is when a device may come again with what was refused for now and nobody knows for how long; default
	// 500 ms (wire 13.5).
	RetryAfter time.Duration

	// Budget is the memory that devices may fill, over all sessions; nil: no limit but those of each session.
	Budget *budget.Budget

	// MaxInflight is the most requests that may wait for an answer; default wire.MaxInflight.
	MaxInflight int
	// OutboxFrames and OutboxBytes bound what waits for the device; defaults 4,096 and 1 MiB. Answers may go beyond
	// them, up to four times as much.
	OutboxFrames, OutboxBytes int
	// SendRate and SendBurst bound the messages of a connection; defaults 1,000 a second and 2,000.
	SendRate, SendBurst int
	// SendsPerDay is how many messages a user has at once, over all his connections to this edge; they come back evenly
	// over a day. Default 100,000. It bounds what the folds remember of him for the rule on retries.
	SendsPerDay int
	// PushesPerDay is how many deliveries a user's messages may cost at once, over all his connections to this edge:
	// one to a group of 1,000 costs 1,000. They come back evenly over a day. Default 5,000,000.
	PushesPerDay int
	// JoinRate and JoinBurst bound the users whom it puts into groups, each of whom costs an event of his own; defaults
	// 1,000 a second and 10,000.
	JoinRate, JoinBurst int
	// WatermarkRate and WatermarkBurst bound its watermarks: the connection of a device with more is read more slowly,
	// and none is lost. Defaults 2,000 a second and 10,000.
	WatermarkRate, WatermarkBurst int
}

// What nobody has had to set.
const (
	pinTimeout    = 5 * time.Minute // a connection may stay unauthenticated after a PIN was asked for (wire 3.4)
	resyncTimeout = time.Minute     // a device may leave Resync unanswered

	maxEarlyFrame  = 8 << 10 // bytes of a frame before authentication
	maxEarlyFrames = 64      // frames before authentication

	// The most pages of history that are read at one time on this edge, each of up to wire.MaxServerFrame bytes, and
	// that wait for their clients beyond what the budget allows; fewer where there is little memory.
	edgePages, leastPages = 64, 4
	// The most members' watermarks that wait for the device, each of one member of one thread. Those of one thread fit
	// while fewer wait; beyond it the device lags.
	maxOutboxReceipts = 8192

	// The most bytes of its messages that wait until their threads are known here.
	maxLanes = 4 << 20
	// The most bytes of its other requests that wait for an answer.
	maxAsked = 4 << 20

	haveWeight = 96   // bytes of what it says that it has of a thread
	leastHave  = 1000 // of so many threads it may say so however little memory is free

	requestRate, requestBurst = 200, 400 // requests of a connection that are no messages, a second
	syncRate, syncBurst       = 1, 5     // its Syncs a second: one beyond them waits
)

func (c Config) withDefaults() Config {
	run.Default(&c.Edge, "edge")
	run.Default(&c.HelloTimeout, 30*time.Second)
	run.Default(&c.RequestTimeout, 15*time.Second)
	run.Default(&c.WriteTimeout, 30*time.Second)
	run.Default(&c.RetryAfter, 500*time.Millisecond)
	run.Default(&c.MaxInflight, maxInflight)
	run.Default(&c.OutboxFrames, 4096)
	run.Default(&c.OutboxBytes, 1<<20)
	run.Default(&c.SendRate, 1000)
	run.Default(&c.SendBurst, 2000)
	run.Default(&c.SendsPerDay, 100_000)
	run.Default(&c.PushesPerDay, 5_000_000)
	run.Default(&c.JoinRate, 1000)
	run.Default(&c.JoinBurst, 10_000)
	run.Default(&c.WatermarkRate, 2000)
	run.Default(&c.WatermarkBurst, 10_000)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Partitions < 1 || c.Partitions > topic.MaxPartitions {
		errs = append(errs, fmt.Errorf("session: %d partitions is not in 1..%d", c.Partitions, topic.MaxPartitions))
	}
	if len(c.Edge) > 64 {
		errs = append(errs, errors.New("session: the edge's name is longer than 64 bytes"))
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"hello timeout", int64(c.HelloTimeout)},
		{"request timeout", int64(c.RequestTimeout)},
		{"write timeout", int64(c.WriteTimeout)},
		{"retry after", int64(c.RetryAfter)},
		{"requests in flight", int64(c.MaxInflight)},
		{"outbox frames", int64(c.OutboxFrames)}, {"outbox bytes", int64(c.OutboxBytes)},
		{"send rate", int64(c.SendRate)},
		{"send burst", int64(c.SendBurst)},
		{"sends per day", int64(c.SendsPerDay)},
		{"pushes per day", int64(c.PushesPerDay)},
		{"join rate", int64(c.JoinRate)}, {"join burst", int64(c.JoinBurst)},
		{"watermark rate", int64(c.WatermarkRate)}, {"watermark burst", int64(c.WatermarkBurst)},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("session: %s is negative", f.name))
		}
	}
	return errors.Join(errs...)
}
