package chdb

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStatement(t *testing.T) {
	for _, tc := range []struct {
		sql    string
		kind   statementKind
		format string
		before string // what stands before the splice
	}{
		{"SELECT 1", stmtSelect, "", "SELECT 1"},
		{" /* x */ select 1 ; -- end", stmtSelect, "", " /* x */ select 1"},
		{"SELECT 1 FORMAT Native", stmtSelect, "Native", "SELECT 1 "},
		{"SELECT 1 format CSV settings max_threads=1", stmtSelect, "CSV", "SELECT 1 "},
		{"SELECT format FROM t", stmtSelect, "", "SELECT format FROM t"},
		{"SELECT 1 AS format", stmtSelect, "", "SELECT 1 AS format"},
		{"SELECT a.format x", stmtSelect, "", "SELECT a.format x"},
		{"SELECT 'FORMAT CSV'", stmtSelect, "", "SELECT 'FORMAT CSV'"},
		{`SELECT 'a\' FORMAT CSV'`, stmtSelect, "", `SELECT 'a\' FORMAT CSV'`},
		{"SELECT (SELECT 1 FORMAT CSV)", stmtSelect, "", "SELECT (SELECT 1 FORMAT CSV)"},
		{"SELECT $$ ; FORMAT CSV$$", stmtSelect, "", "SELECT $$ ; FORMAT CSV$$"},
		{"WITH 1 AS x SELECT x", stmtSelect, "", "WITH 1 AS x SELECT x"},
		{"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", stmtOther, "",
			"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"},
		{"SHOW TABLES FORMAT JSON", stmtOther, "JSON", "SHOW TABLES "},
		{"KILL QUERY WHERE query_id = 'x'", stmtKill, "", "KILL QUERY WHERE query_id = 'x'"},
		{"INSERT INTO t VALUES (1, ';')", stmtInsertValues, "", "INSERT INTO t VALUES (1, ';')"},
		{"INSERT INTO t (format) SELECT 1", stmtInsert, "", "INSERT INTO t (format) SELECT 1"},
		{"INSERT INTO t FORMAT Native", stmtInsertData, "Native", "INSERT INTO t "},
		{"INSERT INTO values (a) FORMAT CSV 1;2;3", stmtInsertData, "CSV", "INSERT INTO values (a) "},
		{"insert into d.`t x` (a, b) settings x = 1 format JSONEachRow {}", stmtInsertData, "JSONEachRow",
			"insert into d.`t x` (a, b) "},
		{"INSERT INTO t", stmtInsertData, "", "INSERT INTO t"},
		{"INSERT INTO FUNCTION file('x', CSV) FORMAT CSV", stmtInsertData, "CSV",
			"INSERT INTO FUNCTION file('x', CSV) "},
	} {
		st, more, e := parseStatement([]byte(tc.sql), true)
		if e != nil || more {
			t.Errorf("%s: %v %v", tc.sql, e, more)
			continue
		}
		if st.kind != tc.kind || st.format != tc.format || tc.sql[:st.splice] != tc.before {
			t.Errorf("%s: got %s %q %q, want %s %q %q", tc.sql, kindNames[st.kind], st.format, tc.sql[:st.splice],
				kindNames[tc.kind], tc.format, tc.before)
		}
	}
	for sql, code := range map[string]int{
		"": codeSyntaxError, " -- nothing": codeSyntaxError, "SELECT 1; SELECT 2": codeSyntaxError,
		"quit":                                   codeSyntaxError,
		"INSERT INTO t VALUES (1); DROP TABLE t": codeSyntaxError, "SELECT 1 INTO OUTFILE 'x'": codeOutfileNotAllowed,
		"INSERT INTO t FROM INFILE 'x' FORMAT CSV": codeUnknownType, "INSERT INTO t FORMAT 'x'": codeSyntaxError,
	} {
		if _, _, e := parseStatement([]byte(sql), true); e == nil || e.code != code {
			t.Errorf("%q: got %v, want code %d", sql, e, code)
		}
	}
	if _, more, e := parseStatement([]byte("INSERT INTO t VALUES (1"), false); e != nil || !more {
		t.Errorf("half an INSERT: %v %v", more, e)
	}
}

func TestRewriteKill(t *testing.T) {
	got := rewriteKill([]byte("KILL QUERY WHERE query_id = 'query_id' SYNC"))
	want := "KILL QUERY WHERE " + clientQueryID + " = 'query_id' SYNC"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseException(t *testing.T) {
	got := parseException(
		"Code: 107. DB::Exception: Code: 60. DB::Exception: File x doesn't exist: in y. (FILE_DOESNT_EXIST) " +
			"(version 26.5.1.1). (FILE_DOESNT_EXIST)",
	)
	want := &exception{code: 60, text: "File x doesn't exist: in y. (FILE_DOESNT_EXIST). (FILE_DOESNT_EXIST)"}
	if d := cmp.Diff(got, want, cmp.AllowUnexported(exception{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{
		"SELECT 1 FORMAT CSV", "INSERT INTO t (a) SETTINGS x=1 FORMAT Native\x00\xff", "SELECT 'a\\", "$a$ $a", "((;",
		"INSERT",
		"INSERT INTO", "INSERT INTO t FORMAT", "FORMAT FORMAT", "WITH INSERT INTO", "`a``b`", "/* ", "KILL",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, complete bool) {
		st, more, e := parseStatement(text, complete)
		if e != nil || more {
			return
		}
		if st.splice < 0 || st.splice > st.end || st.end > len(text) {
			t.Errorf("splice %d, end %d of %d", st.splice, st.end, len(text))
		}
		if d := dataStart(text, st.end); d < st.end || d > len(text) {
			t.Errorf("data at %d, end %d of %d", d, st.end, len(text))
		}
		if st.kind == stmtKill {
			_ = rewriteKill(text)
		}
		if strings.Contains(string(text[st.splice:st.end]), "\x00") && st.kind == stmtSelect && st.format == "" {
			t.Errorf("something follows the splice of a SELECT without a format: %q", text[st.splice:st.end])
		}
	})
}
