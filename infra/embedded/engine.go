package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"heliograph/infra/embedded/broker"
	"heliograph/infra/embedded/chdb"
	"heliograph/infra/embedded/engine"
	"heliograph/infra/embedded/pg"
)

// Kind names one of the three engines.
type Kind = engine.Kind

// The engines.
const (
	Kafka      = engine.Kafka
	Postgres   = engine.Postgres
	ClickHouse = engine.ClickHouse
)

// Error is what stands between an operator and a running engine, in one line: the engine, the reason and what mends it.
type Error = engine.Error

// Fault is why an engine did not start or did not stay up: errors.Is(err, embedded.PortInUse).
type Fault = engine.Fault

// The faults; see the package engine for what each means.
const (
	PortInUse    = engine.PortInUse
	BadListen    = engine.BadListen
	Missing      = engine.Missing
	WrongVersion = engine.WrongVersion
	Held         = engine.Held
	Unwritable   = engine.Unwritable
	NoSpace      = engine.NoSpace
	Unreachable  = engine.Unreachable
	Failed       = engine.Failed
)

// childEnv carries an EngineConfig as JSON to a child that has no command line of helio's.
const childEnv = "HELIO_ENGINE_CHILD"

// EngineConfig is one engine's settings. Its tags make it the arguments and flags of 'helio engine' (kong).
type EngineConfig struct {
	// Kind is the engine to run.
	Kind Kind `json:"kind" arg:"" enum:"kafka,postgres,clickhouse" help:"Which engine: kafka, postgres or clickhouse."`
	// Data is the engine's data directory, created if it does not exist.
	Data string `json:"data" required:"" placeholder:"DIR" help:"Data directory of this engine."`
	// Listen is the address to listen on; port 0 picks a free one.
	Listen string `json:"listen" default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Address to listen on; port 0 picks a free one."`
	// Engines is where 'make engines' put the programs and libraries.
	Engines string `json:"engines" default:".helio/engines" placeholder:"DIR" help:"Where 'make engines' put the engines."`
	// SyncWrites makes PostgreSQL's commits and ClickHouse's INSERTs wait for the disk. The log's acknowledgements do
	// anyway, unless NoSync says otherwise.
	SyncWrites bool `json:"sync_writes" help:"Postgres and ClickHouse wait for the disk before they acknowledge."`
	// NoSync makes the log acknowledge before the disk has it.
	NoSync bool `json:"no_sync" help:"The log acknowledges before the disk has it: a power cut takes back the last seconds."`
	// Child says that the process was started by Start: it then ends when its standard input ends, and reports its
	// failure on standard output.
	Child bool `json:"child" hidden:"" help:"Started by another helio."`
	// Logger takes the engine's log; default: none.
	Logger *slog.Logger `json:"-" kong:"-"`
}

// Validate reports all that is wrong with the configuration.
func (c EngineConfig) Validate() error {
	var errs []error
	switch c.Kind {
	case Kafka, Postgres, ClickHouse:
	default:
		errs = append(errs, fmt.Errorf("unknown engine %q: it is kafka, postgres or clickhouse", c.Kind))
	}
	if c.Data == "" {
		errs = append(errs, errors.New("no data directory: give one with --data DIR"))
	}
	return errors.Join(errs...)
}

// report is a line that a child prints on its standard output.
type report struct {
	Ready  bool   `json:"ready"`
	Engine Kind   `json:"engine"`
	Addr   string `json:"addr,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// RunEngine runs one engine in this process until ctx is cancelled, which is no error, or until it fails: what
// 'helio engine' does. The line that tells readiness goes to stdout. For a Child, stdin's end is the order to stop; a
// read from stdin may outlive the call.
func RunEngine(ctx context.Context, cfg EngineConfig, stdin io.Reader, stdout io.Writer) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// What the engine writes is its owner's alone, also what a library writes that asks for more.
	defer syscall.Umask(syscall.Umask(0o077))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := serve(ctx, cancel, cfg, stdin, stdout)
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return nil
	}
	fault := engine.Failure(cfg.Kind, err)
	if cfg.Child {
		// The parent may be gone; then nobody asks for the reason.
		_ = tell(stdout, report{Engine: cfg.Kind, Error: fault.Detached()})
	}
	return fault
}

func serve(ctx context.Context, cancel context.CancelFunc, cfg EngineConfig, stdin io.Reader, stdout io.Writer) error {
	if err := engine.CheckListen(cfg.Kind, cfg.Listen); err != nil {
		return err
	}
	if cfg.Kind != Postgres && !loopback(cfg.Listen) {
		why := "it asks nobody for a password"
		if cfg.Kind == ClickHouse {
			why = "its passwords would go in the clear"
		}
		return &Error{
			Engine: cfg.Kind, Fault: BadListen, Reason: why + ", and " + cfg.Listen + " is open to the network",
			Mend: "give a loopback address with --listen 127.0.0.1:PORT",
		}
	}
	if cfg.Kind == ClickHouse && stdin == io.Reader(os.Stdin) {
		own, err := setAside()
		if err != nil {
			return fmt.Errorf("set standard input aside: %w", err)
		}
		defer own.Close() //nolint:errcheck // it was only read
		stdin = own
	}
	if cfg.Child {
		go func() {
			// Whatever ends the reading, the parent is gone.
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	var told error
	ready := func(addr string) {
		if told = tell(stdout, report{Ready: true, Engine: cfg.Kind, Addr: addr}); told != nil {
			cancel()
		}
	}
	var err error
	switch cfg.Kind {
	case Kafka:
		err = broker.Run(ctx, broker.Config{
			DataDir: cfg.Data, Listen: cfg.Listen, NoSync: cfg.NoSync, Logger: cfg.Logger,
		}, ready)
	case Postgres:
		err = pg.Run(ctx, pg.Config{
			DataDir: cfg.Data, EnginesDir: cfg.Engines, Listen: cfg.Listen, SyncCommit: cfg.SyncWrites,
			Logger: cfg.Logger,
		}, ready)
	case ClickHouse:
		err = chdb.Run(ctx, chdb.Config{
			DataDir: cfg.Data, LibraryPath: library(cfg.Engines), Listen: cfg.Listen, SyncWrites: cfg.SyncWrites,
			Logger: cfg.Logger,
		}, ready)
	}
	if err == nil && told != nil {
		err = fmt.Errorf("print readiness: %w", told)
	}
	return err
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// setAside moves standard input to another descriptor and leaves /dev/null in its place, before libchdb is loaded. The
// library makes descriptor 0 non-blocking under way; a read that waits there ends with EAGAIN when the process is
// stopped and goes on, or the machine sleeps, which passed for the parent's end.
func setAside() (*os.File, error) {
	fd, err := syscall.Dup(syscall.Stdin)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	own := os.NewFile(uintptr(fd), "stdin")
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	return own, errors.Join(syscall.Dup3(int(null.Fd()), syscall.Stdin, 0), null.Close())
}

func tell(w io.Writer, r report) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// EngineMain turns a process that Start made from a test binary into the engine, and never returns there. In any other
// process it does nothing. A TestMain calls it first.
func EngineMain() {
	raw := os.Getenv(childEnv)
	if raw == "" {
		return
	}
	os.Exit(engineMain(raw))
}

func engineMain(raw string) int {
	var cfg EngineConfig
	if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", childEnv, err)
		return 2
	}
	cfg.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := RunEngine(ctx, cfg, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// library is where npm puts libchdb.
func library(enginesDir string) string {
	return filepath.Join(enginesDir, "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
}
