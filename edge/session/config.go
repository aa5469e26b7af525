package session

import (
	"errors"
	"fmt"
	"time"

	"heliograph/schemas/topic"
)

// Config of a Server. Zero means default.
type Config struct {
	// Edge is the name of this edge as Welcome says it; default "edge".
	Edge string
	// Partitions is P; needed.
	Partitions int

	// HelloTimeout is how long a connection may stay unauthenticated; default 30 s (section 3).
	HelloTimeout time.Duration
	// PinTimeout is how long it may after a PIN was asked for; default 5 min (section 3).
	PinTimeout time.Duration
	// RequestTimeout bounds one request; default 15 s.
	RequestTimeout time.Duration
	// WriteTimeout is how long a device may read nothing while there is something to write; default 30 s.
	WriteTimeout time.Duration
	// ResyncTimeout is how long a device may leave Resync unanswered; default 60 s.
	ResyncTimeout time.Duration

	// MaxEarlyFrame is the longest frame before authentication in bytes; default 8 KiB.
	MaxEarlyFrame int
	// MaxEarlyFrames is the most frames before authentication; default 64.
	MaxEarlyFrames int
	// MaxInflight is the most requests that may wait for an answer; default wire.MaxInflight.
	MaxInflight int
	// MaxPages is the most pages of history that are read and written at one time on this edge, each of up to
	// wire.MaxServerFrame bytes; default 64.
	MaxPages int
	// OutboxFrames and OutboxBytes bound what waits for the device; defaults 4,096 and 1 MiB. Answers may go beyond
	// them, up to four times as much.
	OutboxFrames, OutboxBytes int
	// OutboxReceipts bounds the members' watermarks that wait for the device, each of one member of one thread; default
	// 8,192. Those of one thread fit while fewer wait; beyond it the device lags.
	OutboxReceipts int
	// SendRate and SendBurst bound the messages of a connection; defaults 1,000 a second and 2,000.
	SendRate, SendBurst int
	// SendsPerDay is how many messages a user has at once, over all his connections to this edge; they come back evenly
	// over a day. Default 100,000. It bounds what the folds remember of him for the rule on retries.
	SendsPerDay int
	// RequestRate and RequestBurst bound its other requests; defaults 200 a second and 400.
	RequestRate, RequestBurst int
	// JoinRate and JoinBurst bound the users whom it puts into groups, each of whom costs an event of his own; defaults
	// 1,000 a second and 10,000.
	JoinRate, JoinBurst int
	// SyncRate and SyncBurst bound its Syncs: one beyond them waits. Defaults 1 a second and 5.
	SyncRate, SyncBurst int
	// WatermarkRate and WatermarkBurst bound its watermarks: the connection of a device with more is read more slowly,
	// and none is lost. Defaults 2,000 a second and 10,000.
	WatermarkRate, WatermarkBurst int
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
	if c.Edge == "" {
		c.Edge = "edge"
	}
	wait(&c.HelloTimeout, 30*time.Second)
	wait(&c.PinTimeout, 5*time.Minute)
	wait(&c.RequestTimeout, 15*time.Second)
	wait(&c.WriteTimeout, 30*time.Second)
	wait(&c.ResyncTimeout, time.Minute)
	set(&c.MaxEarlyFrame, 8<<10)
	set(&c.MaxEarlyFrames, 64)
	set(&c.MaxInflight, maxInflight)
	set(&c.MaxPages, 64)
	set(&c.OutboxFrames, 4096)
	set(&c.OutboxBytes, 1<<20)
	set(&c.OutboxReceipts, 8192)
	set(&c.SendRate, 1000)
	set(&c.SendBurst, 2000)
	set(&c.SendsPerDay, 100_000)
	set(&c.RequestRate, 200)
	set(&c.RequestBurst, 400)
	set(&c.JoinRate, 1000)
	set(&c.JoinBurst, 10_000)
	set(&c.SyncRate, 1)
	set(&c.SyncBurst, 5)
	set(&c.WatermarkRate, 2000)
	set(&c.WatermarkBurst, 10_000)
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
		{"hello timeout", int64(c.HelloTimeout)}, {"pin timeout", int64(c.PinTimeout)},
		{"request timeout", int64(c.RequestTimeout)},
		{"write timeout", int64(c.WriteTimeout)}, {"resync timeout", int64(c.ResyncTimeout)},
		{"longest early frame", int64(c.MaxEarlyFrame)}, {"number of early frames", int64(c.MaxEarlyFrames)},
		{"requests in flight", int64(c.MaxInflight)}, {"pages at one time", int64(c.MaxPages)},
		{"outbox frames", int64(c.OutboxFrames)}, {"outbox bytes", int64(c.OutboxBytes)},
		{"outbox receipts", int64(c.OutboxReceipts)}, {"send rate", int64(c.SendRate)},
		{"send burst", int64(c.SendBurst)},
		{"sends per day", int64(c.SendsPerDay)},
		{"request rate", int64(c.RequestRate)}, {"request burst", int64(c.RequestBurst)},
		{"join rate", int64(c.JoinRate)}, {"join burst", int64(c.JoinBurst)}, {"sync rate", int64(c.SyncRate)},
		{"sync burst", int64(c.SyncBurst)},
		{"watermark rate", int64(c.WatermarkRate)}, {"watermark burst", int64(c.WatermarkBurst)},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("session: %s is negative", f.name))
		}
	}
	return errors.Join(errs...)
}
