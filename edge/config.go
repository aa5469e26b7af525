package edge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"heliograph/edge/session"
	"heliograph/infra/budget"
	"heliograph/infra/run"
)

// Config of New. Zero means default.
type Config struct {
	// Listen is the UDP address; default "127.0.0.1:7443".
	Listen string
	// CertFile and KeyFile are PEM files; needed. They are read again when they change.
	CertFile, KeyFile string
	// Secret is 32 bytes in hex, shared by all edges, from which the keys of stateless resets, address tokens and TLS
	// tickets are derived; needed.
	Secret run.Secret

	// MaxConnections bounds all connections; default 100,000. No more are taken than fit into half of the budget's
	// memory.
	MaxConnections int
	// Budget is the memory that devices may fill; nil: what one device may is bounded, and not their sum.
	Budget *budget.Budget

	// Session configures the sessions.
	Session session.Config

	// For tests.

	// idleTimeout closes a connection that is silent; default 90 s (wire 1.7).
	idleTimeout time.Duration
	// handshakeTimeout ends a handshake that is silent; default 5 s.
	handshakeTimeout time.Duration
	// maxEarlyPerAddress bounds the connections of one address (IPv6: /64) that are not authenticated; default 2,048,
	// or a quarter of maxEarly.
	maxEarlyPerAddress int
	// maxEarly bounds the connections that are not authenticated, those whose handshake is under way included; default:
	// what the budget has for strangers.
	maxEarly int
	// drainWindow is over how long GoAway is spread; default 5 s. Drain's context may cut it short.
	drainWindow time.Duration
}

const (
	listenFlag    = "--listen" // how an operator sets Config.Listen, for error messages
	retryRate     = 2000       // handshakes a second from which on addresses are verified first
	handshakeRate = 10_000     // the most handshakes a second
	connWeight    = 64 << 10   // bytes that a connection takes
	earlyWeight   = 128 << 10  // bytes that one takes while its handshake is under way
)

func (c Config) withDefaults() Config {
	run.Default(&c.Listen, "127.0.0.1:7443")
	run.Default(&c.MaxConnections, 100_000)
	c.MaxConnections = min(c.MaxConnections, max(1, c.Budget.Memory()/2/connWeight))
	run.Default(&c.maxEarly, max(64, c.Budget.Early()/earlyWeight))
	c.Session.Budget = c.Budget
	run.Default(&c.idleTimeout, 90*time.Second)
	run.Default(&c.handshakeTimeout, 5*time.Second)
	run.Default(&c.maxEarlyPerAddress, min(2048, max(16, c.maxEarly/4)))
	run.Default(&c.drainWindow, 5*time.Second)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	errs := []error{c.Session.Validate()}
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("edge: listen address %q is not host:port", c.Listen))
		}
	}
	if c.CertFile == "" || c.KeyFile == "" {
		errs = append(errs, errors.New("edge: a certificate and its key are needed"))
	}
	if raw, err := hex.DecodeString(c.Secret.Reveal()); err != nil || len(raw) != 32 {
		errs = append(errs, errors.New("edge: the secret is not 32 bytes in hex"))
	}
	if c.MaxConnections < 0 {
		errs = append(errs, fmt.Errorf("edge: at most %d connections", c.MaxConnections))
	}
	return errors.Join(errs...)
}
