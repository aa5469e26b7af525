package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"heliograph/infra/embedded"
	"heliograph/infra/run"
)

// Role is what a process of the cluster does.
type Role string

// The roles.
const (
	Edge     Role = "edge"
	Delivery Role = "delivery"
	Threads  Role = "threads" // the projector of the thread views, in Postgres
	History  Role = "history" // the projector of the history, in ClickHouse
)

// Roles are all of them, in the order in which they start.
var Roles = []Role{Threads, History, Delivery, Edge}

// Engine is a store or the log, as far as drills go.
type Engine interface {
	// Kill ends it at once, as a power cut of its machine would.
	Kill() error
	// Restart brings it back on its address with its data and returns when it answers.
	Restart(ctx context.Context) error
}

// Pausable is what an Engine also is that the cluster started: its process can be sent signals.
type Pausable interface {
	// Pid is the process id; children of it may do the work.
	Pid() int
}

// External is an engine that the cluster uses but did not start.
type External struct {
	// Addr is host and port, for Postgres the connection URL.
	Addr string
	// Engine is what Cluster.Engine returns for it; nil: drills with it fail.
	Engine Engine
}

// Options of Start. Zero fields take the defaults that are named with them.
type Options struct {
	// Dir holds data, secrets, logs and the file of SMS. Needed.
	Dir string
	// Helio is the path of the helio binary. Needed.
	Helio string
	// EnginesDir is where 'make engines' put the engines; .helio/engines.
	EnginesDir string
	// External are engines that run already.
	External map[embedded.Kind]External
	// Edges, Deliveries and Projectors are how many of each there are (of projectors: for each store); 2, 2 and 1.
	Edges, Deliveries, Projectors int
	// Partitions is the number of slots of a new log; 8.
	Partitions int
	// Args are further arguments for the processes of a role.
	Args map[Role][]string
	// Logger takes what happens to processes; nil: nothing.
	Logger *slog.Logger
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if o.Helio == "" {
		errs = append(errs, errors.New("no helio binary"))
	}
	for name, n := range map[string]int{
		"edges":              o.Edges,
		"delivery instances": o.Deliveries,
		"projectors":         o.Projectors,
		"partitions":         o.Partitions,
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%d %s", n, name))
		}
	}
	for role := range o.Args {
		if role != Dev && !slices.Contains(Roles, role) {
			errs = append(errs, fmt.Errorf("unknown role %q", role))
		}
	}
	for kind, e := range o.External {
		if e.Addr == "" {
			errs = append(errs, fmt.Errorf("no address of %s", kind))
		}
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() (Options, error) {
	run.Default(&o.Edges, 2)
	run.Default(&o.Deliveries, 2)
	run.Default(&o.Projectors, 1)
	run.Default(&o.Partitions, 8)
	run.Default(&o.EnginesDir, filepath.Join(".helio", "engines"))
	run.Default(&o.Logger, slog.New(slog.DiscardHandler))
	for _, p := range []*string{&o.Dir, &o.Helio, &o.EnginesDir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, fmt.Errorf("resolve %s: %w", *p, err)
		}
		*p = abs
	}
	return o, nil
}

func (o Options) count(r Role) int {
	switch r {
	case Edge:
		return o.Edges
	case Delivery:
		return o.Deliveries
	default:
		return o.Projectors
	}
}
