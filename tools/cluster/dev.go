package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"heliograph/infra/embedded"
	secret "heliograph/infra/run"
)

// Dev is the role of the one process of StartDev.
const Dev Role = "dev"

// StartDev starts 'helio dev', which is everything in one process with the engines as its children, and waits until it
// is ready. It is the cluster's only process and its edge; engines cannot be killed one by one. Of the options Edges,
// Deliveries and Projectors mean nothing, and External must be empty. On an error nothing is left running.
func StartDev(ctx context.Context, opts Options) (*Cluster, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if len(opts.External) > 0 {
		return nil, errors.New("cluster: helio dev starts its engines itself")
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{opts: opts, addrs: map[embedded.Kind]string{}, roles: map[Role][]*Process{}}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	p := &Process{
		Role:   Dev,
		Name:   "dev",
		Log:    c.path("log/dev.log"),
		helio:  opts.Helio,
		logger: opts.Logger,
		turn:   make(chan struct{}, 1),
	}
	var engines [3]string
	for _, addr := range []*string{&p.Addr, &p.Admin, &engines[0], &engines[1], &engines[2]} {
		if *addr, err = freePort(); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}
	}
	p.args = append([]string{
		"dev", "--data", opts.Dir, "--engines", opts.EnginesDir, "--listen",
		p.Addr, "--admin", p.Admin,
		"--kafka-listen", engines[0], "--postgres-listen", engines[1], "--clickhouse-listen", engines[2],
		"--partitions", strconv.Itoa(opts.Partitions), "--no-canary",
	}, opts.Args[Dev]...)
	c.roles[Edge] = []*Process{p}
	err = p.Start(ctx)
	if err == nil {
		err = c.devState(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// devState reads the engines' addresses from what helio dev says of itself once it is up.
func (c *Cluster) devState(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		var said struct {
			Kafka, Postgres, ClickHouse string
			Password                    string `json:"clickhouse_password"`
		}
		b, err := os.ReadFile(c.path("dev.json"))
		if err == nil {
			if err := json.Unmarshal(b, &said); err != nil {
				return fmt.Errorf("cluster: dev.json: %w", err)
			}
			c.addrs = map[embedded.Kind]string{
				embedded.Kafka:      said.Kafka,
				embedded.Postgres:   said.Postgres,
				embedded.ClickHouse: said.ClickHouse,
			}
			c.clickHousePassword = secret.Secret(said.Password)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster: helio dev does not say where it is: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}
