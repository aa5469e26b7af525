package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What DataDir holds.
const (
	// CertName is the certificate for development: a client that trusts this file trusts the edge.
	CertName   = "edge-cert.pem"
	keyName    = "edge-key.pem"
	secretName = "edge-secret.hex"
)

// A certificate for development lives under 14 days, the most that a browser takes one for by its hash, and is replaced in its last three.
const (
	devLifetime = 13 * 24 * time.Hour
	devRenew    = 3 * 24 * time.Hour
	certCheck   = 30 * time.Second
)

// certificates serves the certificate of two files and reads them again when they have changed. Safe for concurrent use.
type certificates struct {
	certFile, keyFile string
	names             []string // not nil: made here, so it is also replaced here
	dev               bool
	log               *slog.Logger

	mu      sync.Mutex // guards the rest
	cert    *tls.Certificate
	stamp   time.Time // of certFile
	checked time.Time
}

func newCertificates(c Config, log *slog.Logger) (*certificates, error) {
	out := &certificates{certFile: c.CertFile, keyFile: c.KeyFile, log: log}
	if c.CertFile == "" {
		out.dev, out.names = true, c.Names
		out.certFile, out.keyFile = filepath.Join(c.DataDir, CertName), filepath.Join(c.DataDir, keyName)
	}
	return out, out.refresh()
}

// get implements tls.Config.GetCertificate.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) > certCheck {
		if err := c.refreshLocked(); err != nil {
			c.log.Error("certificate not read again, the old one is used on", "file", c.certFile, "err", err)
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
	if c.dev {
		if err := c.renew(); err != nil {
			return err
		}
	}
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

// renew makes a certificate when there is none, it is about to end, or it lacks a name.
func (c *certificates) renew() error {
	if have, err := tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil && time.Until(have.Leaf.NotAfter) > devRenew {
		covers := true
		for _, n := range c.names {
			covers = covers && have.Leaf.VerifyHostname(n) == nil
		}
		if covers {
			return nil
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("certificate for development cannot be read, making another", "file", c.certFile, "err", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.certFile), 0o700); err != nil {
		return fmt.Errorf("edge: data directory: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("edge: make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("edge: make serial: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Heliograph development"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(devLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, n := range append([]string{"localhost", "127.0.0.1", "::1"}, c.names...) {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("edge: make certificate: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("edge: encode key: %w", err)
	}
	// The key first: who finds a new certificate finds its key.
	if err := writeFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		return err
	}
	return writeFile(c.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// writeFile replaces a file as a whole.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("edge: write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("edge: write %s: %w", path, err)
	}
	return nil
}

// secret returns the configured secret, or the one in DataDir, which it makes when there is none.
func secret(c Config) ([]byte, error) {
	text := c.Secret.Reveal()
	path := filepath.Join(c.DataDir, secretName)
	if text == "" {
		raw, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
			if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
				return nil, fmt.Errorf("edge: data directory: %w", err)
			}
			return key, writeFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600)
		case err != nil:
			return nil, fmt.Errorf("edge: read secret: %w", err)
		}
		text = strings.TrimSpace(string(raw))
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("edge: the secret in %s is not 32 bytes in hex; remove the file to have another made", path)
	}
	return key, nil
}

// derive makes a key of 32 bytes for one use.
func derive(secret []byte, use string) [32]byte {
	out, err := hkdf.Key(sha256.New, secret, nil, "helio/edge/1 "+use, 32)
	if err != nil {
		panic(err) // the length is fixed and fine
	}
	return [32]byte(out)
}
