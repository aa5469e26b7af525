package demo

import (
	"errors"
	"fmt"
	"time"

	"heliograph/tools/cluster"
)

// Config of Run. Zero fields take the defaults that are named with them.
type Config struct {
	// Cluster is the deployment. Two edges and two delivery instances at least, since one of each is killed.
	Cluster cluster.Options
	// Burst is how many messages each of three people sends while a process is killed; 40.
	Burst int
	// Patience is how long anything may take that a step waits for; 45 s.
	Patience time.Duration
}

// Validate reports every fault.
func (c Config) Validate() error {
	errs := []error{c.Cluster.Validate()}
	if c.Cluster.Edges == 1 || c.Cluster.Deliveries == 1 {
		errs = append(errs, errors.New("an edge and a delivery instance are killed: there must be another of each"))
	}
	if c.Burst < 0 {
		errs = append(errs, fmt.Errorf("burst %d is negative", c.Burst))
	}
	if c.Patience < 0 {
		errs = append(errs, fmt.Errorf("patience %v is negative", c.Patience))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Burst == 0 {
		c.Burst = 40
	}
	if c.Patience == 0 {
		c.Patience = 45 * time.Second
	}
	return c
}
