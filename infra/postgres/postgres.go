package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

// Config says where the database is and how many connections may be held to it. Zero means default.
type Config struct {
	URL      string            // postgres://user:password@host:port/database?sslmode=…; libpq keywords work too
	Name     string            // of the pool: metric label and application_name; default "helio"
	MaxConns int32             // default 8
	Params   map[string]string // session settings, such as search_path or synchronous_commit

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing

	connectTimeout time.Duration // for tests; default 5 s
}

func (c Config) withDefaults() Config {
	run.Default(&c.Name, "helio")
	run.Default(&c.MaxConns, 8)
	run.Default(&c.connectTimeout, 5*time.Second)
	return c
}

// String is the configuration without its password.
func (c Config) String() string {
	return fmt.Sprintf("{%s %s max=%d}", c.Name, Redact(c.URL), c.MaxConns)
}

// GoString is String, so that %#v shows no password either.
func (c Config) GoString() string { return c.String() }

// LogValue is String for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Redact returns a database URL without its password, for messages.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "[redacted]"
	}
	q := u.Query()
	for _, k := range []string{"password", "sslpassword"} {
		if q.Has(k) {
			q.Set(k, "xxxxx")
		}
	}
	u.RawQuery = q.Encode()
	return u.Redacted()
}

// unusable says why pgx does not take a URL. pgx's own text is left out, since it may quote the URL, unless the TLS
// files are to blame, whose errors cannot.
func unusable(raw string, err error) error {
	var parse *pgconn.ParseConfigError
	if u, perr := url.Parse(raw); perr == nil && u.Scheme != "" && errors.As(err, &parse) && parse.Unwrap() != nil {
		q := u.Query()
		for _, k := range []string{"sslrootcert", "sslcert", "sslkey", "sslpassword"} {
			q.Del(k)
		}
		if u.RawQuery = q.Encode(); parses(u.String()) {
			return fmt.Errorf("postgres: TLS files of URL %s: %w", Redact(raw), parse.Unwrap())
		}
	}
	return fmt.Errorf("postgres: URL %s cannot be parsed", Redact(raw))
}

func parses(raw string) bool {
	_, err := pgconn.ParseConfig(raw)
	return err == nil
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.URL == "" {
		errs = append(errs, errors.New("postgres: no URL"))
	} else if _, err := pgxpool.ParseConfig(c.URL); err != nil {
		errs = append(errs, unusable(c.URL, err))
	}
	if c.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("postgres: at most %d connections", c.MaxConns))
	}
	return errors.Join(errs...)
}

// Open returns a pool; it connects when it is first used. The caller closes it.
func Open(ctx context.Context, c Config) (*pgxpool.Pool, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	pc, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, unusable(c.URL, err)
	}
	pc.MaxConns = c.MaxConns
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.HealthCheckPeriod = 10 * time.Second
	pc.ConnConfig.ConnectTimeout = c.connectTimeout
	pc.ConnConfig.RuntimeParams["application_name"] = c.Name
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// A plan that was made over a table of one page is kept until the server next counts the rows, by which time there
	// may be a million: a search by a key is to use the key's index from the beginning. What has none is scanned all
	// the same, at a price for which servers before 18 would compile it each time.
	pc.ConnConfig.RuntimeParams["enable_seqscan"], pc.ConnConfig.RuntimeParams["jit"] = "off", "off"
	for k, v := range c.Params {
		pc.ConnConfig.RuntimeParams[k] = v
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("postgres: open pool %s: %w", c.Name, err)
	}
	observe(c.Registerer, c.Name, pool)
	return pool, nil
}

// Transient tells whether the same work may succeed when it is tried again: the connection or the server failed, not
// the statement.
func Transient(err error) bool {
	var file *fs.PathError // of a certificate; the errno in it would pass for a network's
	if err == nil || errors.As(err, &file) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return transientCode(pg.Code)
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Refused tells whether the server does not let us in, or we do not trust it, for a reason that trying again does not
// mend: a certificate, a user or a password. A process that starts tells of it at once; one that runs goes on trying,
// since the settings of a server can be mended while it does.
func Refused(err error) bool {
	var pg *pgconn.PgError
	// class 28: invalid authorization specification
	return run.Untrusted(err) || errors.As(err, &pg) && strings.HasPrefix(pg.Code, "28")
}

// Damaged tells whether the server found that what it has on its disk is not what it wrote: a page that does not fit
// its checksum, or an index that does not fit its table. Trying again does not mend it.
func Damaged(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "XX001" || pg.Code == "XX002") // data_corrupted, index_corrupted
}

// transientCode judges an SQLSTATE (PostgreSQL appendix A).
func transientCode(code string) bool {
	switch code {
	case "40001", // serialization_failure
		"40P01",                   // deadlock_detected
		"55P03",                   // lock_not_available
		"55006",                   // object_in_use
		"57014",                   // query_canceled: a statement timeout
		"57P01", "57P02", "57P03", // admin_shutdown, crash_shutdown, cannot_connect_now
		"57P05", // idle_session_timeout
		"25006": // read_only_sql_transaction: a failover is under way
		return true
	}
	if len(code) < 2 {
		return false
	}
	switch code[:2] {
	case "08", // connection exception
		"53", // insufficient resources: disk full, too many connections
		"58": // system error
		return true
	}
	return false
}
