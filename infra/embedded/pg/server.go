package pg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"heliograph/infra/embedded/engine"
)

// portTries is how often another port is picked when one was lost between choosing and binding.
const portTries = 5

// Run runs the server until ctx is cancelled, which is no error, or until it fails. It calls ready once with the
// address, when clients can connect.
func Run(ctx context.Context, cfg Config, ready func(addr string)) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	as, err := serverAccount()
	if err != nil {
		return err
	}
	dir, err := engine.Open(ctx, engine.Postgres, cfg.DataDir, Format)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dir.Close(); err == nil && cerr != nil {
			err = engine.Failure(engine.Postgres, cerr)
		}
	}()
	addr, picked, err := engine.Reserve(engine.Postgres, cfg.Listen)
	if err != nil {
		return err
	}
	c := &cluster{dir: dir.Path(), data: filepath.Join(dir.Path(), clusterDir), as: as}
	want, err := c.version()
	if err != nil {
		return err
	}
	if c.programs, err = find(cfg.EnginesDir, want, as); err != nil {
		return err
	}
	if err := c.prepare(ctx, want == 0); err != nil {
		return stopped(ctx, err)
	}
	if err := c.vacate(ctx); err != nil {
		return stopped(ctx, err)
	}
	var s *server
	for try := 1; ; try++ {
		s, err = c.start(ctx, cfg, addr)
		if err == nil {
			break
		}
		if !picked || try == portTries || !errors.Is(err, engine.PortInUse) {
			return stopped(ctx, err)
		}
		if addr, _, err = engine.Reserve(engine.Postgres, cfg.Listen); err != nil {
			return err
		}
	}
	if err := c.provide(ctx, addr); err != nil {
		return stopped(ctx, errors.Join(err, s.stop(dir, cfg.stopTimeout)))
	}
	ready(addr)
	select {
	case <-ctx.Done():
		return s.stop(dir, cfg.stopTimeout)
	case <-s.exit.Done():
		return s.ended()
	}
}

// stopped returns nil when the error is only the consequence of being told to stop.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// provide makes the database if it is not there.
func (c *cluster) provide(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, connURL(c.password, addr, "postgres"))
	if err != nil {
		return &engine.Error{
			Engine: engine.Postgres, Fault: engine.Failed, Reason: "started, but refuses our own connection", Err: err,
			Mend: fmt.Sprintf("restore %s, or choose an empty place with --data DIR",
				filepath.Join(c.dir, passwordFile)),
		}
	}
	// The connection has done its work; a failing goodbye changes nothing.
	defer func() { _ = conn.Close(ctx) }()
	var there bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, Database).Scan(&there)
	if err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{Database}.Sanitize())
	}
	if err != nil {
		return engine.Failure(engine.Postgres, fmt.Errorf("create database %s: %w", Database, err))
	}
	return nil
}

// server is a running postmaster.
type server struct {
	cmd   *exec.Cmd
	exit  *engine.Exit
	words *words
	data  string
}

// start starts the postmaster and waits until it takes connections.
func (c *cluster) start(ctx context.Context, cfg Config, addr string) (*server, error) {
	args := []string{"-D", c.data}
	for name, value := range cfg.settings(addr) {
		args = append(args, "-c", name+"="+value)
	}
	s := &server{words: &words{log: cfg.Logger}, data: c.data}
	s.cmd = c.command("postgres", args...)
	s.cmd.Stdout, s.cmd.Stderr = s.words, s.words
	// Backends of a killed postmaster keep its pipe open for a moment.
	s.cmd.WaitDelay = 5 * time.Second
	var err error
	if s.exit, err = engine.Spawn(s.cmd); err != nil {
		return nil, engine.Failure(engine.Postgres, fmt.Errorf("start postgres: %w", err))
	}
	deadline := time.NewTimer(startWait)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.exit.Done():
			return nil, s.failedStart(addr)
		case <-ctx.Done():
			s.kill()
			return nil, ctx.Err()
		case <-deadline.C:
			s.kill()
			return nil, &engine.Error{
				Engine: engine.Postgres, Fault: engine.Failed,
				Reason: fmt.Sprintf("not ready after %s: %s", startWait, s.words.last()),
			}
		case <-tick.C:
			if pid, state := c.pidFile(); pid == s.cmd.Process.Pid && state == "ready" {
				return s, nil
			}
		}
	}
}

// failedStart reads the server's last words: another process's errno reaches us only as text, in the C locale.
func (s *server) failedStart(addr string) error {
	said := s.words.all()
	switch {
	case strings.Contains(said, "Address already in use"):
		return &engine.Error{
			Engine: engine.Postgres, Fault: engine.PortInUse, Reason: "the address " + addr + " is in use",
			Mend: "stop what listens there or give another with --listen HOST:PORT",
		}
	case strings.Contains(said, "No space left on device"):
		return engine.DiskError(engine.Postgres, s.data, syscall.ENOSPC)
	case strings.Contains(said, "Read-only file system"):
		return engine.DiskError(engine.Postgres, s.data, syscall.EROFS)
	}
	return s.ended()
}

// ended is the error of a server that ended without being asked to.
func (s *server) ended() error {
	reason := "PostgreSQL ended by itself"
	if last := s.words.last(); last != "" {
		reason += " (" + last + ")"
	}
	return &engine.Error{Engine: engine.Postgres, Fault: engine.Failed, Reason: reason, Err: s.exit.Err()}
}

// stop asks for a fast shutdown, then insists.
func (s *server) stop(dir *engine.Dir, patience time.Duration) error {
	dir.Stopping()
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, patience}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		// It may have ended in between.
		_ = s.cmd.Process.Signal(step.sig)
		select {
		case <-s.exit.Done(): // its status after such a signal says nothing
			return nil
		case <-time.After(step.wait):
		}
	}
	return &engine.Error{
		Engine: engine.Postgres, Fault: engine.Failed,
		Reason: fmt.Sprintf("process %d does not end", s.cmd.Process.Pid),
	}
}

func (s *server) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-s.exit.Done():
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exit.Done()
	}
}

// command prepares a program of the installation to run as the server's user, out of reach of the terminal's
// signals, and to end with this process.
func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.programs.bin, name), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + c.programs.bin + ":" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGQUIT,
		Credential: c.as.credential(),
	}
	return cmd
}
