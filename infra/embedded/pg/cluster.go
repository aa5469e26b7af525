package pg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"heliograph/infra/embedded/engine"
)

// orphanWait is how long processes of a killed predecessor may take to end before they are killed.
const orphanWait = 10 * time.Second

// cluster is PostgreSQL's data on disk, held by this process.
type cluster struct {
	dir      string // ours: password, format note, lock
	data     string // PostgreSQL's
	as       account
	programs programs
	password string
}

// version is the major version that wrote the data, 0 if there is none yet.
func (c *cluster) version() (int, error) {
	raw, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, engine.DiskError(engine.Postgres, c.data, err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, &engine.Error{
			Engine: engine.Postgres, Fault: engine.WrongVersion, Reason: c.data + "/PG_VERSION is not readable",
			Err:  err,
			Mend: "restore it, or choose another place with --data DIR",
		}
	}
	return major, nil
}

// prepare makes the cluster if it is new, and sees to it that the server's user can use it.
func (c *cluster) prepare(ctx context.Context, fresh bool) error {
	if c.as.other() {
		info, err := os.Stat(c.dir)
		if err == nil && !c.as.passes(info) {
			err = os.Chmod(c.dir, info.Mode().Perm()|0o011)
		}
		if err != nil {
			return engine.DiskError(engine.Postgres, c.dir, err)
		}
		if err := c.as.reaches(c.dir); err != nil {
			return err
		}
	}
	if err := c.secret(fresh); err != nil {
		return err
	}
	if fresh {
		if err := c.initialize(ctx); err != nil {
			return err
		}
	}
	if err := c.as.own(c.data); err != nil {
		return engine.DiskError(engine.Postgres, c.data, err)
	}
	return nil
}

// secret reads the password, or makes one for a new cluster.
func (c *cluster) secret(fresh bool) error {
	name := filepath.Join(c.dir, passwordFile)
	raw, err := os.ReadFile(name)
	if err == nil {
		c.password = strings.TrimSpace(string(raw))
	}
	if c.password != "" {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return engine.DiskError(engine.Postgres, c.dir, err)
	}
	if !fresh {
		return &engine.Error{
			Engine: engine.Postgres, Fault: engine.WrongVersion, Reason: name + " is missing",
			Mend: "restore it, or choose an empty place with --data DIR (the views are built again from the log)",
		}
	}
	var random [24]byte
	rand.Read(random[:]) // never fails
	c.password = hex.EncodeToString(random[:])
	if err := engine.WriteFile(name, []byte(c.password+"\n"), 0o600); err != nil {
		return engine.DiskError(engine.Postgres, c.dir, err)
	}
	return nil
}

// initialize makes a cluster beside the place where it is wanted, and moves it there when it is whole.
func (c *cluster) initialize(ctx context.Context) error {
	made := c.data + ".new"
	secret := filepath.Join(c.dir, passwordFile+".init")
	err := os.RemoveAll(made)
	if err == nil {
		err = os.Mkdir(made, 0o700)
	}
	if err == nil {
		err = os.WriteFile(secret, []byte(c.password+"\n"), 0o600)
	}
	if err == nil {
		defer func() { _ = os.Remove(secret) }() // a copy of what lies beside it
		err = errors.Join(c.as.own(made), c.as.own(secret))
	}
	if err != nil {
		return engine.DiskError(engine.Postgres, c.dir, err)
	}
	args := []string{
		"-D", made, "-U", User, "--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8",
		"--no-instructions",
	}
	if c.programs.major >= 17 {
		args = append(args, "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")
	} else {
		args = append(args, "--locale", "C.UTF-8")
	}
	cmd := c.command("initdb", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	exit, err := engine.Spawn(cmd)
	if err != nil {
		return engine.Failure(engine.Postgres, fmt.Errorf("start initdb: %w", err))
	}
	select {
	case <-exit.Done():
		err = exit.Err()
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-exit.Done()
		return ctx.Err()
	}
	if err != nil {
		if strings.Contains(out.String(), "No space left on device") {
			return engine.DiskError(engine.Postgres, c.dir, syscall.ENOSPC)
		}
		return &engine.Error{
			Engine: engine.Postgres,
			Fault:  engine.Failed,
			Reason: "initdb failed: " + complaint(out.String()),
			Err:    err,
		}
	}
	if err := os.Rename(made, c.data); err != nil {
		return engine.DiskError(engine.Postgres, c.dir, err)
	}
	return nil
}

// complaint is the first line of initdb's output that reports an error, else all of it.
func complaint(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "error:") || strings.Contains(line, "FATAL:") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(out)
}

// pidFile reads what a postmaster says of itself: its process id and its state.
func (c *cluster) pidFile() (pid int, state string) {
	raw, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return 0, ""
	}
	lines := strings.Split(string(raw), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return 0, ""
	}
	if len(lines) >= 8 {
		state = strings.TrimSpace(lines[7])
	}
	return pid, state
}

// vacate waits for the processes of a predecessor that was killed, and removes its postmaster.pid. We hold the
// directory's lock, so whoever is still at work in there is an orphan.
func (c *cluster) vacate(ctx context.Context) error {
	name := filepath.Join(c.data, "postmaster.pid")
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	tick := time.NewTicker(4 * pollEvery)
	defer tick.Stop()
	patience := time.Now().Add(orphanWait)
	for {
		orphans := c.occupants()
		if len(orphans) == 0 {
			break
		}
		if time.Now().After(patience) {
			for _, pid := range orphans {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// A process that has nothing to do with us may have the same id by now; PostgreSQL would take it for a server.
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return engine.DiskError(engine.Postgres, c.data, err)
	}
	return nil
}

// occupants are the processes that work in the data directory: a server's processes all do.
func (c *cluster) occupants() []int {
	data, err := filepath.EvalSymlinks(c.data)
	if err != nil {
		data = c.data
	}
	named, _ := c.pidFile()
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		if p.PID == os.Getpid() {
			continue
		}
		cwd, err := p.Cwd()
		switch {
		case err == nil && cwd == data:
			pids = append(pids, p.PID)
		case errors.Is(err, os.ErrPermission) && p.PID == named:
			// A container may keep even root from looking; the name of a program is open to all.
			if comm, err := p.Comm(); err == nil && strings.HasPrefix(comm, "postgres") {
				pids = append(pids, p.PID)
			}
		}
	}
	return pids
}
