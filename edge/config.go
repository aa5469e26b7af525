package edge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"heliograph/edge/session"
	"heliograph/infra/run"
)

// Config of New. Zero means default.
type Config struct {
	// Listen is the UDP address; default "127.0.0.1:7443".
	Listen string
	// ListenFlag is how an operator sets it, for error messages; default "--listen".
	ListenFlag string

	// CertFile and KeyFile are PEM files; needed. They are read again when they change.
	CertFile, KeyFile string
	// Secret is 32 bytes in hex, shared by all edges, from which the keys of stateless resets, address tokens and TLS
	// tickets are derived; needed.
	Secret run.Secret

	// IdleTimeout closes a connection that is silent; default 90 s. Clients keep theirs alive every 20 to 25 s.
	IdleTimeout time.Duration
	// MaxConnections bounds all connections; default 100,000.
	MaxConnections int
	// MaxEarlyPerAddress bounds the connections of one address (IPv6: /64) that are not authenticated; default 2,048.
	MaxEarlyPerAddress int
	// RetryRate is from how many handshakes a second on addresses are verified first; default 2,000.
	RetryRate int
	// HandshakeRate is the most handshakes a second; default 10,000.
	HandshakeRate int
	// DrainWindow is over how long GoAway is spread; default 5 s. Drain's context may cut it short.
	DrainWindow time.Duration

	// Session configures the sessions.
	Session session.Config
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7443"
	}
	if c.ListenFlag == "" {
		c.ListenFlag = "--listen"
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 90 * time.Second
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 100_000
	}
	if c.MaxEarlyPerAddress == 0 {
		c.MaxEarlyPerAddress = 2048
	}
	if c.RetryRate == 0 {
		c.RetryRate = 2000
	}
	if c.HandshakeRate == 0 {
		c.HandshakeRate = 10_000
	}
	if c.DrainWindow == 0 {
		c.DrainWindow = 5 * time.Second
	}
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
	if c.IdleTimeout != 0 && (c.IdleTimeout < 10*time.Second || c.IdleTimeout > 10*time.Minute) {
		errs = append(errs, fmt.Errorf("edge: idle timeout %v is not in 10s..10m", c.IdleTimeout))
	}
	if c.MaxConnections < 0 || c.MaxEarlyPerAddress < 0 || c.RetryRate < 0 || c.HandshakeRate < 0 || c.DrainWindow < 0 {
		errs = append(errs, errors.New("edge: a limit is negative"))
	}
	return errors.Join(errs...)
}
