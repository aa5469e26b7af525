package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/engine"
	secret "heliograph/infra/run"
	"heliograph/tools/secrets"
)

// stopTimeout is how long a role may take to end when the whole cluster stops.
const stopTimeout = 20 * time.Second

// Cluster is a running Heliograph. Its methods may be called from any goroutine.
type Cluster struct {
	opts      Options
	engines   *embedded.Engines // nil when all are external
	engineLog *os.File

	clickHousePassword secret.Secret
	watch              sync.WaitGroup
	tls                *tls.Config
	addrs              map[embedded.Kind]string
	roles              map[Role][]*Process

	extras sync.Mutex // guards extra and ended
	extra  []*Process
	ended  []string // engines that nobody asked to end

	phones sync.Mutex // held while a registration takes its place among the loopback addresses
	from   int
}

// Start starts everything and waits until it is ready. On an error nothing is left running.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{opts: opts, addrs: map[embedded.Kind]string{}, roles: map[Role][]*Process{}}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := c.startEngines(ctx); err != nil {
		return nil, err
	}
	if err := c.makeLog(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if err := c.startRoles(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// prepare makes directories, secrets and the processes, which do not run yet.
func (c *Cluster) prepare() error {
	for _, dir := range []string{c.opts.Dir, c.path("data"), c.path("log")} {
		if err := engine.MakeDir(dir); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := secrets.Ensure(c.Secrets()); err != nil {
		return err
	}
	ca, err := os.ReadFile(c.CA())
	if err != nil {
		return fmt.Errorf("edge's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fmt.Errorf("no certificate in %s", c.CA())
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.opts.Dir, name) }

func (c *Cluster) startEngines(ctx context.Context) error {
	var kinds []embedded.Kind
	for _, k := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
		if e, ok := c.opts.External[k]; ok {
			c.addrs[k] = e.Addr
		} else {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		return nil
	}
	log, err := os.OpenFile(c.path("log/engines.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	engines, err := embedded.Start(ctx, embedded.Options{
		Dir: c.path("data"), EnginesDir: c.opts.EnginesDir, Executable: c.opts.Helio, Kinds: kinds,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("cluster: %w", err), log.Close())
	}
	c.engines, c.engineLog = engines, log
	c.clickHousePassword = secret.Secret(engines.ClickHousePassword)
	c.watch.Go(func() {
		for {
			err := engines.Wait(context.Background()) // until they are stopped
			if err == nil {
				return
			}
			c.extras.Lock()
			c.ended = append(c.ended, err.Error())
			c.extras.Unlock()
		}
	})
	for _, k := range kinds {
		c.addrs[k] = map[embedded.Kind]string{
			embedded.Kafka: engines.KafkaAddr, embedded.Postgres: engines.PostgresURL,
			embedded.ClickHouse: engines.ClickHouseAddr,
		}[k]
	}
	return nil
}

// makeLog makes the topics, as an operator would; a log that is there already stays as it is.
func (c *Cluster) makeLog(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.opts.Helio,
		"init", "--kafka", c.KafkaAddr(), "--partitions", strconv.Itoa(c.opts.Partitions))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cluster: make the log: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// startRoles starts the first of the projectors, which bring the stores' schemas up to date, then all others side by
// side.
func (c *Cluster) startRoles(ctx context.Context) error {
	for _, r := range Roles {
		for i := range c.opts.count(r) {
			p, err := c.process(r, i)
			if err != nil {
				return fmt.Errorf("cluster: %w", err)
			}
			c.roles[r] = append(c.roles[r], p)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return c.each(c.Processes(), func(p *Process) error { return p.Start(ctx) }, cancel)
}

// each runs f for all processes side by side; after the first failure it calls failed.
func (c *Cluster) each(ps []*Process, f func(*Process) error, failed func()) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		errs  []error
	)
	for _, p := range ps {
		wg.Go(func() {
			err := f(p)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
			errs = append(errs, err)
			if failed != nil {
				failed()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return first // the others failed because of it
	}
	return errors.Join(errs...)
}

// process describes a process of a role.
func (c *Cluster) process(r Role, i int) (*Process, error) {
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	name := string(r) + strconv.Itoa(i)
	p := &Process{
		Role: r, Name: name, Admin: admin, Log: c.path(filepath.Join("log", name+".log")),
		env: c.env(), helio: c.opts.Helio, logger: c.opts.Logger, turn: make(chan struct{}, 1),
	}
	common := []string{
		"--name", name, "--admin", admin,
		"--kafka", c.KafkaAddr(), "--partitions", strconv.Itoa(c.opts.Partitions),
	}
	stores := []string{"--postgres", c.PostgresURL(), "--clickhouse", c.ClickHouseAddr()}
	switch r {
	case Threads:
		p.args = slices.Concat([]string{"projector", "--store", "postgres"}, common, stores)
	case History:
		p.args = slices.Concat([]string{"projector", "--store", "clickhouse"}, common, stores)
	case Delivery, Edge:
		if p.Addr, err = freePort(); err != nil {
			return nil, err
		}
		p.args = slices.Concat([]string{string(r)}, common, []string{"--listen", p.Addr, "--secrets", c.Secrets()})
		if r == Edge {
			p.args = slices.Concat(p.args, stores, []string{"--sms", "file:" + c.SMS()})
		}
	}
	p.args = append(p.args, c.opts.Args[r]...)
	return p, nil
}

// env is what does not belong on a command line, which others of the machine may read.
func (c *Cluster) env() []string {
	if password := c.ClickHousePassword(); password != "" {
		return []string{"HELIO_CLICKHOUSE_PASSWORD=" + password.Reveal()}
	}
	return nil
}

// Stop ends the roles, then the engines that Start started. It is an error if one did not end well.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	c.extras.Lock()
	extra := slices.Clone(c.extra)
	c.extras.Unlock()
	err := c.each(append(c.Processes(), extra...), func(p *Process) error {
		// A paused process would not hear of it; one that does not run is no error.
		_ = p.Signal(sigCont)
		return p.Stop(ctx)
	}, nil)
	if c.engines != nil {
		err = errors.Join(err, c.engines.Stop(), c.engineLog.Close())
		c.watch.Wait()
	}
	return err
}

// Role returns the i-th process of a role.
func (c *Cluster) Role(r Role, i int) *Process { return c.roles[r][i] }

// Edge returns the i-th edge.
func (c *Cluster) Edge(i int) *Process { return c.Role(Edge, i) }

// All returns the processes of a role.
func (c *Cluster) All(r Role) []*Process { return slices.Clone(c.roles[r]) }

// Processes returns all of them, by role in the order of Roles.
func (c *Cluster) Processes() []*Process {
	var out []*Process
	for _, r := range Roles {
		out = append(out, c.roles[r]...)
	}
	return out
}

// Extra describes a further process of a role, which does not run yet. It ends with the cluster.
func (c *Cluster) Extra(r Role) (*Process, error) {
	c.extras.Lock()
	defer c.extras.Unlock()
	p, err := c.process(r, len(c.roles[r])+len(c.extra))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.extra = append(c.extra, p)
	return p, nil
}

// WaitReady waits until every process that runs is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.each(c.Processes(), func(p *Process) error {
		if !p.Running() {
			return nil
		}
		return p.WaitReady(ctx)
	}, nil)
}

// Unasked tells of the processes that ended without having been asked to.
func (c *Cluster) Unasked() []string {
	var out []string
	for _, p := range c.Processes() {
		out = append(out, p.Unasked()...)
	}
	c.extras.Lock()
	defer c.extras.Unlock()
	return append(out, c.ended...)
}

// Engine returns an engine for drills.
func (c *Cluster) Engine(k embedded.Kind) Engine {
	if e, ok := c.opts.External[k]; ok {
		if e.Engine == nil {
			return absent(k)
		}
		return e.Engine
	}
	if c.engines == nil {
		return absent(k)
	}
	return own{c.engines, k}
}

// own is an engine that the cluster started.
type own struct {
	engines *embedded.Engines
	kind    embedded.Kind
}

var _ Pausable = own{}

func (e own) Kill() error                       { return e.engines.Kill(e.kind) }
func (e own) Pid() int                          { return e.engines.Pid(e.kind) }
func (e own) Restart(ctx context.Context) error { return e.engines.Restart(ctx, e.kind) }

// absent is an engine that nobody here controls.
type absent embedded.Kind

func (e absent) Kill() error { return fmt.Errorf("%s was not started here", string(e)) }

func (e absent) Restart(context.Context) error { return e.Kill() }

// KafkaAddr is the address of the log.
func (c *Cluster) KafkaAddr() string { return c.addrs[embedded.Kafka] }

// PostgresURL is the connection URL of the thread views' database.
func (c *Cluster) PostgresURL() string { return c.addrs[embedded.Postgres] }

// ClickHouseAddr is the address of the history's HTTP interface.
func (c *Cluster) ClickHouseAddr() string { return c.addrs[embedded.ClickHouse] }

// ClickHousePassword is that of the history's user default; empty where the server is not one that was started here.
func (c *Cluster) ClickHousePassword() secret.Secret { return c.clickHousePassword }

// Partitions is the number of slots.
func (c *Cluster) Partitions() int { return c.opts.Partitions }

// Dir is where everything lies.
func (c *Cluster) Dir() string { return c.opts.Dir }

// SMS is the file that SMS are written to instead of being sent.
func (c *Cluster) SMS() string { return c.path("sms.jsonl") }

// Secrets is the directory of the secrets.
func (c *Cluster) Secrets() string { return c.path("secrets") }

// CA is the PEM file by which devices verify the edges.
func (c *Cluster) CA() string { return filepath.Join(c.Secrets(), secrets.EdgeCert) }
