package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// rule is an alert of alerts.yaml.
type rule struct {
	Alert, Expr string
	For         string `yaml:",omitempty"`
	Labels      map[string]string
	Annotations map[string]string
}

// ruleFile is alerts.yaml.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

func alertRules(t *testing.T) (f ruleFile) {
	t.Helper()
	strict(t, deployed(t, "alerts.yaml"), &f)
	return f
}

// tool finds a program of Debian's package prometheus; without it the test is left out, and says so.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here (Debian: apt-get install prometheus): not tried", name)
	}
	return path
}

// TestRunbook: each alert links a section of the runbook, each section is of an alert, and what the sections say to run
// there is.
func TestRunbook(t *testing.T) {
	const file = "infra/deploy/RUNBOOK.md#"
	runbook := string(deployed(t, "RUNBOOK.md"))
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)\n\S`).FindAllStringSubmatch(runbook, -1) {
		sections[m[1]] = true
	}
	for _, g := range alertRules(t).Groups {
		for _, r := range g.Rules {
			if !sections[r.Alert] {
				t.Errorf("%s has no section", r.Alert)
			}
			delete(sections, r.Alert)
			if got := r.Annotations["runbook_url"]; got != file+strings.ToLower(r.Alert) {
				t.Errorf("%s links %q", r.Alert, got)
			}
		}
	}
	for name := range sections {
		t.Errorf("%s is no alert", name)
	}
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]bool{}
	for _, n := range parser.Model.Children {
		commands[n.Name] = true
		for _, sub := range n.Children {
			commands[n.Name+" "+sub.Name] = true
		}
	}
	for _, m := range regexp.MustCompile("`helio ([a-z]+)( [a-z]+)?").FindAllStringSubmatch(runbook, -1) {
		if !commands[m[1]] || m[2] != "" && !commands[m[1]+m[2]] && m[1] != "secrets" {
			t.Errorf("there is no command helio %s%s", m[1], m[2])
		}
	}
}

// TestAlertsOnSeries: each alert is set off by series that must set it off, and by none that must not; were its rule
// deaf, or deafening, that would be seen.
func TestAlertsOnSeries(t *testing.T) {
	promtool := tool(t, "promtool")
	try := func(expr string) (told string, ok bool) {
		t.Helper()
		dir := t.TempDir()
		f := alertRules(t)
		for i := range f.Groups {
			for k := range f.Groups[i].Rules {
				if r := &f.Groups[i].Rules[k]; expr != "" {
					r.Expr, r.For = expr, ""
				}
			}
		}
		rules, err := yaml.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{
			"alerts.yaml": rules, "alerts_test.yaml": deployed(t, "alerts_test.yaml"),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b, err := exec.CommandContext(
			t.Context(), promtool, "test", "rules", filepath.Join(dir, "alerts_test.yaml"),
		).CombinedOutput()
		return string(b), err == nil
	}
	if told, ok := try(""); !ok {
		t.Fatal(told)
	}
	for name, expr := range map[string]string{"deaf": "vector(1) > 1", "deafening": "vector(1)"} {
		told, _ := try(expr)
		for _, g := range alertRules(t).Groups {
			for _, r := range g.Rules {
				if !strings.Contains(told, fmt.Sprintf("alertname: %s, time:", r.Alert)) {
					t.Errorf("%s: were it %s, no series would tell", r.Alert, name)
				}
			}
		}
	}
}
