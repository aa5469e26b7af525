package verify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
)

// Difference is a row that is not as the log gives it.
type Difference struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Want  string `json:"want,omitempty"` // as the log gives it; empty: there should be no such row
	Got   string `json:"got,omitempty"`  // as the view has it; empty: the row is missing
	// Columns are those that differ, of a row that is there.
	Columns []Column `json:"columns,omitempty"`
}

// Column is one that differs.
type Column struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

// String says what is wrong in one line.
func (d Difference) String() string {
	switch {
	case d.Got == "":
		return fmt.Sprintf("%s %s: missing, want %s", d.Table, d.Key, d.Want)
	case d.Want == "":
		return fmt.Sprintf("%s %s: should not be there: %s", d.Table, d.Key, d.Got)
	}
	return fmt.Sprintf("%s %s: is %s, want %s", d.Table, d.Key, d.Got, d.Want)
}

// columns names the columns of tables, in the order in which put gets them.
type columns map[string][]string

// differ returns what is wrong with a row; an empty text is no row.
func (c columns) differ(table, key, want, got string) Difference {
	d := Difference{Table: table, Key: key, Want: line(want), Got: line(got)}
	w, g := strings.Split(want, between), strings.Split(got, between)
	for i, name := range c[table] {
		if want != "" && got != "" && i < len(w) && i < len(g) && w[i] != g[i] {
			d.Columns = append(d.Columns, Column{Name: name, Want: w[i], Got: g[i]})
		}
	}
	return d
}

// between stands between the columns of a row, and in none.
const between = "\x1f"

func line(row string) string { return strings.ReplaceAll(row, between, " ") }

// tables holds rows by table and key, each as its columns in text.
type tables map[string]map[string]string

func (t tables) put(table, key string, fields ...any) {
	if t[table] == nil {
		t[table] = map[string]string{}
	}
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteString(between)
		}
		switch v := f.(type) {
		case string:
			fmt.Fprintf(&b, "%q", v)
		default:
			fmt.Fprintf(&b, "%v", v)
		}
	}
	t[table][key] = b.String()
}

func keyOf(parts ...any) string {
	s := make([]string, len(parts))
	for i, p := range parts {
		s[i] = fmt.Sprint(p)
	}
	return strings.Join(s, "/")
}

// diff compares two sets of rows. Tables in mayHaveMore may have rows that the log does not give.
func (c columns) diff(want, got tables, mayHaveMore ...string) []Difference {
	var out []Difference
	names := map[string]bool{}
	for n := range want {
		names[n] = true
	}
	for n := range got {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		var found []Difference
		for k, w := range want[n] {
			if g := got[n][k]; g != w {
				found = append(found, c.differ(n, k, w, g))
			}
		}
		for k, g := range got[n] {
			if _, ok := want[n][k]; !ok && !slices.Contains(mayHaveMore, n) {
				found = append(found, c.differ(n, k, "", g))
			}
		}
		slices.SortFunc(found, func(a, b Difference) int { return cmp.Compare(a.Key, b.Key) })
		out = append(out, found...)
	}
	return out
}

func flatten(spans []thread.Span) []int64 {
	out := []int64{}
	for _, s := range spans {
		out = append(out, int64(s.From), int64(s.To))
	}
	return out
}

func zeroID(s string) string {
	if s == "" {
		return id.MessageID{}.String()
	}
	return s
}
