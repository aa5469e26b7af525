package run

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Secret is a password or key that prints redacted in every form: fmt, slog, JSON. Reveal gives the text.
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret; an empty one prints as empty, so that a forgotten one can be told.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText hides the secret from JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ClientTLS says how a client checks a server and shows itself to it. The zero value means no TLS; verification cannot be turned off.
type ClientTLS struct {
	Enable     bool
	CAFile     string // PEM; default: the system's roots
	CertFile   string // PEM; with KeyFile, for mutual TLS
	KeyFile    string
	ServerName string // default: the address's host
}

// Validate reports every fault at once; it does not read the files.
func (t ClientTLS) Validate() error {
	var errs []error
	if (t.CertFile == "") != (t.KeyFile == "") {
		errs = append(errs, errors.New("tls: certificate and key files go together"))
	}
	if !t.Enable && (t.CAFile != "" || t.CertFile != "" || t.ServerName != "") {
		errs = append(errs, errors.New("tls: files or a server name are set but TLS is not enabled"))
	}
	return errors.Join(errs...)
}

// Load reads the files; it returns nil when TLS is not enabled.
func (t ClientTLS) Load() (*tls.Config, error) {
	if !t.Enable {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: read CA file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: no certificate in CA file %s", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: load certificate: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}
