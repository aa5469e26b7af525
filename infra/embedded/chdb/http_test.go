package chdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func TestFormats(t *testing.T) {
	const (
		tsv    = "text/tab-separated-values; charset=UTF-8"
		csv    = "text/csv; charset=UTF-8; header="
		ndjson = "application/x-ndjson; charset=UTF-8"
	)
	p := start(t, childConfig{})
	for _, tc := range []struct {
		name   string
		args   url.Values
		header http.Header
		body   string
		want   string
		typ    string
	}{
		{"default", nil, nil, "SELECT 1, 'a'", "1\ta\n", tsv},
		{"clause", nil, nil, "SELECT 1 AS x FORMAT JSONEachRow", "{\"x\":1}\n", ndjson},
		{"clause and settings", nil, nil, "SELECT 1 AS x FORMAT JSONEachRow SETTINGS max_threads = 1;",
			"{\"x\":1}\n", ndjson},
		{"settings and clause", nil, nil, "SELECT 1 AS x SETTINGS max_threads = 1 FORMAT CSV -- done",
			"1\n", csv + "absent"},
		{"parameter", url.Values{"default_format": {"CSVWithNames"}}, nil, "SELECT 1 AS x",
			"\"x\"\n1\n", csv + "present"},
		{"header", nil, http.Header{"X-Clickhouse-Format": {"TSVWithNames"}}, "SELECT 1 AS x", "x\n1\n", tsv},
		{"show", nil, nil, "SHOW DATABASES LIKE 'def%' FORMAT CSV", "\"default\"\n", csv + "absent"},
		{"exists", nil, nil, "EXISTS TABLE nothing", "0\n", tsv},
		{"with", nil, nil, "WITH x AS (SELECT 1 AS a) SELECT a FROM x", "1\n", tsv},
		{"parenthesis", nil, nil, "(SELECT 1)", "1\n", tsv},
		{"totals", nil, nil, "SELECT number % 2 AS k, count() FROM numbers(4) GROUP BY k WITH TOTALS ORDER BY k",
			"0\t2\n1\t2\n\n0\t4\n", tsv},
		{"no rows", nil, nil, "SELECT 1 WHERE 0", "", tsv},
		{"in the address", url.Values{"query": {"SELECT {n:UInt8} + 1"}, "param_n": {"41"}}, nil, "", "42\n", tsv},
		{"split over both", url.Values{"query": {"SELECT"}}, nil, "7", "7\n", tsv},
		{"database", url.Values{"database": {"system"}}, nil, "SELECT currentDatabase()", "system\n", tsv},
		{"row binary", nil, nil, "SELECT toUInt16(258) FORMAT RowBinary", "\x02\x01", "application/octet-stream"},
		{"a column named format", nil, nil, "SELECT 1 AS format", "1\n", tsv},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := p.do(t, http.MethodPost, tc.args, tc.header, []byte(tc.body))
			if r.status != http.StatusOK || r.body != tc.want || r.header.Get("Content-Type") != tc.typ {
				t.Errorf("got %d %q %q, want %q %q", r.status, r.body, r.header.Get("Content-Type"), tc.want, tc.typ)
			}
			if r.header.Get("X-ClickHouse-Query-Id") == "" || r.header.Get("X-ClickHouse-Summary") == "" {
				t.Errorf("headers are missing: %v", r.header)
			}
		})
	}
	t.Run("large JSON is one document", func(t *testing.T) {
		r := p.do(t, http.MethodPost, nil, nil, []byte("SELECT number FROM numbers(200000) FORMAT JSONCompact"))
		var doc struct {
			Data [][]any
			Rows int
		}
		if err := json.Unmarshal([]byte(r.body), &doc); err != nil || doc.Rows != 200_000 || len(doc.Data) != 200_000 {
			t.Errorf("%d rows, %d announced: %v", len(doc.Data), doc.Rows, err)
		}
	})
	t.Run("gzip both ways", func(t *testing.T) {
		var body bytes.Buffer
		z := gzip.NewWriter(&body)
		_, _ = io.WriteString(z, "SELECT number FROM numbers(5000)")
		_ = z.Close()
		r := p.do(
			t, http.MethodPost, nil, http.Header{"Content-Encoding": {"gzip"}, "Accept-Encoding": {"gzip"}},
			body.Bytes(),
		)
		if r.status != http.StatusOK || r.header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%d %v", r.status, r.header)
		}
		d, err := gzip.NewReader(strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(d)
		if err != nil || strings.Count(string(text), "\n") != 5000 {
			t.Errorf("%d lines, %v", strings.Count(string(text), "\n"), err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for sql, want := range map[string]string{
			"SELECT * FROM nope": "404 60", "SELEKT": "400 62", "": "400 62", "exit": "400 62",
		} {
			r := p.do(t, http.MethodPost, nil, nil, []byte(sql))
			got := fmt.Sprint(r.status, " ", r.header.Get("X-ClickHouse-Exception-Code"))
			if got != want ||
				!strings.HasPrefix(r.body, "Code: "+r.header.Get("X-ClickHouse-Exception-Code")+". DB::Exception: ") {
				t.Errorf("%q: got %s %q, want %s", sql, got, r.body, want)
			}
		}
	})
	t.Run("ping", func(t *testing.T) {
		res, err := http.Get("http://" + p.addr + "/ping")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if string(body) != "Ok.\n" {
			t.Errorf("got %q", body)
		}
	})
	t.Run("a GET only reads", func(t *testing.T) {
		r := p.do(t, http.MethodGet, url.Values{"query": {"CREATE TABLE x (k UInt8) ENGINE = Memory"}}, nil, nil)
		if got := r.header.Get("X-ClickHouse-Exception-Code"); got != "164" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		for value, want := range map[string]string{
			"0": "164", "00": "164", "": "164", "false": "164", "1": "", "2": "",
		} {
			r := p.do(t, http.MethodGet, url.Values{"query": {"SELECT 1"}, "readonly": {value}}, nil, nil)
			if got := r.header.Get("X-ClickHouse-Exception-Code"); got != want {
				t.Errorf("readonly=%s: got %d %s", value, r.status, r.body)
			}
		}
	})
}

func TestInsertBodies(t *testing.T) {
	p := start(t, childConfig{MaxBody: 32 << 20})
	p.sql(t, "CREATE DATABASE d")
	p.sql(t, "CREATE TABLE d.t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "{\"k\":%d,\"s\":\"line %d\"}\n", i, i)
		}
		return b.String()
	}
	for _, tc := range []struct {
		name string
		args url.Values
		body string
		want string
	}{
		{"JSONEachRow, query in the address", url.Values{"query": {"INSERT INTO d.t FORMAT JSONEachRow"}},
			lines(1000), "1000\t499500"},
		{"JSONEachRow, all in the body", nil, "INSERT INTO d.t FORMAT JSONEachRow\n" + lines(1000), "1000\t499500"},
		{"more than the head", nil, "INSERT INTO d.t FORMAT JSONEachRow " + lines(100_000), "100000\t4999950000"},
		{"a semicolon after the format", url.Values{"query": {"INSERT INTO d.t (k, s) FORMAT CSV;\n"}},
			"1,a\n2,\"b;c\"\n", "2\t3"},
		{"values", nil, "INSERT INTO d.t VALUES (1, 'a;b'), (2, 'it''s')", "2\t3"},
		{"values in the body", url.Values{"query": {"INSERT INTO d.t VALUES"}}, "(1, 'a'), (2 + 5, 'b')", "2\t8"},
		{"no format at all", url.Values{"query": {"INSERT INTO d.t"}}, "(1, 'a'), (2, 'b')", "2\t3"},
		{"settings", nil, "INSERT INTO d.t (k, s) SETTINGS max_insert_threads = 1 FORMAT TSV\n5\tx\n6\ty\n", "2\t11"},
		{"database", url.Values{"database": {"d"}}, "INSERT INTO t FORMAT TSV 5\tx\n", "1\t5"},
		{"row binary", url.Values{"query": {"INSERT INTO d.t FORMAT RowBinary"}},
			"\x0a\x00\x00\x00\x00\x00\x00\x00\x02\x00\n\x00\x00\x00\x00\x00\x00\x01\x00\x00", "2\t281474976710666"},
		{"select", nil, "INSERT INTO d.t SELECT number, 'x' FROM numbers(4)", "4\t6"},
		{"parameters", url.Values{"param_k": {"9"}}, "INSERT INTO d.t VALUES ({k:UInt64}, 'x')", "1\t9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.sql(t, "TRUNCATE TABLE d.t")
			r := p.do(t, http.MethodPost, tc.args, nil, []byte(tc.body))
			if r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got := p.sql(t, "SELECT count(), sum(k) FROM d.t"); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			var sum struct {
				Written string `json:"written_rows"`
			}
			want, _, _ := strings.Cut(tc.want, "\t")
			if err := json.Unmarshal([]byte(r.header.Get("X-ClickHouse-Summary")), &sum); err != nil ||
				sum.Written != want {
				t.Errorf("summary %s: %v", r.header.Get("X-ClickHouse-Summary"), err)
			}
		})
	}
	t.Run("bad data inserts nothing", func(t *testing.T) {
		p.sql(t, "TRUNCATE TABLE d.t")
		r := p.do(t, http.MethodPost, nil, nil, []byte("INSERT INTO d.t FORMAT JSONEachRow {\"k\":1}{\"k\":\"x\"}"))
		if r.status == http.StatusOK || r.header.Get("X-ClickHouse-Exception-Code") == "" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		if got := p.sql(t, "SELECT count() FROM d.t"); got != "0" {
			t.Errorf("%s rows", got)
		}
	})
	t.Run("a body that breaks off inserts nothing", func(t *testing.T) {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		body := lines(50_000)
		const request = "POST /?query=%s HTTP/1.1\r\nHost: localhost\r\nX-ClickHouse-Key: %s\r\n" +
			"Content-Length: %d\r\n\r\n%s"
		_, _ = fmt.Fprintf(c, request,
			url.QueryEscape("INSERT INTO d.t FORMAT JSONEachRow"), p.who.Writer, len(body)+1, body)
		_ = c.(*net.TCPConn).CloseWrite()
		reply, _ := io.ReadAll(c)
		_ = c.Close()
		if bytes.Contains(reply, []byte("200 OK")) {
			t.Errorf("got %.200s", reply)
		}
		if got := p.sql(t, "SELECT count() FROM d.t"); got != "0" {
			t.Errorf("%s rows", got)
		}
	})
	t.Run("too large", func(t *testing.T) {
		r := p.do(t, http.MethodPost, url.Values{"query": {"INSERT INTO d.t FORMAT TSV"}}, nil, make([]byte, 33<<20))
		if r.status != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d %s", r.status, r.body)
		}
	})
}

func TestParallelAndLimits(t *testing.T) {
	p := start(t, childConfig{MaxConcurrent: 4, MaxQueued: 4})
	p.sql(t, "CREATE TABLE t (w UInt8, k UInt64) ENGINE = MergeTree ORDER BY (w, k)")
	t.Run("side by side", func(t *testing.T) {
		c := p.open(t, nil)
		var wg sync.WaitGroup
		errs := make(chan error, 100)
		for w := range 4 {
			wg.Go(func() {
				for round := range 10 {
					b, err := c.PrepareBatch(context.Background(), "INSERT INTO t (w, k)")
					if err != nil {
						errs <- err
						return
					}
					for k := range 500 {
						if err := b.Append(uint8(w), uint64(round*500+k)); err != nil {
							errs <- err
						}
					}
					if err := b.Send(); err != nil {
						errs <- err
					}
					var n uint64
					err = c.QueryRow(context.Background(), "SELECT count() FROM t WHERE w = ?", w).Scan(&n)
					if err != nil {
						errs <- err
					} else if n != uint64(round+1)*500 {
						errs <- fmt.Errorf("writer %d sees %d rows after %d inserts", w, n, round+1)
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		if got := p.sql(t, "SELECT count(), uniqExact(w, k) FROM t"); got != "20000\t20000" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("one too many", func(t *testing.T) {
		var wg sync.WaitGroup
		codes := make(chan string, 12)
		for range 12 {
			wg.Go(func() {
				r := p.do(t, http.MethodPost, url.Values{"max_execution_time": {"2"}}, nil, []byte(endless))
				codes <- r.header.Get("X-ClickHouse-Exception-Code")
			})
		}
		wg.Wait()
		close(codes)
		got := map[string]int{}
		for c := range codes {
			got[c]++
		}
		if got["202"] != 4 || got["159"] != 8 {
			t.Errorf("got codes %v, want 4 times 202 and 8 times 159", got)
		}
	})
}

// endless runs for hours if nobody stops it; countEndless says how often it runs.
const (
	endless      = "SELECT max(sipHash64(number)) FROM numbers(1000000000000)"
	countEndless = "SELECT count() FROM system.processes " +
		"WHERE query LIKE '%1000000000000%' AND query NOT LIKE '%system.processes%'"
)

func (p *process) runningEndless(tb testing.TB) int {
	tb.Helper()
	n, err := strconv.Atoi(p.sql(tb, countEndless))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestCancellation(t *testing.T) {
	p := start(t, childConfig{})
	c := p.open(t, nil)
	isCode := func(err error, code int32) bool {
		var e *clickhouse.Exception
		return errors.As(err, &e) && e.Code == code
	}
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Exec(ctx, endless) }()
		until(t, "the query runs", func() bool { return p.runningEndless(t) == 1 })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		until(t, "the query ends", func() bool { return p.runningEndless(t) == 0 })
	})
	t.Run("reader leaves", func(t *testing.T) {
		req, err := http.NewRequest(
			http.MethodPost, "http://"+p.addr, strings.NewReader("SELECT number FROM numbers(1000000000000)"),
		)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = as(Writer, p.who.Writer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, res.Body, 4<<20); err != nil {
			t.Fatal(err)
		}
		if n := p.runningEndless(t); n != 1 {
			t.Errorf("%d queries run", n)
		}
		_ = res.Body.Close()
		until(t, "the query ends", func() bool { return p.runningEndless(t) == 0 })
	})
	t.Run("time limit", func(t *testing.T) {
		ctx := clickhouse.Context(
			context.Background(), clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": 1}),
		)
		if err := c.Exec(ctx, endless); !isCode(err, 159) {
			t.Errorf("got %v, want code 159", err)
		}
	})
	t.Run("kill", func(t *testing.T) {
		ctx := clickhouse.Context(context.Background(), clickhouse.WithQueryID("the-one"))
		ended := make(chan error, 1)
		go func() { ended <- c.Exec(ctx, endless) }()
		until(t, "the query runs", func() bool { return p.runningEndless(t) == 1 })
		if err := c.Exec(ctx, "SELECT 1"); !isCode(err, 216) {
			t.Errorf("the same id again: got %v, want code 216", err)
		}
		p.sql(t, "KILL QUERY WHERE query_id = 'another'")
		if n := p.runningEndless(t); n != 1 {
			t.Errorf("%d queries run", n)
		}
		p.sql(t, "KILL QUERY WHERE query_id = 'the-one' SYNC")
		if err := <-ended; !isCode(err, 394) {
			t.Errorf("got %v, want code 394", err)
		}
	})
	t.Run("a row at a time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		rows, err := c.Query(ctx, "SELECT number FROM numbers(1000000000000)")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			if !rows.Next() {
				t.Fatalf("row %d: %v", i, rows.Err())
			}
		}
		cancel()
		_ = rows.Close()
		until(t, "the query ends", func() bool { return p.runningEndless(t) == 0 })
	})
}

func TestSlowReader(t *testing.T) {
	p := start(t, childConfig{SendTimeout: 300 * time.Millisecond})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "GET /?query=%s HTTP/1.1\r\nHost: localhost\r\nX-ClickHouse-Key: %s\r\n\r\n",
		url.QueryEscape("SELECT number FROM numbers(1000000000000)"), p.who.Writer)
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	until(t, "the query of a client that does not read ends", func() bool { return p.runningEndless(t) == 0 })
}

func TestDatabaseSQL(t *testing.T) {
	p := start(t, childConfig{})
	db := clickhouse.OpenDB(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{p.addr},
		Auth: clickhouse.Auth{Username: Writer, Password: p.who.Writer},
	})
	defer func() { _ = db.Close() }()
	for _, stmt := range []string{
		"CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k",
		"INSERT INTO t (k, s) VALUES (1, 'it''s'), (2, 'b')",
		"ALTER TABLE t ADD COLUMN extra UInt8 DEFAULT 7",
		"ALTER TABLE t UPDATE s = 'c' WHERE k = 2 SETTINGS mutations_sync = 1",
	} {
		if _, err := db.Exec(stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	if _, err := db.Exec("INSERT INTO t (k, s) VALUES (?, ?)", 3, "it's \\ here"); err != nil {
		t.Fatal(err)
	}
	var got string
	err := db.QueryRow(`
		SELECT arrayStringConcat(groupArray(concat(s, toString(extra))), '|')
		FROM (SELECT * FROM t WHERE k < ? ORDER BY k)`, 9).Scan(&got)
	if err != nil || got != "it's7|c7|it's \\ here7" {
		t.Errorf("got %q, %v", got, err)
	}
}
