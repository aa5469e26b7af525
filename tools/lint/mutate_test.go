package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutation: a fault that a test notices is caught, one that it does not survives, and one that can no more be
// planted, does not compile or has no test is an error, not a success.
func TestMutation(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.24\n",
		"m.go":   "package m\n\nfunc Sum(a, b int) int { return a + b }\n\nfunc Spare() int { return 1 }\n",
		"m_test.go": "package m\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n" +
			"\tif Sum(1, 2) != 3 {\n\t\tt.Error()\n\t}\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-mod=mod")
	for _, c := range []struct {
		name   string
		m      mutation
		caught bool
		fault  string
	}{
		{"noticed", mutation{old: "a + b", new: "a - b"}, true, ""},
		{"not noticed", mutation{old: "return 1", new: "return 2"}, false, ""},
		{"gone", mutation{old: "a * b", new: "a - b"}, false, "0 times"},
		{"twice", mutation{old: "return", new: "return 0 +"}, false, "2 times"},
		{"does not compile", mutation{old: "a + b", new: "a + c"}, false, "build failed"},
		{"no test", mutation{old: "a + b", new: "a - b", tests: []string{"-run Nothing ."}}, false, "no tests to run"},
	} {
		c.m.file = "m.go"
		if c.m.tests == nil {
			c.m.tests = []string{"."}
		}
		caught, err := c.m.try(dir, filepath.Join(t.TempDir(), "x"))
		if caught != c.caught || (err != nil) != (c.fault != "") ||
			err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: caught %v, %v; want %v, %q", c.name, caught, err, c.caught, c.fault)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "m.go"))
	if err != nil || !strings.Contains(string(raw), "a + b") || !strings.Contains(string(raw), "return 1") {
		t.Errorf("the files were touched: %v\n%s", err, raw)
	}
}
