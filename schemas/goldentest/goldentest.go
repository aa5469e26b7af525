// Package goldentest keeps files of goldens: what a released version encoded, and what it must be read as for ever.
//
// Promise: a file is made once and never made anew. It knows nothing of Go (JSON, with the bytes in hex beside what
// they say), so that every SDK is held to it. Nothing here is for production code.
//
// Non-obvious:
//   - Beside the files stands SHA256SUMS, as sha256sum writes it: a file that was changed, with its bytes and what they
//     say in step, would pass every other test.
package goldentest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sums = "SHA256SUMS"

// Frozen fails the test unless every file of goldens in dir is as it was when it was written.
func Frozen(t *testing.T, dir string) {
	t.Helper()
	for _, fault := range faults(dir) {
		t.Error(fault)
	}
}

// faults says what is wrong with the files of dir.
func faults(dir string) (out []string) {
	b, err := os.ReadFile(filepath.Join(dir, sums))
	if err != nil {
		return []string{err.Error()}
	}
	want := map[string]string{}
	for line := range strings.Lines(string(b)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok || want[name] != "" {
			return []string{fmt.Sprintf("%s has the line %q", sums, line)}
		}
		want[name] = sum
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.json")) // the pattern is a good one
	for _, f := range files {
		name := filepath.Base(f)
		b, err := os.ReadFile(f)
		switch {
		case err != nil:
			out = append(out, err.Error())
		case want[name] == "":
			out = append(out, fmt.Sprintf("%s is not in %s", f, sums))
		case want[name] != fmt.Sprintf("%x", sha256.Sum256(b)):
			out = append(out, fmt.Sprintf("%s was changed: goldens are written once, a new version adds a file", f))
		}
		delete(want, name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		out = append(out, fmt.Sprintf("%s is in %s and gone", filepath.Join(dir, name), sums))
	}
	return out
}

// Create writes a new file of goldens; one that is there is left as it is, and the test fails.
func Create(t *testing.T, dir, name string, list any) {
	t.Helper()
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	write(t, filepath.Join(dir, filepath.Base(name)), os.O_CREATE|os.O_EXCL, b)
	line := fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(b), filepath.Base(name))
	write(t, filepath.Join(dir, sums), os.O_CREATE|os.O_APPEND, line)
}

func write(t *testing.T, name string, flags int, b []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|flags, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Read reads the files of goldens in dir, by name. A field that a golden must not have fails the test.
func Read[T any](t *testing.T, dir string) map[string][]T {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files in %s: %v", dir, err)
	}
	out := map[string][]T{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var list []T
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&list); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[f] = list
	}
	return out
}
