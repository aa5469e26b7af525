package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"heliograph/infra/embedded/engine"
)

// maxLine bounds a line of a child's output; what is longer is cut.
const maxLine = 64 << 10

// child is one engine's process.
type child struct {
	// fixed after spawn
	kind   Kind
	addr   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	exited <-chan struct{} // closed when the process has ended and its output is read
	out    *lines
	log    *lines

	// guarded by mu
	mu      sync.Mutex
	ordered bool   // somebody here asked for the end
	fault   *Error // what the child said of its end
	said    string // its last line on standard error
}

// clickHouseNice is by how much the history's engine steps back behind the others (setpriority(2)).
const clickHouseNice = 10

// spawn starts an engine's process and waits until it is ready.
func (e *Engines) spawn(ctx context.Context, kind Kind, listen string) (*child, error) {
	cfg := EngineConfig{
		Kind: kind, Data: e.opts.data(kind), Listen: listen, Engines: e.opts.EnginesDir,
		SyncWrites: e.opts.SyncWrites, NoSync: e.opts.NoSync && kind == Kafka, Child: true,
	}
	env, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode settings of engine %s: %w", kind, err)
	}
	args := []string{
		"engine",
		string(kind),
		"--data",
		cfg.Data,
		"--listen",
		listen,
		"--engines",
		cfg.Engines,
		"--child",
		"--log-json",
	}
	if cfg.SyncWrites {
		args = append(args, "--sync-writes")
	}
	if cfg.NoSync {
		args = append(args, "--no-sync")
	}
	c := &child{kind: kind}
	ready := make(chan string, 1)
	c.out = &lines{each: func(line string) { c.hear(line, ready) }}
	c.log = &lines{each: func(line string) { c.pass(line, e.opts.Logger) }}
	c.cmd = exec.Command(e.opts.Executable, args...)
	c.cmd.Dir = "/" // ClickHouse asks for it at every insert, and where this process was started may be removed
	c.cmd.Env = append(slices.Clone(os.Environ()), childEnv+"="+string(env))
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.log
	c.cmd.WaitDelay = 5 * time.Second
	// Killed when this process dies, should the end of its standard input not be enough: SIGTERM, so that it ends well.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start engine %s: %w", kind, err)
	}
	exit, err := engine.Spawn(c.cmd)
	if err != nil {
		return nil, fmt.Errorf("start engine %s: %w", kind, err)
	}
	c.exited = exit.Done()
	if kind == ClickHouse {
		// The history may wait a moment, people may not: on a machine that is full, inserts and merges get what the
		// others leave. Threads that the engine makes later inherit it. A refusal costs latency only.
		if err := syscall.Setpriority(syscall.PRIO_PGRP, c.cmd.Process.Pid, clickHouseNice); err != nil &&
			e.opts.Logger != nil {
			e.opts.Logger.Warn("the engine runs at the same priority as the roles", "engine", kind, "err", err)
		}
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case c.addr = <-ready:
		return c, nil
	case <-c.exited:
		return nil, c.failure("ended before it was ready")
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.end(stopTimeout))
	case <-timeout.C:
		c.kill()
		return nil, &Error{Engine: kind, Fault: Failed, Reason: fmt.Sprintf("not ready after %s", startTimeout)}
	}
}

// hear takes a line of the child's standard output.
func (c *child) hear(line string, ready chan<- string) {
	var r report
	if json.Unmarshal([]byte(line), &r) != nil || r.Engine != c.kind {
		return // a library's chatter
	}
	if r.Ready {
		select {
		case ready <- r.Addr:
		default: // said before
		}
		return
	}
	c.mu.Lock()
	c.fault = r.Error
	c.mu.Unlock()
}

// pass hands a line of the child's log on, with its level and attributes if it is JSON of slog's.
func (c *child) pass(line string, to *slog.Logger) {
	if strings.TrimSpace(line) == "" {
		return
	}
	level, msg, attrs := slog.LevelInfo, line, []slog.Attr{slog.String("engine", string(c.kind))}
	var rec map[string]any
	if line[0] == '{' && json.Unmarshal([]byte(line), &rec) == nil {
		if text, ok := rec["level"].(string); ok {
			// An unknown level stays Info.
			_ = level.UnmarshalText([]byte(text))
		}
		if text, ok := rec["msg"].(string); ok {
			msg = text
		}
		for key, value := range rec {
			if key != "level" && key != "msg" && key != "time" {
				attrs = append(attrs, slog.Any(key, value))
			}
		}
	}
	c.mu.Lock()
	c.said = msg
	c.mu.Unlock()
	to.LogAttrs(context.Background(), level, msg, attrs...)
}

// failure is the error of a child that has ended: its own if it told one.
func (c *child) failure(how string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return c.fault
	}
	reason := fmt.Sprintf("its process %s (%s)", how, c.cmd.ProcessState)
	if c.said != "" {
		reason += ": " + c.said
	}
	return &Error{Engine: c.kind, Fault: Failed, Reason: reason}
}

func (c *child) asked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ordered
}

func (c *child) order() {
	c.mu.Lock()
	c.ordered = true
	c.mu.Unlock()
}

// end asks the child to end and waits; after patience it is killed, and that is an error.
func (c *child) end(patience time.Duration) error {
	c.order()
	// Either order is enough, and the process may have ended already.
	_ = c.stdin.Close()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-c.exited:
		return nil
	case <-timeout.C:
		c.kill()
		return &Error{
			Engine: c.kind,
			Fault:  Failed,
			Reason: fmt.Sprintf("did not end within %s and was killed", patience),
		}
	}
}

// kill ends the child by SIGKILL and waits.
func (c *child) kill() {
	c.order()
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// lines is a writer that hands on whole lines. One goroutine writes: the one that os/exec copies the output with.
type lines struct {
	each func(line string)
	part []byte
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			l.part = append(l.part, rest[:min(len(rest), maxLine-len(l.part))]...)
			break
		}
		l.part = append(l.part, rest[:min(i, maxLine-len(l.part))]...)
		l.each(string(l.part))
		l.part = l.part[:0]
		rest = rest[i+1:]
	}
	return len(p), nil
}
