package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/budget"
	"heliograph/infra/embedded/engine"
	"heliograph/tools/load"
)

// benchCmd measures:
//
//	this process: the generator, with the real client ──QUIC──▶ helio dev, a child of its own (or --edge)
//	                                    └──reads──▶ /proc and the admin address of the child
type benchCmd struct {
	outputFlags
	Parts   []string `arg:"" optional:"" help:"What to measure: throughput, latency, fanout, connections, ceiling; default: all." enum:"throughput,latency,fanout,connections,ceiling" placeholder:"PART"`
	Seconds float64  `help:"How long each loop is measured, after its warm-up." default:"30"`
	Engines string   `help:"Where 'make engines' put the engines, for the bench's own helio dev." default:".helio/engines" type:"path" env:"HELIO_ENGINES"`
	Keep    string   `help:"Directory for the data of the bench's own helio dev, which then stays; default: a temporary one." placeholder:"DIR" type:"path"`

	Edge  string   `help:"Measure the deployment with this edge; its data is written to for good." placeholder:"HOST:PORT" xor:"target"`
	Data  string   `help:"Measure the helio dev that runs with this data directory." placeholder:"DIR" type:"path" xor:"target"`
	CA    string   `help:"PEM file to check the --edge with; default: the system's authorities." placeholder:"FILE" type:"path"`
	SMS   string   `name:"sms" help:"File to which the --edge writes its SMS." placeholder:"FILE" type:"path" xor:"pin"`
	Pin   string   `help:"PIN of every number at the --edge." xor:"pin" env:"HELIO_BENCH_PIN"`
	Admin string   `help:"Admin address of the --edge, for lag and memory." placeholder:"HOST:PORT"`
	Kafka []string `help:"Brokers of the --edge, for the ceiling." placeholder:"HOST:PORT"`
	Pids  []int    `help:"Processes of the --edge on this machine, that which holds the connections first, for CPU and memory." placeholder:"PID"`
	State string   `help:"File of the users that were registered at the --edge, with their keys; default: one in the user's cache directory." placeholder:"FILE" type:"path"`

	Senders   int   `help:"Senders of the throughput and the latency part." default:"200"`
	Window    int   `help:"Messages of a sender without acknowledgement." default:"16"`
	Body      int   `help:"Length of a message in bytes." default:"100"`
	Rates     []int `help:"Messages a second of the latency part." default:"1000,5000"`
	Connected int   `help:"Devices connected in the latency part." default:"1000"`
	Group     int   `help:"Members of the group of the fan-out part." default:"100"`
	Idle      int   `help:"Connections of the connections part." default:"2000"`
}

// Help shows how it is used.
func (benchCmd) Help() string {
	return `Without --edge or --data it starts a helio dev of its own and removes it afterwards.

Examples:
  helio bench
  helio bench throughput --seconds 10
  helio bench latency connections -o json
  helio bench throughput --data .helio                  (against the helio dev that runs there)
  helio bench latency --edge chat.example.org:7443 --pin 123456`
}

// Run prints what was measured, also when a part failed.
func (c *benchCmd) Run(ctx context.Context) (err error) {
	if !(c.Seconds >= 0.1) || c.Seconds > 3600 { // which NaN is not either
		return fmt.Errorf("--seconds %v is not between 0.1 and 3600", c.Seconds)
	}
	if min(c.Senders, c.Window, c.Body, c.Group, c.Idle) < 1 {
		return errors.New("--senders, --window, --body, --group and --idle are at least 1")
	}
	memory, _, _ := budget.Memory() // the number holds with an error too
	keepHeapRoomy(mostHeap, memory)
	cfg := load.Config{
		Measure: time.Duration(c.Seconds * float64(time.Second)),
		Senders: c.Senders, Window: c.Window, Body: c.Body, Rates: c.Rates, Connected: c.Connected,
		Group: c.Group, Idle: c.Idle, Progress: os.Stderr,
	}
	// The parts run in their own order, whatever the order of the words; memory is measured first, while the process is
	// young.
	for _, p := range load.Parts() {
		for _, w := range c.Parts {
			if string(p) == w {
				cfg.Parts = append(cfg.Parts, p)
				break
			}
		}
	}
	if err := cfg.ValidateLoad(); err != nil {
		return err
	}
	switch {
	case c.Edge != "":
		err = c.running(&cfg)
	case c.Data != "":
		if _, err := readDevState(c.Data); err != nil {
			return err
		}
		if cfg.Target, err = load.DevTarget(c.Data); err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		cfg.State = filepath.Join(c.Data, "bench.json")
	default:
		var stop func() error
		stop, err = c.own(ctx, &cfg)
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err != nil {
		return err
	}
	result, err := load.Run(ctx, cfg)
	var rows []table.Row
	for _, r := range result.Rows() {
		rows = append(rows, table.Row{r.What, r.Value, r.Aim})
	}
	if ctx.Err() != nil && len(rows) == 0 {
		return err
	}
	return errors.Join(err, c.print(result, table.Row{"measured", "value", "aim"}, rows))
}

// running points to a deployment that runs already.
func (c *benchCmd) running(cfg *load.Config) error {
	cfg.Target = load.Target{
		Edge:  c.Edge,
		Admin: c.Admin,
		Kafka: c.Kafka,
		TLS:   &tls.Config{MinVersion: tls.VersionTLS13},
	}
	if c.CA != "" {
		conf, err := load.TrustFile(c.CA)
		if err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
		cfg.Target.TLS = conf
	}
	switch {
	case c.SMS != "":
		cfg.Target.Pins = load.NewSMSFile(c.SMS)
	case c.Pin != "":
		cfg.Target.Pins = load.FixedPin(c.Pin)
	default:
		return errors.New("--edge needs --sms or --pin, to register users")
	}
	if len(c.Pids) > 0 {
		cfg.Target.PID, cfg.Target.Others = c.Pids[0], map[string]int{}
		for _, p := range c.Pids[1:] {
			cfg.Target.Others[strconv.Itoa(p)] = p
		}
	}
	cfg.State = c.State
	if cfg.State == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("--state: %w", err)
		}
		sum := sha256.Sum256([]byte(c.Edge + "\x00" + c.CA))
		cfg.State = filepath.Join(cache, "heliograph", "bench-"+hex.EncodeToString(sum[:6])+".json")
	}
	return nil
}

// own starts a helio dev; the returned function stops it and removes its data.
func (c *benchCmd) own(ctx context.Context, cfg *load.Config) (stop func() error, err error) {
	dir, clean := c.Keep, func() error { return nil }
	stop = func() error { return clean() }
	if dir == "" {
		if dir, err = os.MkdirTemp("", "helio-bench-"); err != nil {
			return stop, fmt.Errorf("make a directory: %w", err)
		}
		clean = func() error { return os.RemoveAll(dir) }
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return stop, fmt.Errorf("--keep: %w", err)
	}
	if err := engine.Private(dir); err != nil {
		return stop, fmt.Errorf("open the directory: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return stop, fmt.Errorf("find this program: %w", err)
	}
	began := time.Now()
	dev, err := load.StartDev(ctx, exe, dir, "--engines", c.Engines)
	if err != nil {
		return stop, err
	}
	stop = func() error { return errors.Join(dev.Stop(), clean()) }
	fmt.Fprintf(os.Stderr, "helio dev was up after %.1f s\n", time.Since(began).Seconds())
	if cfg.Target, err = dev.Target(); err != nil {
		return stop, err
	}
	cfg.State = filepath.Join(dir, "bench.json")
	cfg.Restart = func() (load.Target, error) {
		if err := dev.Restart(ctx); err != nil {
			return load.Target{}, err
		}
		return dev.Target()
	}
	return stop, nil
}
