package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutation is a fault that is planted to see whether a test notices.
type mutation struct {
	name    string
	promise string // which of P1 to P9 in the README it breaks; empty: another rule
	file    string
	old     string   // stands in file once
	new     string   // what is there instead
	tests   []string // arguments of go test, of which one run at least must fail
}

// mutateTimeout is how long the tests of one mutation may take. One that hangs has noticed.
const mutateTimeout = 5 * time.Minute

// mutate plants the mutations whose name has one of the words in it, or all, one after the other, and prints which
// survive. The files are not touched: the go command is told to compile others in their place. It returns how many
// survive or could not be tried.
func mutate(dir string, words []string, w io.Writer) (int, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	tmp, err := os.MkdirTemp("", "helio-mutate-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	bad, tried := 0, 0
	for i, m := range mutations {
		if len(words) > 0 && !slices.ContainsFunc(words, func(s string) bool { return strings.Contains(m.name, s) }) {
			continue
		}
		tried++
		begun := time.Now()
		caught, err := m.try(dir, filepath.Join(tmp, fmt.Sprint(i)))
		verdict := "caught"
		switch {
		case err != nil:
			verdict, bad = "ERROR   "+err.Error(), bad+1
		case !caught:
			verdict, bad = "SURVIVES", bad+1
		}
		fmt.Fprintf(w, "%-3s %-58s %5.1f s  %s\n", m.promise, m.name, time.Since(begun).Seconds(), verdict)
	}
	if tried == 0 {
		return 0, fmt.Errorf("no mutation is named like %s", strings.Join(words, ", "))
	}
	fmt.Fprintf(w, "%d mutations, %d not caught\n", tried, bad)
	return bad, nil
}

// apply returns the file with the fault in it.
func (m mutation) apply(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, m.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(raw), m.old); n != 1 {
		return "", fmt.Errorf("%s has what is to be changed %d times, not once: mend tools/lint/mutations.go",
			m.file, n)
	}
	return strings.Replace(string(raw), m.old, m.new, 1), nil
}

// try tells whether a test notices the fault.
func (m mutation) try(dir, tmp string) (caught bool, err error) {
	text, err := m.apply(dir)
	if err != nil {
		return false, err
	}
	if err := os.WriteFile(tmp+".go", []byte(text), 0o600); err != nil {
		return false, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(dir, m.file): tmp + ".go"}})
	if err != nil {
		return false, err
	}
	if err := os.WriteFile(tmp+".json", overlay, 0o600); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), mutateTimeout)
	defer cancel()
	for _, args := range m.tests {
		command := append([]string{"test", "-count=1", "-overlay", tmp + ".json"}, strings.Fields(args)...)
		cmd := exec.CommandContext(ctx, "go", command...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil && strings.Contains(string(out), "no tests to run"):
			return false, fmt.Errorf("go test %s: no tests to run", args)
		case err == nil:
			continue
		case ctx.Err() != nil:
			return true, nil
		case !errors.As(err, &exit), strings.Contains(string(out), "[build failed]"),
			strings.Contains(string(out), "[setup failed]"):
			return false, fmt.Errorf("go test %s: %w\n%s", args, err, out)
		}
		return true, nil
	}
	return false, nil
}
