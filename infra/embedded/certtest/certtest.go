// Package certtest makes certificate authorities for tests, with the certificates that they sign, as PEM files: what an
// operator would write into the TLS settings of an engine and of its clients.
//
// Promise: two authorities have nothing in common, so a client that trusts one refuses what the other signed. Keys are
// PKCS #8, the form that every engine reads, Java's included.
//
// Durability: the files go with the test.
//
// Non-obvious:
//   - The files lie in t.TempDir, which is closed to other users: an engine that runs as one needs copies.
//   - This package imports testing, so only tests may import it.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates. Its methods are called from the goroutine of the test that made it.
type Authority struct {
	// File is the PEM file by which others verify what it signs.
	File string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// A Pair is a certificate with its key.
type Pair struct {
	// CertFile and KeyFile are the two as PEM files.
	CertFile, KeyFile string
	// PEM is both in one: the key, then the certificate.
	PEM []byte
	// Certificate is both, ready for a tls.Config.
	Certificate tls.Certificate
}

// New makes an authority. Its name is what clients that refuse it may show.
func New(tb testing.TB, name string) *Authority {
	tb.Helper()
	a := &Authority{key: newKey(tb)}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := sign(tb, template, template, a.key, a.key)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("make authority: %v", err)
	}
	a.cert, a.pem = cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.File = write(tb, tb.TempDir(), "ca.pem", a.pem)
	return a
}

// Server signs a certificate for a server that is reached under these names and addresses. It is good for a client too,
// since the brokers of a cluster are each other's clients, and Kafka tries that out on itself.
func (a *Authority) Server(tb testing.TB, hosts ...string) Pair {
	tb.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return a.pair(tb, template)
}

// Client signs a certificate for a client.
func (a *Authority) Client(tb testing.TB, name string) Pair {
	tb.Helper()
	return a.pair(tb, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *Authority) pair(tb testing.TB, template *x509.Certificate) Pair {
	tb.Helper()
	key := newKey(tb)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der := sign(tb, template, a.cert, key, a.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("make certificate: %v", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		tb.Fatalf("make certificate: %v", err)
	}
	dir := tb.TempDir()
	return Pair{
		CertFile: write(tb, dir, "cert.pem", certPEM), KeyFile: write(tb, dir, "key.pem", keyPEM),
		PEM: append(keyPEM, certPEM...), Certificate: cert,
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("make key: %v", err)
	}
	return key
}

// sign fills in what all certificates have in common, and signs.
func sign(tb testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatalf("make certificate: %v", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		tb.Fatalf("make certificate: %v", err)
	}
	return der
}

func write(tb testing.TB, dir, name string, b []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatalf("write certificate: %v", err)
	}
	return path
}
