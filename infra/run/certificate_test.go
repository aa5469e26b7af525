package run

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// certificate is PEM of a certificate that expires then.
func certificate(t *testing.T, expires time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: expires.Add(-time.Hour), NotAfter: expires}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// The expiry is that of the file as it is now, of a bundle the first; what cannot be read has expired.
func TestCertificates(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := NewCertificates(reg)
	got := func() map[string]int64 {
		t.Helper()
		out := map[string]int64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				out[f.GetName()+" "+m.GetLabel()[0].GetValue()] = int64(m.GetGauge().GetValue())
			}
		}
		return out
	}
	if diff := cmp.Diff(map[string]int64{}, got()); diff != "" {
		t.Errorf("without certificates (-want +got):\n%s", diff)
	}
	dir := t.TempDir()
	soon, late := time.Unix(1_900_000_000, 0), time.Unix(2_000_000_000, 0)
	write := func(name string, b ...[]byte) {
		t.Helper()
		var all []byte
		for _, p := range b {
			all = append(all, p...)
		}
		if err := os.WriteFile(filepath.Join(dir, name), all, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("link", certificate(t, soon))
	write("bundle", certificate(t, late), []byte("a comment\n"), certificate(t, soon))
	write("broken", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	for _, name := range []string{"link", "bundle", "broken", "none"} {
		c.Watch(name, filepath.Join(dir, name))
	}
	const metric = "helio_run_certificate_expiry_timestamp_seconds "
	want := map[string]int64{
		metric + "link": soon.Unix(), metric + "bundle": soon.Unix(), metric + "broken": 0, metric + "none": 0,
	}
	if diff := cmp.Diff(want, got()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	write("link", certificate(t, late))
	want[metric+"link"] = late.Unix()
	if diff := cmp.Diff(want, got()); diff != "" {
		t.Errorf("renewed (-want +got):\n%s", diff)
	}
}
