package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// documents are those that name files of the tree.
var documents = []string{"README.md", "schemas/GLOSSARY.md"}

// namedFile is a file of the tree as a document names it.
var namedFile = regexp.MustCompile(`[a-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+\.(?:go|proto|sql|md|sh|yaml)\b`)

// A word that was ours alone, and what an operator or a reader would search for.
type word struct {
	pattern *regexp.Regexp
	instead string
}

// replaced are the words that do not come back. They are put together here so that this file does not find itself.
var replaced = []word{
	{regexp.MustCompile(`(?i)\bcr` + `ew\b`), "this is a worker pool"},
	{regexp.MustCompile(`operators?'s? do` + `or`), "this is the admin server"},
	{regexp.MustCompile(`(?i)\bpois` + `on(ed)?\b`), "this is unreadable, or in quarantine"},
	{regexp.MustCompile(`(?i)\bthe hu` + `b\b`), "this is the replica, or the fanout"},
}

// checkFiles finds the files that a document names and that are not there: a map that is wrong is worse than none.
func checkFiles(document, text string, exists func(path string) bool) []string {
	var findings []string
	named := namedFile.FindAllString(text, -1)
	slices.Sort(named)
	for _, file := range slices.Compact(named) {
		if !exists(file) {
			findings = append(findings, fmt.Sprintf("%s names %s, which is not there", document, file))
		}
	}
	return findings
}

// checkWords finds words for which the glossary has another.
func checkWords(file, text string) []string {
	var findings []string
	for i, line := range strings.Split(text, "\n") {
		for _, w := range replaced {
			if w.pattern.MatchString(line) {
				findings = append(findings, fmt.Sprintf("%s:%d: %s (schemas/GLOSSARY.md)", file, i+1, w.instead))
			}
		}
	}
	return findings
}
