package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helio is the binary under test.
var helio string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "helio-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	helio = filepath.Join(dir, "helio")
	args := []string{"build", "-o", helio}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "heliograph/tools/helio")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: build helio: %v\n%s", err, out)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goleak:", err)
		return 1
	}
	return 0
}

// patience is how long a test waits for something that must happen.
const patience = 90 * time.Second

func inCI() bool { return os.Getenv("CI") == "true" }

// number reads a number from the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// outage is how long an engine stays down.
func outage(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("HELIO_E2E_OUTAGE")
	switch {
	case s == "" && inCI():
		return 30 * time.Second
	case s == "":
		return 3 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("HELIO_E2E_OUTAGE: %v", err)
	}
	return d
}

// random returns a source whose seed is printed.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(number(t, "HELIO_E2E_SEED", int(rand.Uint32())))
	t.Logf("HELIO_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
