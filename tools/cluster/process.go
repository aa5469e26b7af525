package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"heliograph/infra/embedded/engine"
)

// Process is one role's process. Its methods may be called from any goroutine; Start, Stop, Kill and Restart of one
// process wait for each other.
type Process struct {
	// Role, Name, Addr, Admin and Log are fixed: what it is, its name within its role, where it listens for devices or
	// links (projectors: nowhere), the admin server, and the file that its log is appended to.
	Role  Role
	Name  string
	Addr  string
	Admin string
	Log   string

	helio  string
	args   []string
	env    []string // beside the arguments
	logger *slog.Logger

	turn chan struct{} // room for one: who may start or end it

	// Guarded by mu.
	mu      sync.Mutex
	cmd     *exec.Cmd    // nil before the first start
	exit    *engine.Exit // of cmd
	asked   bool         // its end was asked for
	unasked []string
}

// String names the process.
func (p *Process) String() string { return string(p.Role) + " " + p.Name }

// Pid is the process id, 0 while it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running tells whether the process is there; it may be paused or not ready.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs()
}

func (p *Process) runs() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exit.Done():
		return false
	default:
		return true
	}
}

// take waits for the turn to start or end the process.
func (p *Process) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", p, ctx.Err())
	}
}

func (p *Process) give() { <-p.turn }

// Launch starts the process, if it does not run, without waiting until it is ready.
func (p *Process) Launch(ctx context.Context) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	return p.launch()
}

func (p *Process) launch() error {
	if p.Running() {
		return nil
	}
	file, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p, err)
	}
	defer func() { _ = file.Close() }() // the child has its own
	cmd := exec.Command(p.helio, p.args...)
	cmd.Stdout, cmd.Stderr = file, file
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HELIO_") { // the arguments say it all
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, p.env...)
	// A group of its own: Ctrl-C reaches this process only, which ends its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	exit, err := engine.Spawn(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p, err)
	}
	p.mu.Lock()
	p.cmd, p.exit, p.asked = cmd, exit, false
	p.mu.Unlock()
	p.logger.Debug("process started", "process", p.String(), "pid", cmd.Process.Pid)
	go p.watch(exit)
	return nil
}

// watch notes an end that nobody asked for.
func (p *Process) watch(exit *engine.Exit) {
	err := exit.Err()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == exit && !p.asked {
		p.unasked = append(p.unasked, fmt.Sprintf("%s ended by itself (%v)", p, err))
	}
}

// Unasked tells of the times that the process ended without having been asked to.
func (p *Process) Unasked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.unasked...)
}

// Start starts the process, if it does not run, and waits until it is ready.
func (p *Process) Start(ctx context.Context) error {
	if err := p.Launch(ctx); err != nil {
		return err
	}
	return p.WaitReady(ctx)
}

// Restart stops the process, if it runs, starts it and waits until it is ready.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Kill sends SIGKILL and waits for the end. It does nothing to a process that does not run.
func (p *Process) Kill() error {
	if err := p.take(context.Background()); err != nil {
		return err
	}
	defer p.give()
	return p.kill()
}

func (p *Process) kill() error {
	if !p.Running() {
		return nil
	}
	if err := p.signal(syscall.SIGKILL, true); err != nil {
		return err
	}
	_ = p.exited().Err() // an end by a signal is what was asked for
	return nil
}

// Stop sends SIGTERM and waits for the end; when ctx ends first, the process is killed and that is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	if !p.Running() {
		return nil
	}
	if err := p.signal(syscall.SIGTERM, true); err != nil {
		return err
	}
	exit := p.exited()
	select {
	case <-exit.Done():
		if err := exit.Err(); err != nil {
			return fmt.Errorf("stop %s: it ended badly: %w\n%s", p, err, p.Tail())
		}
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop %s: it did not end: %w\n%s", p, ctx.Err(), p.Tail()), p.kill())
	}
}

func (p *Process) exited() *engine.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Signal sends a signal: SIGSTOP and SIGCONT pause it and let it go on.
func (p *Process) Signal(sig syscall.Signal) error { return p.signal(sig, false) }

func (p *Process) signal(sig syscall.Signal, end bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return fmt.Errorf("signal %s: it does not run", p)
	}
	p.asked = p.asked || end
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p, err)
	}
	return nil
}

// poll is how often a condition of a process is looked at.
const poll = 20 * time.Millisecond

// WaitReady waits until /readyz says yes; a process that ends meanwhile is an error with the end of its log.
func (p *Process) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		said, err := p.get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("%s ended before it was ready\n%s", p, p.Tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w %s\n%s", p, ctx.Err(), err, said, p.Tail())
		case <-tick.C:
		}
	}
}

// Metrics returns what /metrics says.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	b, err := p.get(ctx, "/metrics")
	return string(b), err
}

var admin = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (p *Process) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", p, err)
	}
	res, err := admin.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", p, err)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("ask %s: %w", p, err)
	}
	if res.StatusCode != http.StatusOK {
		return bytes.TrimSpace(b), fmt.Errorf("%s answered %s", path, res.Status)
	}
	return b, nil
}

// Tail is the end of the process's log.
func (p *Process) Tail() string {
	const size = 4 << 10
	f, err := os.Open(p.Log)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // read only
	if info, err := f.Stat(); err == nil && info.Size() > size {
		if _, err := f.Seek(-size, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
