package chdb

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// expressions are the settings by which data in the format Values may be expressions. They are on only for a statement
// whose text names nothing that the guard looks for: data in a body is not looked at.
var expressions = []string{
	"input_format_values_interpret_expressions", "input_format_values_deduce_templates_of_expressions",
}

// suspect matches every statement that may do what the guard refuses: the words are there, or can be made by an escape
// in a quoted name.
var suspect = regexp.MustCompile(
	`(?i)file|disk|engine|columnintable|catboost|attach|backup|restore|parallel|identifier|_expressions|profile`,
)

func suspicious(text []byte) bool {
	return suspect.Match(text) || bytes.IndexByte(text, '\\') >= 0 && bytes.ContainsAny(text, "`\"")
}

// refusedNames are functions that read files or call servers without any privilege. The name alone is refused: it may
// stand as an argument of a function that calls it.
var refusedNames = []string{"file", "hasColumnInTable", "catboostEvaluate"}

// engines are the table and database engines that keep what they hold in the data directory or in memory.
var engines = []string{
	"MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree",
	"VersionedCollapsingMergeTree", "CoalescingMergeTree", "GraphiteMergeTree", "Log", "TinyLog", "StripeLog", "Memory",
	"Null", "Set", "Join", "Buffer", "Merge", "View", "MaterializedView", "GenerateRandom", "Atomic", "Ordinary",
}

// guard refuses what no privilege of the engine keeps from files, commands and the network. It judges the statement as
// the engine has parsed and printed it, so that no comment, escape or blank hides anything.
func (q *query) guard(text []byte) *exception {
	if !suspicious(text) {
		return nil
	}
	canonical, err := q.s.core.canonical(string(text))
	if err != nil {
		return asException(err)
	}
	if why := refused([]byte(canonical)); why != "" {
		return exceptionf(codeAccessDenied, "The embedded engine does not let a statement reach files, commands or "+
			"the network: %s", why)
	}
	for _, p := range q.job.params {
		// A parameter may be the name of a function: {f:Identifier}.
		if strings.Contains(canonical, ":Identifier}") &&
			(strings.ContainsAny(p.value, "\\`\"") || slices.Contains(refusedNames, strings.TrimSpace(p.value))) {
			return exceptionf(codeAccessDenied, "The embedded engine does not take %q for a name", p.value)
		}
	}
	return nil
}

// refused says what in a canonical statement is not allowed, or nothing.
func refused(text []byte) string {
	l := &lexer{src: text}
	first := l.next()
	creates := is(text, first, "CREATE") || is(text, first, "REPLACE")
	for _, word := range []string{"ATTACH", "BACKUP", "RESTORE"} {
		if is(text, first, word) {
			return word
		}
	}
	before := first
	for t := first; t.kind != tokenEnd; {
		next := l.next()
		name := string(bytes.Trim(text[t.start:t.end], "`\""))
		named := t.kind == tokenWord || t.kind == tokenQuoted
		switch {
		case named && slices.Contains(refusedNames, name):
			return name
		case named && strings.EqualFold(name, "disk") && punct(text, next, '('):
			return "disk()"
		case named && (slices.Contains(expressions, name) || name == "profile") && punct(text, next, '='):
			return name
		case is(text, t, "OUTFILE") && is(text, before, "INTO"), is(text, t, "INFILE") && is(text, before, "FROM"):
			return name
		case is(text, t, "PARALLEL") && is(text, next, "WITH"):
			return "PARALLEL WITH"
		case creates && t.kind == tokenWord && name == "ENGINE": // the keyword is printed so, a name as it was written
			value := next
			if punct(text, value, '=') {
				ahead := *l
				value = ahead.next()
			}
			engine := string(bytes.Trim(text[value.start:value.end], "`\""))
			if (value.kind == tokenWord || value.kind == tokenQuoted) && !slices.Contains(engines, engine) {
				return "the engine " + engine
			}
		}
		before, t = t, next
	}
	return ""
}

// canonical is a statement as the engine prints it: keywords in capitals, one kind of blank, no comments, no escapes
// in names that need none. The data of an INSERT is not part of it.
func (c *core) canonical(sql string) (string, error) {
	cn, err := c.lib.open(c.args)
	if err != nil {
		return "", &exception{code: codeAborted, text: "no connection to the engine: " + err.Error()}
	}
	defer cn.close()
	r, err := cn.exec(
		"SELECT formatQuerySingleLine({statement:String}) FORMAT TSVRaw SETTINGS max_query_size = 134217728",
		"TSVRaw", []param{{"statement", paramEscapes.Replace(sql)}},
	)
	if err != nil {
		e := asException(err)
		e.text, _, _ = strings.Cut(e.text, ": In scope SELECT formatQuerySingleLine(")
		return "", e
	}
	defer r.free()
	return r.text(), nil
}

// paramEscapes is the form in which the engine takes the value of a parameter.
var paramEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)
