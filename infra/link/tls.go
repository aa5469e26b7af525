package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// ALPN is the protocol name of a link.
const ALPN = "helio-link/1"

// DefaultServerName is the DNS name that the certificates of both ends carry.
const DefaultServerName = "helio-link"

// TLS names the files of one end of the links. Both ends use the same kind of certificate: signed by the cluster's CA,
// for ServerName, usable by servers and clients.
type TLS struct {
	CAFile     string // PEM
	CertFile   string // PEM; read at every handshake, so that it can be renewed in place
	KeyFile    string // PEM; likewise
	ServerName string // default DefaultServerName
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

// Load reads the files and returns a configuration for Listen and Dial alike.
func (t TLS) Load() (*tls.Config, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("link: read CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("link: no certificate in CA file %s", t.CAFile)
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("link: load certificate: %w", err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return mutual(pool, t.ServerName, load), nil
}

// mutual returns a configuration in which either side shows what load returns and verifies the other against pool and
// name.
func mutual(pool *x509.CertPool, name string, load func() (*tls.Certificate, error)) *tls.Config {
	if name == "" {
		name = DefaultServerName
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPN},
		ServerName: name,
		RootCAs:    pool,
		ClientCAs:  pool,
		ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return load()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return load()
		},
		// The client checks the server's name by itself; the server's check of the client's is here.
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("link: the other end showed no certificate")
			}
			if err := state.PeerCertificates[0].VerifyHostname(name); err != nil {
				return fmt.Errorf("link: the other end's certificate: %w", err)
			}
			return nil
		},
		SessionTicketsDisabled: true, // links are few and long: every one is verified in full
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
	return mutual(pool, DefaultServerName, func() (*tls.Certificate, error) { return &cert, nil }), nil
}

// WriteFiles writes ca.pem and, for each name, <name>.pem and <name>.key into dir, which must exist, and returns the
// names of each one's files. The CA's key is not kept: a dev cluster that needs another certificate makes all of them
// anew.
func (a *Authority) WriteFiles(dir string, names ...string) (map[string]TLS, error) {
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, a.CertPEM(), 0o644); err != nil {
		return nil, fmt.Errorf("link: write CA: %w", err)
	}
	out := make(map[string]TLS, len(names))
	for _, name := range names {
		certPEM, keyPEM, err := a.Leaf(name)
		if err != nil {
			return nil, err
		}
		t := TLS{CAFile: ca, CertFile: filepath.Join(dir, name+".pem"), KeyFile: filepath.Join(dir, name+".key")}
		if err := os.WriteFile(t.CertFile, certPEM, 0o644); err != nil {
			return nil, fmt.Errorf("link: write certificate of %s: %w", name, err)
		}
		if err := os.WriteFile(t.KeyFile, keyPEM, 0o600); err != nil {
			return nil, fmt.Errorf("link: write key of %s: %w", name, err)
		}
		out[name] = t
	}
	return out, nil
}
