package edge

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certCheck is how often it is looked whether the certificate's file has changed.
const certCheck = 30 * time.Second

// certificates serves the certificate of two files and reads them again when they have changed. Safe for concurrent
// use.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards the rest
	cert    *tls.Certificate
	stamp   time.Time // of certFile
	checked time.Time
}

func newCertificates(c Config, log *slog.Logger) (*certificates, error) {
	out := &certificates{certFile: c.CertFile, keyFile: c.KeyFile, log: log}
	return out, out.refresh()
}

// get implements tls.Config.GetCertificate.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) > certCheck {
		if err := c.refreshLocked(); err != nil {
			c.log.Error("certificate reload failed, keeping the old one", "file", c.certFile, "err", err)
		}
	}
	return c.cert, nil
}

func (c *certificates) refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refreshLocked()
}

func (c *certificates) refreshLocked() error {
	c.checked = time.Now()
	info, err := os.Stat(c.certFile)
	if err != nil {
		return fmt.Errorf("edge: certificate: %w", err)
	}
	if c.cert != nil && info.ModTime().Equal(c.stamp) {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("edge: load certificate: %w", err)
	}
	c.cert, c.stamp = &cert, info.ModTime()
	return nil
}

// derive makes a key of 32 bytes for one use.
func derive(secret []byte, use string) [32]byte {
	out, err := hkdf.Key(sha256.New, secret, nil, "helio/edge/1 "+use, 32)
	if err != nil {
		panic(err) // the length is fixed and fine
	}
	return [32]byte(out)
}
