package edge

import (
	"crypto/x509"
	"log/slog"
	"os"
	"testing"
	"time"

	"heliograph/infra/embedded/certtest"
)

// A certificate that was replaced is served from then on; one that cannot be read leaves the old one in use.
func TestCertificateIsReadAgain(t *testing.T) {
	var cfg Config
	identify(t, &cfg)
	other := certtest.New(t, "another").Server(t, "other.example")
	certs, err := newCertificates(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := func(files ...string) *x509.Certificate {
		t.Helper()
		for i, to := range []string{cfg.CertFile, cfg.KeyFile} {
			b := []byte("no certificate")
			if i < len(files) {
				if b, err = os.ReadFile(files[i]); err != nil {
					t.Fatal(err)
				}
			}
			certs.stamp, certs.checked = time.Time{}, time.Time{} // as if both were long ago
			if err := os.WriteFile(to, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cert, err := certs.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf
	}
	if err := served(other.CertFile, other.KeyFile).VerifyHostname("other.example"); err != nil {
		t.Error(err)
	}
	if err := served().VerifyHostname("other.example"); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
}
