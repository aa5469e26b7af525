package main

import (
	"context"
	"log/slog"
	"os"

	"heliograph/infra/budget"
	"heliograph/infra/embedded"
)

// engineCmd runs one engine in this process:
//
//	helio engine KIND ── listens on --listen, data in --data ── says {"ready":true,…} on standard output,
//	                     ends with a signal
type engineCmd struct {
	embedded.EngineConfig
}

// Help shows how it is used.
func (engineCmd) Help() string {
	return `Examples:
  helio engine kafka --data .helio/data/kafka --listen 127.0.0.1:9092
  helio engine postgres --data .helio/data/postgres --listen 127.0.0.1:5432
  helio engine clickhouse --data .helio/data/clickhouse --listen 127.0.0.1:8123
  curl -u reader:$(cat .helio/data/clickhouse/reader-password) '127.0.0.1:8123/?query=SELECT+version()'`
}

// Run runs the engine until a signal comes.
func (c *engineCmd) Run(ctx context.Context, log *slog.Logger) error {
	c.Logger = log
	memory, _, _ := budget.Memory() // the number holds with an error too
	keepHeapRoomy(growingHeap, memory)
	err := embedded.RunEngine(ctx, c.EngineConfig, os.Stdin, os.Stdout)
	if err != nil && c.Child {
		return errReported // to the process that started this one, which tells it under the names of its own flags
	}
	return err
}
