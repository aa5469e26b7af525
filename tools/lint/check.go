package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A pkg is what the checks need of go list's description of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Doc          string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Error        *struct{ Err string }
}

// path is the package's folder in the module.
func (p pkg) path() string { return local(p.ImportPath) }

// files lists the package's Go files, tests included.
func (p pkg) files() []string {
	return slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles)
}

// local strips the module from our own import paths and leaves others alone.
func local(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// within says whether path is folder or lies below it; everything lies below "".
func within(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

// checkImports finds the imports of p that a rule forbids.
func checkImports(p pkg) []string {
	var findings []string
	check := func(imports []string, test bool) {
		for _, imported := range imports {
			if reason := refuse(p.path(), imported, test); reason != "" {
				what := "imports"
				if test {
					what = "imports (in a test)"
				}
				findings = append(findings, fmt.Sprintf("%s %s %s: %s", p.path(), what, imported, reason))
			}
		}
	}
	check(p.Imports, false)
	tests := slices.Concat(p.TestImports, p.XTestImports)
	slices.Sort(tests)
	check(slices.Compact(tests), true)
	return findings
}

// refuse returns why the package in folder from may not import imported, or "".
func refuse(from, imported string, test bool) string {
	to := local(imported)
	for _, e := range forbidden {
		if test && e.production || !within(from, e.from) || !within(to, e.to) {
			continue
		}
		if !slices.ContainsFunc(e.except, func(folder string) bool { return within(from, folder) }) {
			return e.reason
		}
	}
	if !within(from, "schemas") || within(to, "schemas") {
		return ""
	}
	ours := within(imported, module)
	listed := func(folder string) bool { return within(imported, folder) }
	if !ours && (test || standard(imported) || slices.ContainsFunc(schemasMayImport, listed)) {
		return ""
	}
	return schemasReason
}

// standard says whether the import path is of the standard library: those have no
// dot in the first element.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// checkPackage judges a package's name and comment. A package that is generated
// as a whole is described in its .proto files.
func checkPackage(p pkg) []string {
	var findings []string
	if vagueNames[p.Name] {
		findings = append(findings,
			fmt.Sprintf("%s: package name %q says nothing: name it after what it is about", p.path(), p.Name))
	}
	generated := func(file string) bool { return strings.HasSuffix(file, ".pb.go") }
	written := slices.DeleteFunc(slices.Concat(p.GoFiles, p.CgoFiles), generated)
	if p.Doc == "" && len(written) > 0 {
		findings = append(findings, fmt.Sprintf("%s: package %s has no package comment", p.path(), p.Name))
	}
	return findings
}

// checkTop finds what does not belong at the top of the tree.
func checkTop(names []string) []string {
	var findings []string
	for _, name := range names {
		if !topLevel[name] && !strings.HasPrefix(name, ".") {
			findings = append(findings,
				fmt.Sprintf("%s: the top level holds the stages of the pipeline only: move it below one of them", name))
		}
	}
	return findings
}

var unfinishedWord = regexp.MustCompile(`\b(` + strings.Join(unfinished, "|") + `)\b`)

// bareNumber is a kind of event or a topic that is compared with its number.
var bareNumber = regexp.MustCompile(`\b(kind|topic) (=|<>|IN \() ?[0-9]`)

// asks is a table that is read, and the word before, which tells whether it is rather written.
var asks = regexp.MustCompile(`(\w*)\s*\b(?:FROM|JOIN) (?:views\.)?(\w+)`)

// checkQueries finds questions to a room's tables that are asked elsewhere, and numbers that should be names.
func checkQueries(file, text string) []string {
	var findings []string
	for i, line := range strings.Split(text, "\n") {
		if found := bareNumber.FindString(line); found != "" {
			findings = append(findings,
				fmt.Sprintf("%s:%d: %q: name it by the proto's field or by its topic", file, i+1, found))
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range asks.FindAllStringSubmatch(line, -1) {
			for _, r := range rooms {
				if m[1] != "DELETE" && slices.Contains(r.tables, m[2]) && !within(file, r.folder) && !r.excepts(file) {
					findings = append(findings,
						fmt.Sprintf("%s:%d: asks the table %s: %s", file, i+1, m[2], r.reason))
				}
			}
		}
	}
	return findings
}

func (r room) excepts(file string) bool {
	for folder := range r.except {
		if within(file, folder) {
			return true
		}
	}
	return false
}

// checkText finds words that mark unfinished work.
func checkText(file, text string) []string {
	var findings []string
	for i, line := range strings.Split(text, "\n") {
		if word := unfinishedWord.FindString(line); word != "" {
			findings = append(findings, fmt.Sprintf("%s:%d: %s: finish it or leave it out", file, i+1, word))
		}
	}
	return findings
}
