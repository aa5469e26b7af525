package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
	"heliograph/tools/cluster"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// The demo itself: every kind of failure on the way, and no difference at the end.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	engines, err := enginetest.FindEngines()
	if err != nil {
		t.Fatal(err)
	}
	helio := filepath.Join(t.TempDir(), "helio")
	build := exec.CommandContext(ctx, "go", "build", "-o", helio, "heliograph/tools/helio")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build helio: %v\n%s", err, out)
	}
	var out bytes.Buffer
	p := NewPrinter(&out, nil)
	p.Head()
	result, err := Run(ctx, Config{
		Cluster:  cluster.Options{Dir: enginetest.Dir(t), Helio: helio, EnginesDir: engines},
		burst:    30,
		patience: 90 * time.Second,
	}, p.Step)
	p.End(result)
	if errors.Is(err, embedded.Missing) {
		enginetest.Absent(t, err)
	}
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !result.OK {
		t.Error(result.Verdict)
	}
	if got, want := len(result.Views), 2; got != want {
		t.Errorf("%d views were compared, want %d", got, want)
	}
	if got, want := len(result.Comparisons), 1+6; got != want {
		t.Errorf("%d places were compared, want %d", got, want)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimRight(line, "\n")
		if utf8.RuneCountInString(line) > 80 || strings.ContainsRune(line, '\x1b') {
			t.Errorf("a line that is wider than 80 columns or coloured though this is no terminal: %q", line)
		}
	}
	if _, err := json.Marshal(result); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	err := Config{Cluster: cluster.Options{Edges: 1}}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{"no directory", "no helio binary", "an edge and a delivery instance"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell of %q", err, want)
		}
	}
}
