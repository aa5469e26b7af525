package demo

import (
	"errors"
	"time"

	"heliograph/infra/run"
	"heliograph/tools/cluster"
)

// Config of Run. Zero fields take the defaults that are named with them.
type Config struct {
	// Cluster is the deployment. Two edges and two delivery instances at least, since one of each is killed.
	Cluster cluster.Options

	// For tests.

	// burst is how many messages each of three people sends while a process is killed; 40.
	burst int
	// patience is how long anything may take that a step waits for; 45 s.
	patience time.Duration
}

// Validate reports every fault.
func (c Config) Validate() error {
	errs := []error{c.Cluster.Validate()}
	if c.Cluster.Edges == 1 || c.Cluster.Deliveries == 1 {
		errs = append(errs, errors.New("an edge and a delivery instance are killed: there must be another of each"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	run.Default(&c.burst, 40)
	run.Default(&c.patience, 45*time.Second)
	return c
}
