package secrets_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/link"
	"heliograph/tools/secrets"
)

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestEnsure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := secrets.Ensure(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := read(t, dir)
	for _, name := range []string{secrets.UserKey, secrets.TokenKey} {
		if got := len(first[name]); got != 32 {
			t.Errorf("%s has %d bytes, want 32", name, got)
		}
	}
	for name := range first {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, got)
		}
	}
	if err := secrets.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, read(t, dir)); diff != "" {
		t.Errorf("the second call changed something (-first +second):\n%s", diff)
	}

	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, secrets.EdgeCert), filepath.Join(dir, secrets.EdgeKey))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(first[secrets.EdgeCert])) {
		t.Fatal("edge.pem holds no certificate")
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool}); err != nil {
			t.Errorf("edge's certificate for %s: %v", host, err)
		}
	}
	if _, err := (link.TLS{
		CAFile: filepath.Join(dir, secrets.LinkCA), CertFile: filepath.Join(dir, secrets.LinkCert),
		KeyFile: filepath.Join(dir, secrets.LinkKey),
	}).Load(); err != nil {
		t.Error(err)
	}
}

func TestEnsureKeepsPart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, secrets.EdgeKey), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := secrets.Ensure(dir)
	if err == nil || !strings.Contains(err.Error(), secrets.EdgeCert) {
		t.Errorf("got error %v, want one that names %s", err, secrets.EdgeCert)
	}
	if got := read(t, dir)[secrets.EdgeKey]; got != "mine" {
		t.Errorf("the key became %q", got)
	}
}

func TestEnsureGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := secrets.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	want := read(t, dir)
	// As a process leaves it that dies between two renames.
	stage := filepath.Join(dir, ".new-"+secrets.EdgeCert)
	if err := os.Mkdir(stage, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, secrets.EdgeKey), filepath.Join(stage, secrets.EdgeKey)); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(t, dir)); diff != "" {
		t.Errorf("the set differs (-want +got):\n%s", diff)
	}
}
