package pg

import (
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"heliograph/infra/embedded/engine"
	"heliograph/infra/run"
)

// Format is the version of the data directory's layout around PostgreSQL's own.
const Format = 1

// User is the superuser, and Database the database, that Run provides.
const (
	User     = "helio"
	Database = "helio"
)

const (
	clusterDir   = "data"
	passwordFile = "password"
	startWait    = 60 * time.Second
	pollEvery    = 5 * time.Millisecond
)

// Config is what the server needs to know. Only DataDir has no default.
type Config struct {
	// DataDir holds the cluster, its password and a note of its format. It is created if it does not exist.
	DataDir string
	// EnginesDir is where npm put the programs; default: only the system's are used.
	EnginesDir string
	// Listen is the address to listen on; default 127.0.0.1:0, which picks a free port.
	Listen string
	// SyncCommit makes commits wait for the disk.
	SyncCommit bool
	// Logger takes the server's own words; default: none.
	Logger *slog.Logger

	more        map[string]string // further server settings of tests (name to value), which win over those here
	stopTimeout time.Duration     // how long a fast shutdown may take before it becomes an immediate one; default 10 s
}

// Validate reports all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("pg: DataDir is empty"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	run.Default(&c.Listen, "127.0.0.1:0")
	run.Default(&c.stopTimeout, 10*time.Second)
	run.Default(&c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// URL returns the connection URL of a server whose data directory is dataDir and whose address is addr. It contains
// the password.
func URL(dataDir, addr string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dataDir, passwordFile))
	if err != nil {
		return "", engine.DiskError(engine.Postgres, dataDir, err)
	}
	return connURL(strings.TrimSpace(string(raw)), addr, Database), nil
}

func connURL(password, addr, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(User, password), Host: addr, Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// settings are the server's command line settings: a laptop's share of memory, a short cold start, no replication.
func (c Config) settings(addr string) map[string]string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = "127.0.0.1", "0"
	}
	s := map[string]string{
		"listen_addresses":        host,
		"port":                    port,
		"unix_socket_directories": "",
		"max_connections":         "200",
		"shared_buffers":          "128MB",
		"effective_cache_size":    "1GB",
		"work_mem":                "8MB",
		"maintenance_work_mem":    "128MB",
		"random_page_cost":        "1.1",
		"jit":                     "off",
		"fsync":                   "on",
		"synchronous_commit":      "off",
		// With minimal a crash sets a sequence back that was made shortly before: what it gave out is given out again.
		"wal_level":          "replica",
		"max_wal_senders":    "0",
		"max_wal_size":       "2GB",
		"checkpoint_timeout": "15min",
		"log_checkpoints":    "off",
		"logging_collector":  "off",
		"log_destination":    "stderr",
		// The logger stamps each line itself.
		"log_line_prefix":           "",
		"max_locks_per_transaction": "256",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
	}
	if c.SyncCommit {
		s["synchronous_commit"] = "on"
	}
	for k, v := range c.more {
		s[k] = v
	}
	return s
}
