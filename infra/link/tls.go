package link

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ALPN is the protocol name of a link.
const ALPN = "helio-link/1"

// DefaultServerName is the DNS name that the certificates of both ends carry.
const DefaultServerName = "helio-link"

// TLS names the files of one end of the links. Both ends use the same kind of certificate: signed by the cluster's CA,
// for ServerName, usable by servers and clients.
type TLS struct {
	// CAFile is PEM of one authority or several. Like the next two it is read at every handshake, so that it can be
	// renewed in place.
	CAFile     string
	CertFile   string       // PEM
	KeyFile    string       // PEM
	ServerName string       // default DefaultServerName
	Logger     *slog.Logger // takes the renewals and those that failed; nil discards
}

// Validate reports every fault at once; it does not read the files.
func (t TLS) Validate() error {
	var errs []error
	for what, file := range map[string]string{"CA": t.CAFile, "certificate": t.CertFile, "key": t.KeyFile} {
		if file == "" {
			errs = append(errs, fmt.Errorf("link: no %s file: links need mutual TLS", what))
		}
	}
	return errors.Join(errs...)
}

// Load reads the files and returns a configuration for Listen and Dial alike. Every handshake looks whether the files
// have changed; while new ones cannot be read, or do not belong together, the old ones go on.
func (t TLS) Load() (*tls.Config, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	f := &identityFiles{files: t, log: t.Logger}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if _, err := f.read(); err != nil {
		return nil, err
	}
	return mutual(t.ServerName, f.current), nil
}

// identity is what one end shows and whom it trusts.
type identity struct {
	cert        *tls.Certificate
	authorities *x509.CertPool
}

// identityFiles is an identity that lies in files.
type identityFiles struct {
	files TLS
	log   *slog.Logger

	mu   sync.Mutex // guards the rest
	have *identity
	raw  [3][]byte // of CA, certificate and key, as have was made from them
}

// current is the identity of now; it never fails once there has been one.
func (f *identityFiles) current() *identity {
	now, err := f.read()
	if err != nil {
		f.log.Error("certificate reload failed, keeping the old one", "file", f.files.CertFile, "err", err)
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.have
	}
	return now
}

func (f *identityFiles) read() (*identity, error) {
	var raw [3][]byte
	for i, file := range []struct{ what, name string }{
		{"CA file", f.files.CAFile}, {"certificate", f.files.CertFile}, {"key", f.files.KeyFile},
	} {
		var err error
		if raw[i], err = os.ReadFile(file.name); err != nil {
			return nil, fmt.Errorf("link: read %s: %w", file.what, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.have != nil && slices.EqualFunc(raw[:], f.raw[:], bytes.Equal) {
		return f.have, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw[0]) {
		return nil, fmt.Errorf("link: no certificate in CA file %s", f.files.CAFile)
	}
	cert, err := tls.X509KeyPair(raw[1], raw[2])
	if err != nil {
		return nil, fmt.Errorf("link: load certificate: %w", err)
	}
	if f.have != nil {
		f.log.Info("certificates of the links were read again", "file", f.files.CertFile, "expires", cert.Leaf.NotAfter)
	}
	f.have, f.raw = &identity{&cert, pool}, raw
	return f.have, nil
}

// mutual returns a configuration in which either side shows and trusts what current returns at the handshake, and
// wants the other to bear name.
func mutual(name string, current func() *identity) *tls.Config {
	if name == "" {
		name = DefaultServerName
	}
	// verify judges the other end's certificate by the authorities of now; those in a tls.Config are of its making.
	verify := func(use x509.ExtKeyUsage, name string, state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("link: the other end showed no certificate")
		}
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
			DNSName: name, Roots: current().authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use},
		})
		if err != nil {
			return fmt.Errorf("link: the other end's certificate: %w", err)
		}
		return nil
	}
	server := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPN},
		ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return current().cert, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			return verify(x509.ExtKeyUsageClientAuth, name, state)
		},
		SessionTicketsDisabled: true, // links are few and long: every one is verified in full
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             server.NextProtos,
		GetConfigForClient:     func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil },
		GetCertificate:         server.GetCertificate,
		SessionTicketsDisabled: true,
		ServerName:             name,
		InsecureSkipVerify:     true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			return verify(x509.ExtKeyUsageServerAuth, state.ServerName, state)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return current().cert, nil
		},
	}
}

// Authority is a certificate authority of a development cluster or a test, made on the spot. In production the CA is
// the operator's.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a self-signed CA that is valid for ten years.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("link: make CA key: %w", err)
	}
	tmpl, err := template("heliograph development CA")
	if err != nil {
		return nil, err
	}
	tmpl.IsCA = true
	tmpl.BasicConstraintsValid = true
	tmpl.MaxPathLenZero = true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("link: make CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("link: read CA: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("link: make serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
	}, nil
}

// Leaf makes a certificate for one end, named for logs, and valid for DefaultServerName; it returns PEM.
func (a *Authority) Leaf(name string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("link: make key of %s: %w", name, err)
	}
	tmpl, err := template(name)
	if err != nil {
		return nil, nil, err
	}
	tmpl.DNSNames = []string{DefaultServerName}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("link: make certificate of %s: %w", name, err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("link: encode key of %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs}), nil
}

// CertPEM returns the CA's certificate.
func (a *Authority) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Config returns the configuration of one end without files, for one process and for tests.
func (a *Authority) Config(name string) (*tls.Config, error) {
	certPEM, keyPEM, err := a.Leaf(name)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("link: read certificate of %s: %w", name, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	own := &identity{&cert, pool}
	return mutual(DefaultServerName, func() *identity { return own }), nil
}

// WriteFiles writes ca.pem and, for each name, <name>.pem and <name>.key into dir, which must exist, and returns the
// names of each one's files. The CA's key is not kept: a dev cluster that needs another certificate makes all of them
// anew.
func (a *Authority) WriteFiles(dir string, names ...string) (map[string]TLS, error) {
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, a.CertPEM(), 0o600); err != nil {
		return nil, fmt.Errorf("link: write CA: %w", err)
	}
	out := make(map[string]TLS, len(names))
	for _, name := range names {
		certPEM, keyPEM, err := a.Leaf(name)
		if err != nil {
			return nil, err
		}
		t := TLS{CAFile: ca, CertFile: filepath.Join(dir, name+".pem"), KeyFile: filepath.Join(dir, name+".key")}
		if err := os.WriteFile(t.CertFile, certPEM, 0o600); err != nil {
			return nil, fmt.Errorf("link: write certificate of %s: %w", name, err)
		}
		if err := os.WriteFile(t.KeyFile, keyPEM, 0o600); err != nil {
			return nil, fmt.Errorf("link: write key of %s: %w", name, err)
		}
		out[name] = t
	}
	return out, nil
}
