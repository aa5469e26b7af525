package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"heliograph/infra/embedded/engine"
	"heliograph/tools/cluster"
	"heliograph/tools/demo"
)

// demoCmd is this process with its children, each run from this binary:
//
//	devices of five people (edge/client) ──QUIC──▶ helio edge ×2 ──▶ log ──▶ helio delivery ×2 ──links──▶ helio edge
//	                                                                  └──▶ helio projector ×2 ──▶ Postgres, ClickHouse
type demoCmd struct {
	Data    string `help:"Directory of data, device files and logs; default: a temporary one that is removed." placeholder:"DIR" type:"path"`
	Keep    bool   `help:"Keep the temporary directory, and say where it is."`
	Engines string `help:"Where 'make engines' put the engines." default:".helio/engines" type:"path" env:"HELIO_ENGINES"`
	Output  string `short:"o" help:"text or json." enum:"text,json" default:"text"`
}

// Help shows how it is used.
func (demoCmd) Help() string {
	return `Examples:
  helio demo
  helio demo --keep
  helio demo --data /tmp/demo -o json

It starts a deployment of its own on free ports of this machine and stops it at the end; nothing else is touched. The
exit code is 1 when the log, a view or a device differs from another.`
}

// Run plays the demo.
func (c *demoCmd) Run(ctx context.Context, log *slog.Logger) (err error) {
	helio, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "helio-demo-"); err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
		if err := engine.Private(dir); err != nil {
			return fmt.Errorf("open the directory to Postgres: %w", err)
		}
		if c.Keep {
			defer func() { fmt.Fprintln(os.Stderr, "helio: kept", dir) }()
		} else {
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		}
	}
	cfg := demo.Config{Cluster: cluster.Options{Dir: dir, Helio: helio, EnginesDir: c.Engines}}
	if log.Enabled(ctx, slog.LevelDebug) {
		cfg.Cluster.Logger = log
	}
	if c.Output == "json" {
		result, err := demo.Run(ctx, cfg, func(demo.Step) {})
		if perr := printJSON(os.Stdout, result); perr != nil {
			return errors.Join(err, perr)
		}
		return demoEnd(ctx, result, err)
	}
	p := demo.NewPrinter(os.Stdout, os.Environ())
	p.Head()
	result, err := demo.Run(ctx, cfg, p.Step)
	p.End(result)
	return demoEnd(ctx, result, err)
}

// demoEnd is the command's end: what a step failed with has been shown.
func demoEnd(ctx context.Context, r demo.Result, err error) error {
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err != nil && (len(r.Steps) == 0 || r.Steps[len(r.Steps)-1].Error == ""):
		return err
	case err != nil || !r.OK:
		return errReported
	}
	return nil
}
