package chdb

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// There is no way in without one of the two passwords, wherever a client puts them; the next start has the same.
func TestPasswords(t *testing.T) {
	p := start(t, childConfig{})
	basic := func(user, password string) http.Header {
		return http.Header{
			"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))},
		}
	}
	for _, tc := range []struct {
		name   string
		args   url.Values
		header http.Header
		status int
	}{
		{"none", nil, nil, http.StatusForbidden},
		{"an empty one", nil, as(Writer, ""), http.StatusForbidden},
		{"a wrong one", nil, as(Writer, "x"), http.StatusForbidden},
		{"the other's", nil, as(Writer, p.who.Reader), http.StatusForbidden},
		{"the other's", nil, as(Reader, p.who.Writer), http.StatusForbidden},
		{"a stranger", nil, as("ann", p.who.Writer), http.StatusForbidden},
		{"headers", nil, as(Writer, p.who.Writer), http.StatusOK},
		{"no name", nil, as("", p.who.Writer), http.StatusOK},
		{"address", url.Values{"user": {Reader}, "password": {p.who.Reader}}, nil, http.StatusOK},
		{"basic", nil, basic(Reader, p.who.Reader), http.StatusOK},
	} {
		r := p.ask(t, http.MethodPost, tc.args, tc.header, []byte("SELECT 1"))
		if r.status != tc.status {
			t.Errorf("%s: got %d %s, want %d", tc.name, r.status, r.body, tc.status)
		}
	}
	if err := p.stop(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	again := start(t, childConfig{DataDir: p.dir})
	if again.who != p.who || len(p.who.Writer) < 32 || len(p.who.Reader) < 32 || p.who.Writer == p.who.Reader {
		t.Errorf("the passwords became others, or are too short: %d and %d bytes",
			len(again.who.Writer), len(again.who.Reader))
	}
	if got := fmt.Sprint(p.who); strings.Contains(got, p.who.Writer) {
		t.Errorf("printed: %s", got)
	}
}

// Data of before there were passwords is taken up, and all of it is its owner's alone.
func TestDataIsPrivate(t *testing.T) {
	p := start(t, childConfig{})
	p.sql(t, "CREATE TABLE t (k UInt8) ENGINE = MergeTree ORDER BY k")
	p.sql(t, "INSERT INTO t VALUES (1)")
	if err := p.stop(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"password", "reader-password"} {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p = start(t, childConfig{DataDir: p.dir})
	if got := p.sql(t, "SELECT sum(k) FROM t"); got != "1" {
		t.Errorf("got %s", got)
	}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a part that was merged away meanwhile
		}
		if info, err := d.Info(); err == nil && d.Type()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReader(t *testing.T) {
	p := start(t, childConfig{})
	p.sql(t, "CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
	p.sql(t, "INSERT INTO t SELECT number FROM numbers(10)")
	const denied, readonly, constrained = "497", "164", "452"
	for _, tc := range []struct {
		sql, code string
		args      url.Values
	}{
		{"SELECT sum(k) FROM t", "", nil},
		{"SELECT sum(k) FROM t SETTINGS max_threads = 1", "", nil},
		{"SELECT 1", "", url.Values{"max_execution_time": {"5"}, "max_block_size": {"11"}}},
		{"SHOW TABLES", "", nil},
		{"DESCRIBE TABLE t", "", nil},
		{"EXPLAIN SELECT 1", "", nil},
		{"INSERT INTO t VALUES (1)", readonly, nil},
		{"INSERT INTO t SELECT 1", readonly, nil},
		{"INSERT INTO t FORMAT TSV 1", readonly, nil},
		{"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", readonly, nil},
		{"CREATE TABLE u (k UInt8) ENGINE = MergeTree ORDER BY k", readonly, nil},
		{"DROP TABLE t", readonly, nil},
		{"TRUNCATE TABLE t", readonly, nil},
		{"ALTER TABLE t DELETE WHERE 1", readonly, nil},
		{"OPTIMIZE TABLE t", readonly, nil},
		{"KILL QUERY WHERE 1", readonly, nil},
		{"\u00a0KILL QUERY WHERE 1", readonly, nil},
		{"/* /* */ SELECT */ KILL QUERY WHERE 1", readonly, nil},
		{"SELECT 1 PARALLEL WITH KILL QUERY WHERE 1", denied, nil},
		{"SYSTEM STOP MERGES", readonly, nil},
		{"SET readonly = 0", readonly, nil},
		{"SELECT 1 SETTINGS readonly = 0", readonly, nil},
		{"SELECT 1", readonly, url.Values{"readonly": {"0"}}},
		{"SELECT 1", "48", url.Values{"profile": {"default"}}},
		{"SELECT 1 SETTINGS profile = 'default'", denied, nil},
		{"SELECT 1 SETTINGS `pro\\x66ile` = 'default'", denied, nil},
		{"SELECT 1", constrained, url.Values{"max_execution_time": {"600"}}},
		{"SELECT 1", constrained, url.Values{"max_execution_time": {"0"}}},
		{"SELECT 1 SETTINGS max_execution_time = 0", constrained, nil},
		{"SELECT 1 SETTINGS max_result_rows = 0", constrained, nil},
		{"SELECT 1 SETTINGS max_memory_usage = 0", constrained, nil},
		{"SELECT 1", constrained, url.Values{"result_overflow_mode": {"break"}}},
		{"SELECT number FROM numbers(1000001)", "396", url.Values{"wait_end_of_query": {"1"}}},
		{"SELECT max(number) FROM numbers(100000000000) SETTINGS max_execution_time = 1", "158", nil},
		{"SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time = 1, max_block_size = 1", "159", nil},
		// what a statement hides behind another
		{"SELECT 1 /* /* */ ' */; DROP TABLE t --'", "62", nil},
		{"SELECT 1 // '\n; DROP TABLE t --'", "62", nil},
	} {
		r := p.read(t, tc.args, tc.sql)
		if r.code() != tc.code {
			t.Errorf("%s %v: got %d %s, want code %q", tc.sql, tc.args, r.status, r.body, tc.code)
		}
	}
	// His limits are not the writer's.
	if got := p.sql(t, "SELECT count() FROM numbers(1000001) AS n, t"); got != "10000010" {
		t.Errorf("got %s", got)
	}
	c := p.open(t, func(o *clickhouse.Options) {
		o.Auth = clickhouse.Auth{Username: Reader, Password: p.who.Reader, Database: "default"}
	})
	var n uint64
	if err := c.QueryRow(t.Context(), "SELECT sum(k) FROM t").Scan(&n); err != nil || n != 45 {
		t.Errorf("got %d, %v", n, err)
	}
}
