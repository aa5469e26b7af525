package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// steps runs steps of check.sh where only these programs can be had, besides what every machine has.
func steps(t *testing.T, programs map[string]string, names ...string) (said string, code int) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"bash", "cat", "dirname", "grep", "mktemp", "rm", "sed"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range programs {
		script = "#!/usr/bin/env bash\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "./check.sh", names...)
	cmd.Env = []string{"PATH=" + bin, "HOME=" + bin, "TMPDIR=" + bin, "HELIO_CHECKS=" + bin + "/none"}
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// A step that has nothing to check with says so, and never that all is well; one that finds a fault fails.
func TestStepsWithoutTheirTools(t *testing.T) {
	const unreachable = `echo "govulncheck: fetching vulnerabilities: Get x: dial tcp: connection refused" >&2; exit 1`
	for _, tc := range []struct {
		name, step string
		programs   map[string]string
		says       []string
		code       int
	}{
		{"no promtool", "alerts", nil,
			[]string{"none  alerts", "apt-get install prometheus", "not checked: alerts"}, 0},
		{"promtool finds a fault", "alerts",
			map[string]string{"promtool": `[ $1 = check ] || { echo broken; exit 1; }`},
			[]string{"FAIL  alerts", "broken"}, 1},
		{"a rule does not parse", "alerts", map[string]string{"promtool": `[ $1 = test ] || { echo broken; exit 1; }`},
			[]string{"FAIL  alerts", "broken"}, 1},
		{"promtool finds none", "alerts", map[string]string{"promtool": "exit 0"}, []string{"ok    alerts"}, 0},
		{"no kubernetes-validate", "kubernetes", nil,
			[]string{"none  kubernetes", "make check-tools", "not checked: kubernetes"}, 0},
		{"kubernetes-validate finds a fault", "kubernetes",
			map[string]string{"kubernetes-validate": `echo "INFO fine"; echo "ERROR broken"; exit 1`},
			[]string{"FAIL  kubernetes", "ERROR broken"}, 1},
		{"the compose loader finds a fault", "compose", map[string]string{"go": "echo broken; exit 1"},
			[]string{"FAIL  compose", "broken"}, 1},
		{"no database of vulnerabilities", "vuln", map[string]string{"go": unreachable},
			[]string{"none  vuln", "cannot be reached", "no known vulnerability was looked for", "refused"}, 0},
		{"a vulnerability", "vuln", map[string]string{"go": "echo GO-2026-1; exit 3"},
			[]string{"FAIL  vuln", "GO-2026-1"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said, code := steps(t, tc.programs, tc.step)
			if code != tc.code {
				t.Errorf("it ended with %d, want %d", code, tc.code)
			}
			for _, want := range tc.says {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
		})
	}
}
