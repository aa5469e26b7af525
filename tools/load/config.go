package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"heliograph/infra/run"
)

// Part is one of the measurements.
type Part string

// The parts, in the order in which they run.
const (
	Connections Part = "connections"
	Throughput  Part = "throughput"
	Latency     Part = "latency"
	Fanout      Part = "fanout"
	Ceiling     Part = "ceiling"
)

// Parts returns all of them, in order.
func Parts() []Part { return []Part{Connections, Throughput, Latency, Fanout, Ceiling} }

// Target is the deployment that is measured.
type Target struct {
	// Edge is where devices connect (UDP), TLS how they check it.
	Edge string
	TLS  *tls.Config
	// Pins gives the PINs of new users.
	Pins Pins
	// Admin is the servers' admin address, for lag; empty: not known.
	Admin string
	// Pprof is their address of profiles, for collecting garbage before memory is measured; empty: it is measured as it
	// is.
	Pprof string
	// PID is the process on this machine that holds the connections; 0: unknown. Others are what else belongs to the
	// servers, by name.
	PID    int
	Others map[string]int
	// Kafka is the broker, for the ceiling; empty: only the ceiling of QUIC is measured.
	Kafka []string
}

// Config of Run. Zero fields take the defaults that are named with them.
type Config struct {
	// Target is what is measured.
	Target Target
	// Restart starts the servers anew after users were registered, so that memory is measured in a young process; nil:
	// they are left as they are.
	Restart func() (Target, error)
	// Parts to measure; all.
	Parts []Part
	// Measure is how long each loop is measured, after its warm-up; 30 s.
	Measure time.Duration
	// State is the file of registered users; empty: none.
	State string
	// Senders of the throughput and the latency part, each with a recipient of its own; 200.
	Senders int
	// Window is how many messages of a sender may be unacknowledged; 16.
	Window int
	// Body is the length of a message's text in bytes; 100.
	Body int
	// Rates are the messages a second of the latency part; 1,000 and 5,000.
	Rates []int
	// Connected is how many devices are connected in the latency part; 1,000. Senders of them send to as many others;
	// the rest is idle.
	Connected int
	// Group is the number of members of the fan-out part's group, the sender among them; 100.
	Group int
	// Idle is the number of connections of the connections part; 2,000.
	Idle int
	// Progress takes a line for each step; nil: nowhere.
	Progress io.Writer

	// patience bounds every wait for the servers: a connection, the arrival of what was sent; for tests; 60 s.
	patience time.Duration
}

const (
	minBody     = runDigits + flowDigits + seqDigits
	atOnce      = 64  // users that register or connect at the same time
	perSocket   = 500 // clients that share a UDP socket
	maxUsers    = 100_000
	maxRate     = 1_000_000
	maxMeasured = time.Hour
)

func (c Config) withDefaults() Config {
	run.Default(&c.Senders, 200)
	run.Default(&c.Window, 16)
	run.Default(&c.Body, 100)
	run.Default(&c.Connected, 1000)
	run.Default(&c.Group, 100)
	run.Default(&c.Idle, 2000)
	run.Default(&c.Measure, 30*time.Second)
	run.Default(&c.patience, time.Minute)
	run.Default(&c.Progress, io.Discard)
	if len(c.Rates) == 0 {
		c.Rates = []int{1000, 5000}
	}
	if len(c.Parts) == 0 {
		c.Parts = Parts()
	}
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Target.Edge == "" {
		errs = append(errs, errors.New("no edge to measure"))
	}
	if c.Target.Pins == nil {
		errs = append(errs, errors.New("no source of PINs"))
	}
	return errors.Join(append(errs, c.ValidateLoad())...)
}

// ValidateLoad is Validate without a look at the target, for who has none yet.
func (c Config) ValidateLoad() error {
	var errs []error
	for _, p := range c.Parts {
		if !slices.Contains(Parts(), p) {
			errs = append(errs, fmt.Errorf("part %q is none of %v", p, Parts()))
		}
	}
	for _, n := range []struct {
		name     string
		n        int
		min, max int
	}{
		{"senders", c.Senders, 1, maxUsers / 2}, {"window", c.Window, 1, 200}, {"body", c.Body, minBody, 64 << 10},
		{"connected", c.Connected, 2, maxUsers},
		{"group", c.Group, 2, 1024}, {"idle", c.Idle, 1, maxUsers},
	} {
		if n.n != 0 && (n.n < n.min || n.n > n.max) {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", n.name, n.n, n.min, n.max))
		}
	}
	for _, r := range c.Rates {
		if r < 1 || r > maxRate {
			errs = append(errs, fmt.Errorf("rate: %d is not between 1 and %d", r, maxRate))
		}
	}
	if c.Measure < 0 || c.Measure > maxMeasured {
		errs = append(errs, fmt.Errorf("measured time: %v is not between 0 and %v", c.Measure, maxMeasured))
	}
	if c.patience < 0 {
		errs = append(errs, errors.New("patience is negative"))
	}
	return errors.Join(errs...)
}

// users is how many registered users the parts need.
func (c Config) users() int {
	n := 0
	for _, p := range c.Parts {
		switch p {
		case Connections:
			n = max(n, c.Idle)
		case Throughput:
			n = max(n, 2*c.Senders)
		case Latency:
			n = max(n, c.Connected/2*2)
		case Fanout:
			n = max(n, c.Group)
		case Ceiling:
		}
	}
	return n
}

// warm is how long a loop runs before it is measured.
func (c Config) warm() time.Duration {
	return min(3*time.Second, max(c.Measure/4, 200*time.Millisecond))
}
