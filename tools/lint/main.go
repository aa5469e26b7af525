// Command lint checks what the compiler and the linters do not know: which
// package may import which, what may stand at the top of the tree, how packages
// are named and described, where the two stores are asked, which words were
// replaced by the glossary's, and whether the files that documents name are there.
// Run it at the root of the module:
//
//	go run ./tools/lint
//
// It prints one finding per line, sorted, and exits with 1 when there are any. It
// writes nothing and keeps no state. With "mutate" it plants known faults, one after
// the other, and tells which of them no test notices (make mutate).
//
// Non-obvious:
//   - The rules and their reasons are data, in rules.go.
//   - Imports of tests count as well: a stage whose tests need another stage is
//     coupled to it. Such tests belong in tools, which may import everything.
//   - go list sees the files of the present platform only.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "mutate" {
		n, err := mutate(".", os.Args[2:], os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutate:", err)
			os.Exit(2)
		}
		os.Exit(min(n, 1))
	}
	n, err := run(".", os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	if n > 0 {
		fmt.Fprintf(os.Stderr, "lint: %d findings\n", n)
		os.Exit(1)
	}
}

// run checks the module rooted at dir and prints the findings to w.
func run(dir string, w io.Writer) (int, error) {
	packages, err := list(dir)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}

	findings := checkTop(names)
	for _, p := range packages {
		findings = append(findings, checkImports(p)...)
		findings = append(findings, checkPackage(p)...)
		for _, file := range p.files() {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return 0, err
			}
			findings = append(findings, checkText(p.path()+"/"+file, string(text))...)
			findings = append(findings, checkQueries(p.path()+"/"+file, string(text))...)
			findings = append(findings, checkWords(p.path()+"/"+file, string(text))...)
		}
	}
	for _, document := range documents {
		text, err := os.ReadFile(filepath.Join(dir, document))
		if err != nil {
			return 0, err
		}
		findings = append(findings, checkFiles(document, string(text), func(file string) bool {
			_, err := os.Stat(filepath.Join(dir, file))
			return err == nil
		})...)
	}
	sort.Strings(findings)
	for _, f := range findings {
		fmt.Fprintln(w, f)
	}
	return len(findings), nil
}

// list asks the go command for the packages of the module.
func list(dir string) ([]pkg, error) {
	const fields = "ImportPath,Name,Doc,Dir,Imports,TestImports,XTestImports," +
		"GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Error"
	cmd := exec.Command("go", "list", "-e", "-json="+fields, "./...")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	packages, err := decode(out)
	if err != nil {
		_, _ = io.Copy(io.Discard, out)
		return nil, errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return packages, nil
}

// decode reads the concatenated objects that go list prints.
func decode(r io.Reader) ([]pkg, error) {
	var packages []pkg
	for d := json.NewDecoder(r); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Error != nil {
			return nil, fmt.Errorf("go list: %s: %s", p.ImportPath, p.Error.Err)
		}
		packages = append(packages, p)
	}
}
