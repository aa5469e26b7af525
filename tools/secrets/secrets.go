package secrets

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"heliograph/infra/link"
)

// The files of a directory of secrets.
const (
	// UserKey is 32 random bytes, from which user ids and the hashes of phone numbers are derived.
	UserKey = "user.key"
	// TokenKey is 32 random bytes, from which QUIC's reset and address tokens are made, the same on every edge.
	TokenKey = "token.key"
	// EdgeCert and EdgeKey are the edge's certificate for localhost, 127.0.0.1 and ::1, and its key.
	EdgeCert = "edge.pem"
	EdgeKey  = "edge.key"
	// LinkCA, LinkCert and LinkKey are for the links between edges and delivery instances.
	LinkCA   = "ca.pem"
	LinkCert = "link.pem"
	LinkKey  = "link.key"
)

// lifetime of the certificates: longer than a laptop's.
const lifetime = 10 * 365 * 24 * time.Hour

// group is files that are made together, by name.
type group struct {
	names []string
	make  func() (map[string][]byte, error)
}

var groups = []group{
	{[]string{UserKey}, random(UserKey)},
	{[]string{TokenKey}, random(TokenKey)},
	{[]string{EdgeCert, EdgeKey}, edge},
	{[]string{LinkCA, LinkCert, LinkKey}, links},
}

// Ensure makes what is missing in dir, which is created if need be, readable by its owner alone.
func Ensure(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, g := range groups {
		if err := ensure(dir, g); err != nil {
			return err
		}
	}
	return nil
}

// lock holds off other processes until the returned function is called, or this process ends.
func lock(dir string) (func(), error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("secrets: lock %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks; nothing was written through it
}

// staged is where a group's files are made complete before they take their names.
const staged = ".new-"

func ensure(dir string, g group) error {
	var there, missing []string
	for _, name := range g.names {
		_, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case err == nil:
			there = append(there, name)
		case errors.Is(err, os.ErrNotExist):
			missing = append(missing, name)
		default:
			return fmt.Errorf("secrets: %w", err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	stage := filepath.Join(dir, staged+g.names[0])
	if len(there) > 0 {
		// A process that died between two renames leaves the rest of the group in its stage.
		if !all(stage, missing) {
			return fmt.Errorf("secrets: %s has %v but not %v: put those there, "+
				"or remove all of them to have new ones made", dir, there, missing)
		}
		return place(dir, stage, missing)
	}
	if err := os.RemoveAll(stage); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	if err := os.Mkdir(stage, 0o700); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	files, err := g.make()
	if err != nil {
		return fmt.Errorf("secrets: make %v: %w", g.names, err)
	}
	for _, name := range g.names {
		if err := write(filepath.Join(stage, name), files[name]); err != nil {
			return fmt.Errorf("secrets: %w", err)
		}
	}
	return place(dir, stage, g.names)
}

func all(dir string, names []string) bool {
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// place gives staged files their names.
func place(dir, stage string, names []string) error {
	for _, name := range names {
		if err := os.Rename(filepath.Join(stage, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("secrets: %w", err)
		}
	}
	if err := os.RemoveAll(stage); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// write makes a file whose bytes are on the disk before it has its final name.
func write(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func random(name string) func() (map[string][]byte, error) {
	return func() (map[string][]byte, error) {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
		return map[string][]byte{name: b}, nil
	}
}

// edge makes a certificate that signs itself, for devices on this machine.
func edge() (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("edge's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "heliograph edge for development"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("edge's certificate: %w", err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("edge's key: %w", err)
	}
	return map[string][]byte{
		EdgeCert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		EdgeKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs}),
	}, nil
}

func links() (map[string][]byte, error) {
	ca, err := link.NewAuthority()
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := ca.Leaf("link")
	if err != nil {
		return nil, err
	}
	return map[string][]byte{LinkCA: ca.CertPEM(), LinkCert: certPEM, LinkKey: keyPEM}, nil
}
