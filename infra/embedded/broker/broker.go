package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"heliograph/infra/embedded/engine"
	"heliograph/infra/run"
)

// Format is the version of the data directory's layout.
const Format = 1

// maxMessageBytes is the largest batch taken: room for a whole batch of the largest messages.
const maxMessageBytes = 16 << 20

// discard is the logger of a broker that was given none.
var discard = slog.New(slog.DiscardHandler)

// Config is what the broker needs to know. Only DataDir has no default.
type Config struct {
	// DataDir holds the log. It is created if it does not exist.
	DataDir string
	// Listen is the address to listen on and to tell clients; default 127.0.0.1:0, which picks a free port.
	Listen string
	// NoSync acknowledges before the disk has it, and shows it to readers: a power cut may take that back.
	NoSync bool
	// Logger takes the broker's own words; default: none.
	Logger *slog.Logger

	compactEvery time.Duration // how often compacted topics are compacted, for tests; default an hour
	perBatch     bool          // syncs every batch by itself, for comparison
	disk         disk          // for tests; default the operating system's
}

func (c Config) withDefaults() Config {
	run.Default(&c.Listen, "127.0.0.1:0")
	run.Default(&c.Logger, discard)
	run.Default(&c.compactEvery, time.Hour)
	if c.disk == nil {
		c.disk = realDisk{}
	}
	return c
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return errors.New("broker: DataDir is empty")
	}
	return nil
}

// Run runs the broker until ctx is cancelled, which is no error, or until it fails. It calls ready once with the
// address, when clients can connect.
func Run(ctx context.Context, cfg Config, ready func(addr string)) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	dir, err := engine.Open(ctx, engine.Kafka, cfg.DataDir, Format)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dir.Close(); err == nil && cerr != nil {
			err = engine.Failure(engine.Kafka, cerr)
		}
	}()
	ln, err := engine.Listen(engine.Kafka, cfg.Listen)
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	log := &logger{to: cfg.Logger, broken: make(chan error, 1)}
	var commits *group
	if !cfg.NoSync && !cfg.perBatch {
		commits = newGroup(logDir(dir), cfg.disk, cfg.Logger)
		ln = &front{Listener: ln, group: commits}
	}
	cluster, err := kfake.NewCluster(options(cfg, dir, ln, log)...)
	if err != nil {
		_ = ln.Close()
		return startError(dir.Path(), err)
	}
	failed := make(chan error, 1)
	stopCommits := func() {}
	if commits != nil {
		stopCommits = commits.start(cluster, failed)
	}
	defer func() {
		dir.Stopping()
		stopCommits() // first: it asks the cluster, which answers nobody once it is closed
		cluster.Close()
		// A write that failed at the very end would otherwise pass for a clean stop.
		if err == nil {
			err = log.failure(dir.Path())
		}
	}()
	if commits != nil {
		if err := commits.begin(); err != nil {
			return engine.DiskError(engine.Kafka, dir.Path(), err)
		}
	}
	ready(addr)
	compact := time.NewTicker(cfg.compactEvery)
	defer compact.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-log.broken:
			return engine.DiskError(engine.Kafka, dir.Path(), err)
		case err := <-failed:
			return engine.DiskError(engine.Kafka, dir.Path(), err)
		case <-compact.C:
			// the broker's own clock for it starts only when a topic is made or changed: a restart would end it
			cluster.Compact()
		}
	}
}

// logDir is where the broker's own files are.
func logDir(dir *engine.Dir) string { return filepath.Join(dir.Path(), "log") }

func options(cfg Config, dir *engine.Dir, ln net.Listener, log *logger) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("heliograph"),
		kfake.DataDir(logDir(dir)),
		// The port was bound before the data was touched.
		kfake.ListenFn(func(string, string) (net.Listener, error) { return ln, nil }),
		kfake.WithLogger(log),
		kfake.DefaultNumPartitions(16),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.GroupMaxSessionTimeout(time.Hour),
		kfake.BrokerConfigs(map[string]string{
			"default.replication.factor": "1",
			"log.retention.ms":           "-1",
			"log.retention.bytes":        "-1",
			"message.max.bytes":          strconv.Itoa(maxMessageBytes),
			// A group that was away keeps the offsets that show its lag.
			"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60),
		}),
	}
	if cfg.perBatch {
		opts = append(opts, kfake.SyncWrites())
	}
	return opts
}

// logger passes the broker's log on, and notices writes that failed: kfake only logs those.
type logger struct {
	to     *slog.Logger
	broken chan error // room for one; the first failure ends the broker
}

// Logf implements kfake.Logger. It may be called from any goroutine.
func (l *logger) Logf(level kfake.LogLevel, msg string, args ...any) {
	if level <= kfake.LogLevelWarn {
		for _, a := range args {
			// A batch that is not on the disk must end the broker whatever the reason.
			if err, ok := a.(error); ok && (isDiskFault(err) || strings.HasPrefix(msg, "persist batch")) {
				select {
				case l.broken <- err:
				default:
				}
			}
		}
	}
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	case kfake.LogLevelDebug:
		return
	}
	if ctx := context.Background(); l.to.Enabled(ctx, to) {
		l.to.Log(ctx, to, fmt.Sprintf(msg, args...))
	}
}

func (l *logger) failure(dir string) error {
	select {
	case err := <-l.broken:
		return engine.DiskError(engine.Kafka, dir, err)
	default:
		return nil
	}
}

func isDiskFault(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EACCES, syscall.EMFILE, syscall.ENFILE,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// startError turns an error of kfake's start into one that says what to do.
func startError(dir string, err error) error {
	if isDiskFault(err) {
		return engine.DiskError(engine.Kafka, dir, err)
	}
	return &engine.Error{
		Engine: engine.Kafka, Fault: engine.WrongVersion, Reason: "cannot read the log in " + dir, Err: err,
		Mend: "run the helio that wrote it, restore it, or choose another place with --data DIR",
	}
}
