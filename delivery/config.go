package delivery

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
)

// Group is the consumer group that shares the slots of a deployment out, unless Config.Group says otherwise: edges look
// for the instances there.
func Group(c kafka.Config) string { return c.Group("delivery") }

// Config says who this instance is and bounds what it holds. Zero means default.
type Config struct {
	Kafka kafka.Config

	Name  string // unique among instances and stable over restarts; must be set
	Addr  string // host:port at which edges reach this instance's listener; empty in one process
	Group string // default: that of Group(Kafka)

	SessionTimeout time.Duration // until the slots of an instance that died are given to others; default 10 s

	// MaxSubjects is how many subjects (threads and users) one link may have; default 1,000,000. Each costs this
	// process some 250 bytes, and the edge that asks some 300. One too many is refused by itself.
	MaxSubjects int

	// For tests.

	// how soon a member learns of a rebalance; default 500 ms, at most a third of SessionTimeout
	heartbeatInterval time.Duration
	// an orderly stop does not leave the group: a restart within SessionTimeout moves no slot, but its events wait
	keepSlots bool

	ringWindow time.Duration // what a slot's ring keeps; default 10 s
	ringBytes  int           // likewise, per slot; default 4 MiB; all together keep no more than the
	// budget has for caches

	// how far behind the ring a cursor may be and still be served from the log; default 100,000 positions per topic
	maxGapRecords int
	progressEvery time.Duration // how soon links hear of slots that had nothing for them; default 50 ms
}

const (
	maxGapAge  = time.Hour // how old an event may be and still be served from the log behind the ring
	gapReaders = 4         // how many such reads run at the same time
)

// idleProgress is the longest that a link goes without the Progress of an owned slot.
const idleProgress = time.Second

// helloTimeout is how long a link may stand without its first frame.
const helloTimeout = 5 * time.Second

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if err := c.Kafka.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Name == "" || strings.ContainsAny(c.Name, "@/ ") {
		errs = append(errs, fmt.Errorf("delivery: name %q must be set and have no '@', '/' or space", c.Name))
	}
	if c.SessionTimeout < 0 {
		errs = append(errs, errors.New("delivery: session timeout is negative"))
	}
	if c.MaxSubjects < 0 {
		errs = append(errs, errors.New("delivery: the most subjects of a link are negative"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	run.Default(&c.Group, Group(c.Kafka))
	run.Default(&c.SessionTimeout, 10*time.Second)
	run.Default(&c.heartbeatInterval, min(c.SessionTimeout/3, 500*time.Millisecond))
	run.Default(&c.ringWindow, 10*time.Second)
	run.Default(&c.ringBytes, 4<<20)
	run.Default(&c.maxGapRecords, 100_000)
	run.Default(&c.MaxSubjects, 1_000_000)
	run.Default(&c.progressEvery, 50*time.Millisecond)
	return c
}
