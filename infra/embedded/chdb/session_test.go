package chdb

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// code is the exception's code, or nothing.
func (r response) code() string { return r.header.Get("X-ClickHouse-Exception-Code") }

func TestSessions(t *testing.T) {
	p := start(t, childConfig{})
	in := func(id string, args ...string) url.Values {
		v := url.Values{"session_id": {id}}
		for i := 0; i < len(args); i += 2 {
			v.Set(args[i], args[i+1])
		}
		return v
	}
	ask := func(t *testing.T, args url.Values, sql, want string) {
		t.Helper()
		r := p.do(t, http.MethodPost, args, nil, []byte(sql))
		if got := strings.TrimRight(r.body, "\n"); r.status != http.StatusOK || got != want {
			t.Errorf("%s: got %d %q, want %q", sql, r.status, got, want)
		}
	}
	p.sql(t, "CREATE DATABASE d")
	t.Run("what a session keeps", func(t *testing.T) {
		ask(t, in("a"), "CREATE TEMPORARY TABLE mine (k UInt8)", "")
		ask(t, in("a", "query", "INSERT INTO mine FORMAT CSV"), "1\n2\n", "")
		ask(t, in("a"), "SET max_block_size = 17", "")
		ask(t, in("a"), "USE d", "")
		ask(t, in("a"), "SELECT sum(k), getSetting('max_block_size'), currentDatabase() FROM mine", "3\t17\td")
		if r := p.do(t, http.MethodPost, in("b"), nil, []byte("SELECT * FROM mine")); r.code() != "60" {
			t.Errorf("another session sees the table: %d %s", r.status, r.body)
		}
		ask(t, nil, "SELECT getSetting('max_block_size') = 17, currentDatabase()", "0\tdefault")
	})
	t.Run("what belongs to one request", func(t *testing.T) {
		ask(t, in("c"), "SET max_block_size = 17", "")
		now := "SELECT getSetting('max_block_size'), getSetting('max_rows_to_read'), currentDatabase()"
		ask(t, in("c", "max_block_size", "19", "max_rows_to_read", "1000", "database", "d"), now, "19\t1000\td")
		ask(t, in("c"), now, "17\t0\tdefault")
		if r := p.do(t, http.MethodPost, in("c", "max_block_size", "19"), nil, []byte("SELECT nonsense")); r.code() != "47" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		ask(t, in("c"), now, "17\t0\tdefault")
	})
	t.Run("GET only reads", func(t *testing.T) {
		ask(t, in("g"), "CREATE TEMPORARY TABLE mine (k UInt8)", "")
		get := func(sql string) response { return p.do(t, http.MethodGet, in("g", "query", sql), nil, nil) }
		if r := get("SELECT count() FROM mine"); r.body != "0\n" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		if r := get("DESCRIBE mine"); r.status != http.StatusOK {
			t.Errorf("got %d %s", r.status, r.body)
		}
		if r := get("DROP TABLE mine"); r.code() != "164" {
			t.Errorf("got %d %s", r.status, r.body)
		}
		ask(t, in("g"), "INSERT INTO mine VALUES (1)", "")
	})
	t.Run("one request at a time", func(t *testing.T) {
		ended := make(chan response, 1)
		go func() {
			ended <- p.do(t, http.MethodPost, in("e", "query_id", "long", "session_timeout", "3600"), nil, []byte(endless))
		}()
		until(t, "the query runs", func() bool { return p.runningEndless(t) == 1 })
		if r := p.do(t, http.MethodPost, in("e"), nil, []byte("SELECT 1")); r.code() != "373" {
			t.Errorf("got %d %s, want code 373", r.status, r.body)
		}
		p.sql(t, "KILL QUERY WHERE query_id = 'long' SYNC")
		if r := <-ended; r.code() != "394" {
			t.Errorf("got %d %s, want code 394", r.status, r.body)
		}
		ask(t, in("e"), "SELECT 1", "1")
	})
	t.Run("its end", func(t *testing.T) {
		check := in("f", "session_check", "1")
		if r := p.do(t, http.MethodPost, check, nil, []byte("SELECT 1")); r.code() != "372" {
			t.Errorf("before it begins: got %d %s, want code 372", r.status, r.body)
		}
		ask(t, in("f"), "SELECT 1", "1")
		ask(t, check, "SELECT 1", "1")
		ask(t, in("f", "close_session", "1"), "SELECT 1", "1")
		if r := p.do(t, http.MethodPost, check, nil, []byte("SELECT 1")); r.code() != "372" {
			t.Errorf("after it was closed: got %d %s, want code 372", r.status, r.body)
		}
		ask(t, in("h"), "CREATE TEMPORARY TABLE mine (k UInt8)", "")
		ask(t, in("h", "session_timeout", "0"), "SELECT 1", "1")
		until(t, "the session ends by itself", func() bool {
			return p.do(
				t, http.MethodPost, in("h", "session_check", "1", "session_timeout", "0"), nil, []byte("SELECT 1"),
			).code() == "372"
		})
	})
}

func TestWhatIsNotServedIsRefused(t *testing.T) {
	p := start(t, childConfig{})
	for _, tc := range []struct {
		name   string
		args   url.Values
		header http.Header
		code   string
	}{
		{"role", url.Values{"role": {"analyst"}}, nil, "48"},
		{"quota", url.Values{"quota_key": {"x"}}, nil, "48"},
		{"stack trace", url.Values{"stacktrace": {"1"}}, nil, "48"},
		{"no stack trace", url.Values{"stacktrace": {"0"}}, nil, ""},
		{"response headers", url.Values{"http_response_headers": {"{'a':'b'}"}}, nil, "48"},
		{"exceptions as JSON", url.Values{"http_write_exception_in_output_format": {"1"}}, nil, "48"},
		{"replace", url.Values{"replace_running_query": {"1"}}, nil, "48"},
		{"external tables", nil, http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, "48"},
		{"unknown setting", url.Values{"no_such_setting": {"1"}}, nil, "115"},
		{"unknown encoding", nil, http.Header{"Content-Encoding": {"compress"}}, "89"},
		{"a session's timeout without one", url.Values{"session_timeout": {"1"}}, nil, "36"},
		{"a session's timeout", url.Values{"session_id": {"x"}, "session_timeout": {"999999"}}, nil, "374"},
		{"readonly in a session", url.Values{"session_id": {"x"}, "readonly": {"1"}}, nil, "48"},
		{"no certificate", nil, http.Header{"X-Clickhouse-Ssl-Certificate-Auth": {"off"}}, ""},
		{"bearer", nil, http.Header{"Authorization": {"Bearer x"}}, "516"},
		{"certificate", nil, http.Header{"X-Clickhouse-Ssl-Certificate-Auth": {"on"}}, "516"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := p.do(t, http.MethodPost, tc.args, tc.header, []byte("SELECT 1"))
			if r.code() != tc.code {
				t.Errorf("got %d %s, want code %q", r.status, r.body, tc.code)
			}
			if tc.code != "" && (r.status < 400 || !strings.HasPrefix(r.body, "Code: "+tc.code+". DB::Exception: ")) {
				t.Errorf("got %d %s", r.status, r.body)
			}
		})
	}
}

// TestInsertsHaveTheirOwnPlaces fills every place that SELECTs have, and every seat in which they wait.
func TestInsertsHaveTheirOwnPlaces(t *testing.T) {
	p := start(t, childConfig{MaxConcurrent: 2, MaxQueued: 1, MaxPreferred: 1})
	p.sql(t, "CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
	ended := make(chan response, 4)
	for range 4 { // two run, one waits, one is refused
		go func() { ended <- p.do(t, http.MethodPost, nil, nil, []byte(endless)) }()
	}
	count := func() response {
		return p.do(
			t,
			http.MethodPost,
			url.Values{"priority": {"1"}},
			nil,
			[]byte(
				"SELECT count() FROM system.processes WHERE query LIKE '%1000000000000%' AND query NOT LIKE '%system.processes%'",
			),
		)
	}
	if r := <-ended; r.code() != "202" {
		t.Fatalf("got %d %s, want code 202", r.status, r.body)
	}
	until(t, "every place of a SELECT is taken", func() bool { return count().body == "2\n" })
	for _, tc := range []struct {
		name, query, body string
	}{
		{"data in the body", "INSERT INTO t FORMAT CSV", "1\n2\n"},
		{"values in the address", "INSERT INTO t VALUES (3)", ""},
	} {
		if r := p.do(t, http.MethodPost, url.Values{"query": {tc.query}}, nil, []byte(tc.body)); r.status != http.StatusOK {
			t.Errorf("%s: got %d %s", tc.name, r.status, r.body)
		}
	}
	r := p.do(t, http.MethodPost, url.Values{"priority": {"1"}}, nil, []byte("SELECT sum(k) FROM t"))
	if r.body != "6\n" {
		t.Errorf("a SELECT with priority: got %d %s", r.status, r.body)
	}
	r = p.do(t, http.MethodPost, url.Values{"query": {"INSERT INTO t SELECT 4"}}, nil, nil)
	if r.code() != "202" {
		t.Errorf("an INSERT that is a SELECT: got %d %s, want code 202", r.status, r.body)
	}
	until(t, "the long queries are killed", func() bool {
		p.sql(t, "KILL QUERY WHERE query LIKE 'SELECT max(%' SYNC")
		return len(ended) == 3
	})
}
