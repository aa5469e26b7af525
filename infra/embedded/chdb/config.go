package chdb

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what Run needs to know. DataDir and LibraryPath have no default.
type Config struct {
	// DataDir holds the tables. It is created if it does not exist.
	DataDir string
	// LibraryPath is the path of libchdb.so.
	LibraryPath string
	// Listen is the address of the HTTP front; default 127.0.0.1:0, which picks a free port.
	Listen string
	// MaxConcurrent is how many statements run at once; default 8.
	MaxConcurrent int
	// MaxPreferred is how many INSERTs that bring their data, and statements with the setting priority=1, run at once
	// beside those: no SELECT that takes long keeps them waiting; default 8.
	MaxPreferred int
	// MaxQueued is how many further statements of either kind may wait; default 256.
	MaxQueued int
	// MaxMemory is how many bytes the engine may use, all queries together; default 4 GiB, and never more than 90% of
	// the machine's memory.
	MaxMemory int64
	// MaxThreads is how many threads one query may use; default 0, the engine's own choice (one per core).
	MaxThreads int
	// MaxBody is the largest INSERT body in bytes, after decompression; default 8 GiB.
	MaxBody int64
	// SyncWrites makes an INSERT wait until its part is on the disk, and a merge until its own is.
	SyncWrites bool
	// SendTimeout is how long a client may leave its result or its body lying; default 30 s.
	SendTimeout time.Duration
	// DrainTimeout is how long running statements may go on after ctx was cancelled; default 5 s.
	DrainTimeout time.Duration
	// Logger takes the front's own words; default: none.
	Logger *slog.Logger
	// Registerer takes the metrics; default: none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 8
	}
	if c.MaxPreferred == 0 {
		c.MaxPreferred = 8
	}
	if c.MaxQueued == 0 {
		c.MaxQueued = 256
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = 4 << 30
	}
	if c.MaxBody == 0 {
		c.MaxBody = 8 << 30
	}
	if c.SendTimeout == 0 {
		c.SendTimeout = 30 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("chdb: "+format, args...)) }
	if c.DataDir == "" {
		bad("DataDir is empty")
	}
	if c.LibraryPath == "" {
		bad("LibraryPath is empty")
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"MaxConcurrent", int64(c.MaxConcurrent)}, {"MaxPreferred", int64(c.MaxPreferred)},
		{"MaxQueued", int64(c.MaxQueued)}, {"MaxMemory", c.MaxMemory},
		{"MaxThreads", int64(c.MaxThreads)}, {"MaxBody", c.MaxBody},
		{"SendTimeout", int64(c.SendTimeout)}, {"DrainTimeout", int64(c.DrainTimeout)},
	} {
		if n.value < 0 {
			bad("%s is negative", n.name)
		}
	}
	if c.Listen != "" && !loopbackHost(c.Listen) {
		bad("Listen %s is not a loopback address: without TLS passwords would cross the network in the clear", c.Listen)
	}
	return errors.Join(errs...)
}

// loopbackHost reports whether the host of hostport is this machine's loopback.
func loopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
