package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	schema "heliograph/schemas/clickhouse"
)

// Protocol is how ClickHouse is spoken to.
type Protocol string

// The two protocols; the zero value is HTTP.
const (
	HTTP   Protocol = "http"
	Native Protocol = "native"
)

// Config says where ClickHouse is. Zero means default.
type Config struct {
	Addr     []string // host:port; at least one
	Protocol Protocol // default HTTP
	Database string   // default "heliograph"
	User     string   // default "default"
	Password run.Secret
	TLS      run.ClientTLS

	Name       string                // metric label; default "helio"
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing

	// For tests.
	lockExpiry time.Duration // default renewedExpiry
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addr) == 0 {
		errs = append(errs, errors.New("clickhouse: no address"))
	}
	for _, a := range c.Addr {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("clickhouse: address %q is not host:port", a))
		}
	}
	switch c.Protocol {
	case "", HTTP, Native:
	default:
		errs = append(errs, fmt.Errorf("clickhouse: unknown protocol %q", c.Protocol))
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("clickhouse: %w", err))
	}
	return errors.Join(errs...)
}

func (c Config) database() string {
	if c.Database == "" {
		return schema.Database
	}
	return c.Database
}

// Options returns clickhouse-go's options for this configuration.
func (c Config) Options() (*clickhouse.Options, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	tlsConf, err := c.TLS.Load()
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	o := &clickhouse.Options{
		Addr:     c.Addr,
		Protocol: clickhouse.HTTP,
		Auth:     clickhouse.Auth{Database: c.database(), Username: c.User, Password: c.Password.Reveal()},
		TLS:      tlsConf,
		// analysts' queries give way to ours where they have a priority
		Settings:        clickhouse.Settings{"async_insert": 0, "priority": 1},
		DialTimeout:     5 * time.Second,
		ReadTimeout:     60 * time.Second,
		MaxOpenConns:    8,
		MaxIdleConns:    8,
		ConnMaxLifetime: time.Hour,
	}
	if o.Auth.Username == "" {
		o.Auth.Username = "default"
	}
	if c.Protocol == Native {
		o.Protocol = clickhouse.Native
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	return o, nil
}

// Open returns a connection pool; it connects when it is first used. The caller closes it.
func Open(c Config) (driver.Conn, error) {
	o, err := c.Options()
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: open: %w", err)
	}
	observe(c.Registerer, c.Name, conn)
	return conn, nil
}

// transientCodes are the codes of ClickHouse's ErrorCodes.cpp after which the same query may succeed.
var transientCodes = []int32{
	159,                // TIMEOUT_EXCEEDED
	201, 202, 203, 209, // QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, NO_FREE_CONNECTION, SOCKET_TIMEOUT
	210,           // NETWORK_ERROR
	225,           // NO_ZOOKEEPER
	236,           // ABORTED
	241, 242, 243, // MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE
	252,      // TOO_MANY_PARTS
	279,      // ALL_CONNECTION_TRIES_FAILED
	285, 286, // TOO_FEW_LIVE_REPLICAS, UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
	319, // UNKNOWN_STATUS_OF_INSERT
	394, // QUERY_WAS_CANCELLED
	425, // SYSTEM_ERROR
	439, // CANNOT_SCHEDULE_TASK
	473, // DEADLOCK_AVOIDED
	// CANNOT_ASSIGN_ALTER, CANNOT_COMMIT_OFFSET, NO_REMOTE_SHARD_AVAILABLE, DISTRIBUTED_TOO_MANY_PENDING_BYTES,
	// KEEPER_EXCEPTION
	517, 518, 519, 574, 999,
	745, // SERVER_OVERLOADED
}

// Transient tells whether the same work may succeed when it is tried again: the connection or the engine failed, not
// the query.
func Transient(err error) bool {
	var file *fs.PathError // of a certificate; the errno in it would pass for a network's
	if err == nil || errors.As(err, &file) {
		return false
	}
	var ex *clickhouse.Exception
	if errors.As(err, &ex) {
		return slices.Contains(transientCodes, ex.Code)
	}
	var status *clickhouse.HTTPError
	if errors.As(err, &status) {
		return status.StatusCode >= 500 || status.StatusCode == 429 || status.StatusCode == 408
	}
	var network net.Error
	var op *clickhouse.OpError
	return errors.As(err, &network) || errors.As(err, &op) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, clickhouse.ErrAcquireConnTimeout) || errors.Is(err, clickhouse.ErrConnectionClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// damageCodes are what ClickHouse says of a part that is not as it was written.
var damageCodes = []int32{
	33,            // CANNOT_READ_ALL_DATA
	40,            // CHECKSUM_DOESNT_MATCH
	226, 227, 228, // NO_FILE_IN_DATA_PART, UNEXPECTED_FILE_IN_DATA_PART, BAD_SIZE_OF_FILE_IN_DATA_PART
	246, // CORRUPTED_DATA
	271, // CANNOT_DECOMPRESS
}

// Damaged tells whether the server found that a part on its disk is not what it wrote. Trying again does not mend it.
func Damaged(err error) bool {
	var ex *clickhouse.Exception
	return errors.As(err, &ex) && slices.Contains(damageCodes, ex.Code)
}

// accessCodes are UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, IP_ADDRESS_NOT_ALLOWED and AUTHENTICATION_FAILED.
var accessCodes = []int32{192, 193, 194, 195, 516}

// Refused tells whether the server does not let us in, or we do not trust it, for a reason that trying again does not
// mend: a certificate, a user or a password. A process that starts tells of it at once; one that runs goes on trying,
// since the settings of a server can be mended while it does.
func Refused(err error) bool {
	var ex *clickhouse.Exception
	if errors.As(err, &ex) && slices.Contains(accessCodes, ex.Code) {
		return true
	}
	var status *clickhouse.HTTPError
	if errors.As(err, &status) &&
		(status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) {
		return true
	}
	return run.Untrusted(err)
}
