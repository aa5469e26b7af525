package chdb

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func TestRestartAfterKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, childConfig{DataDir: dir})
	p.sql(t, "CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
	want := 0
	for round := range 3 {
		for i := range 20 {
			p.sql(t, fmt.Sprintf("INSERT INTO t SELECT number, 'r%d' FROM numbers(%d)", round, i+1))
			want += i + 1
		}
		sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[round]
		if err := p.stop(t, sig); (err == nil) != (sig != syscall.SIGKILL) {
			t.Errorf("%v: the process ended with %v", sig, err)
		}
		p = start(t, childConfig{DataDir: dir})
		if got := p.sql(t, "SELECT count() FROM t"); got != fmt.Sprint(want) {
			t.Errorf("round %d: got %s rows, want %d", round, got, want)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "spool"))
	if err != nil || len(entries) != 0 {
		t.Errorf("the spool holds %v, %v", entries, err)
	}
}

func TestDeduplication(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, childConfig{DataDir: dir})
	p.sql(t, `CREATE TABLE t (day Date, k UInt64, s String)
		ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(day) ORDER BY k
		SETTINGS non_replicated_deduplication_window = 1000`)
	// The view's target needs a window of its own: without one a repeated insert reaches the view.
	p.sql(t, `CREATE TABLE counts (n UInt64) ENGINE = MergeTree ORDER BY tuple()
		SETTINGS non_replicated_deduplication_window = 1000`)
	p.sql(t, "CREATE MATERIALIZED VIEW mv TO counts AS SELECT count() AS n FROM t")
	insert := func(token string, from, to int) {
		t.Helper()
		c := p.open(t, nil)
		ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(clickhouse.Settings{
			"insert_deduplication_token": token,
		}))
		b, err := c.PrepareBatch(ctx, "INSERT INTO t (day, k, s)")
		if err != nil {
			t.Fatal(err)
		}
		for k := from; k < to; k++ {
			if err := b.Append(fmt.Sprintf("2026-%02d-01", 1+k%2), uint64(k), "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
	}
	insert("a:0-3000", 0, 3000)
	insert("a:0-3000", 0, 3000)
	insert("a:3000-3010", 3000, 3010)
	if got := p.sql(t, "SELECT (SELECT count() FROM t), (SELECT sum(n) FROM counts)"); got != "3010\t3010" {
		t.Errorf("got %s", got)
	}
	_ = p.stop(t, syscall.SIGKILL)
	p = start(t, childConfig{DataDir: dir})
	insert("a:3000-3010", 3000, 3010)
	if got := p.sql(t, "SELECT count() FROM t"); got != "3010" {
		t.Errorf("after a restart: got %s", got)
	}
	insert("b:3000-3010", 3000, 3010)
	if got := p.sql(t, "SELECT (SELECT count() FROM t), (SELECT count() FROM t FINAL)"); got != "3020\t3010" {
		t.Errorf("a new token: got %s", got)
	}
}

func TestTextIndexAndMerges(t *testing.T) {
	p := start(t, childConfig{})
	p.sql(t, `CREATE TABLE t (k UInt64, body String, INDEX words body TYPE text(tokenizer = 'splitByNonAlpha'))
		ENGINE = MergeTree ORDER BY k SETTINGS index_granularity = 64`)
	p.sql(t, "INSERT INTO t SELECT number, concat('word', toString(number), ' common') FROM numbers(5000)")
	if got := p.sql(t, "SELECT k FROM t WHERE hasAllTokens(body, 'word4321 common')"); got != "4321" {
		t.Errorf("got %q", got)
	}
	const explain = "EXPLAIN indexes = 1 SELECT k FROM t WHERE hasAnyTokens(body, 'word4321')"
	if got := p.sql(t, explain); !strings.Contains(got, "words") {
		t.Errorf("the index is not used:\n%s", got)
	}
	for i := range 30 {
		p.sql(t, fmt.Sprintf("INSERT INTO t VALUES (%d, 'x')", 10_000+i))
	}
	const merged = "SELECT countIf(active) < 15 FROM system.parts WHERE table = 't' AND database = 'default'"
	until(t, "parts are merged", func() bool { return p.sql(t, merged) == "1" })
}

func TestGoKeepsItsSignals(t *testing.T) {
	p := start(t, childConfig{})
	for range 20 {
		p.sql(t, "SELECT 1")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var caught, ignored uint64
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "SigCgt: %x", &caught)
		_, _ = fmt.Sscanf(line, "SigIgn: %x", &ignored)
	}
	for _, s := range []syscall.Signal{
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGTERM, syscall.SIGINT,
	} {
		if caught>>(uint(s)-1)&1 == 0 {
			t.Errorf("no handler for %v any more", s)
		}
	}
	if ignored>>(uint(syscall.SIGPIPE)-1)&1 == 0 {
		t.Error("SIGPIPE is not ignored")
	}
}

func TestStopUnderLoad(t *testing.T) {
	p := start(t, childConfig{DrainTimeout: 1})
	c := p.open(t, nil)
	ended := make(chan error, 1)
	go func() { ended <- c.Exec(context.Background(), endless) }()
	until(t, "the query runs", func() bool { return p.runningEndless(t) == 1 })
	if err := p.stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("the process ended with %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the query that was stopped gave no error")
	}
}

func TestFaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, childConfig{DataDir: dir})
	lib := libraryPath(t)
	fake := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(fake, []byte("not a library"), 0o700); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	newer := filepath.Join(t.TempDir(), "newer")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := start(t, childConfig{DataDir: newer})
	if err := first.stop(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(newer, "engine-version"), []byte("99.1.1.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		c    childConfig
		want []string
	}{
		{"no library", childConfig{LibraryPath: "/nowhere/libchdb.so"}, []string{"/nowhere/libchdb.so", "--engines"}},
		{"another file", childConfig{LibraryPath: fake}, []string{fake, "--engines"}},
		{"port in use", childConfig{Listen: taken.Addr().String()}, []string{"in use", "--listen"}},
		{"directory held", childConfig{DataDir: dir}, []string{"in use by process", "--data"}},
		{"not a directory", childConfig{DataDir: file}, []string{file, "--data"}},
		{"newer data", childConfig{DataDir: newer}, []string{"99.1.1.1", "--data"}},
		{"open to the network", childConfig{Listen: "0.0.0.0:0"}, []string{"clear"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.c.LibraryPath == "" {
				tc.c.LibraryPath = lib
			}
			got, failure := tryStart(t, tc.c)
			if got != nil {
				t.Fatal("it started")
			}
			for _, w := range tc.want {
				if !strings.Contains(failure, w) {
					t.Errorf("got %q, want %q in it", failure, w)
				}
			}
		})
	}
	if got := p.sql(t, "SELECT 1"); got != "1" {
		t.Errorf("got %s", got)
	}
}
