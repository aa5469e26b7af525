package chdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"heliograph/infra/embedded/engine"
)

// stopWait is how long killed statements may take to end before the process goes without shutting the engine down.
const stopWait = 10 * time.Second

// started guards against a second engine in one process, which libchdb does not support.
var started atomic.Bool

// Run runs the engine and its HTTP front until ctx is cancelled, which is no error, or until one of them fails. It
// calls ready once with the front's address, when clients can connect. It may be called once in a process, and the
// process should hold nothing else: see the package comment.
func Run(ctx context.Context, cfg Config, ready func(addr string)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if started.Swap(true) {
		return errors.New("chdb: the engine has already run in this process")
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return err
	}
	// What the engine writes is its owner's alone. The process holds nothing else, so its mask may stay.
	syscall.Umask(0o077)
	dir, err := engine.Open(ctx, engine.ClickHouse, cfg.DataDir, dataVersion)
	if err != nil {
		return err
	}
	accounts, err := makeAccounts(dir.Path())
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	ln, err := engine.Listen(engine.ClickHouse, cfg.Listen)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	signal.Ignore(syscall.SIGPIPE) // the engine writes into pipes from its own threads
	begin := time.Now()
	c, err := boot(cfg, dir.Path())
	if err != nil {
		return errors.Join(err, ln.Close(), dir.Close())
	}
	kill, killAll := context.WithCancel(context.Background())
	defer killAll()
	s := newServer(kill, cfg, c, m, accounts)
	addr := ln.Addr().String()
	cfg.Logger.Info("clickhouse engine ready", "addr", addr, "version", c.version, "took", time.Since(begin))
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(ln) }()
	if ready != nil {
		ready(addr)
	}
	select {
	case err = <-failed:
		err = fmt.Errorf("chdb: serve %s: %w", addr, err)
	case <-ctx.Done():
		dir.Stopping()
	}
	if !s.drain(cfg.DrainTimeout, killAll) {
		// Closing the engine under a running statement aborts the process; leaving it open loses nothing.
		cfg.Logger.Warn("shutdown timed out: statements still run, exiting as after a crash")
		return errors.Join(err, dir.Close())
	}
	c.close()
	return errors.Join(err, dir.Close())
}

// drain ends the front: no new requests, some time for the running ones, then their end by force. It reports whether
// every statement has ended.
func (s *server) drain(grace time.Duration, killAll context.CancelFunc) bool {
	soft, cancel := context.WithTimeout(context.Background(), grace)
	err := s.http.Shutdown(soft)
	cancel()
	if err == nil {
		return true
	}
	killAll()
	hard, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	// Shutdown waits for idle connections; a request that was aborted closes its own.
	err = s.http.Shutdown(hard)
	if err != nil {
		s.log.Warn("shutdown timed out: requests", slog.Any("err", err))
		_ = s.http.Close()
	}
	return err == nil
}

func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    2 << 20, // statements stand in the URL
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
