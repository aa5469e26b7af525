package run

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// ClientTLS says how a client checks a server and shows itself to it. The zero value means no TLS; verification cannot
// be turned off.
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

// Untrusted tells whether a TLS handshake failed for what the two sides are: a certificate that the other does not
// trust or does not get, another name, no TLS where it was expected. Trying again does not mend that, at least not
// within the life of a process that starts.
func Untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	// A library that verifies by itself, as pgx does for verify-ca, returns what x509 said.
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &cert) || errors.As(err, &header) || errors.As(err, &authority) || errors.As(err, &name) ||
		errors.As(err, &invalid) {
		return true
	}
	// What the peer refuses comes as an alert of an unexported type; crypto/tls marks it in Op.
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
