package chdb

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// code is the exception's code, or nothing.
func (r response) code() string { return r.header.Get("X-ClickHouse-Exception-Code") }

// clickhouse-connect names a session in every request: what does not need it goes on, what does is refused.
func TestSessionsAreNotKept(t *testing.T) {
	p := start(t, childConfig{})
	args := func(more ...string) url.Values {
		v := url.Values{"session_id": {"a"}}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v
	}
	for _, tc := range []struct {
		sql, body string
		args      url.Values
		code      string
	}{
		{"CREATE TABLE t (k UInt8) ENGINE = MergeTree ORDER BY k", "", args(), ""},
		{"INSERT INTO t FORMAT CSV", "1\n2\n", args(), ""},
		{"SELECT throwIf(sum(k) != 3) FROM t", "", args("session_timeout", "60", "close_session", "1"), ""},
		{"SELECT 1", "", args("max_block_size", "17", "readonly", "1"), ""},
		{"SELECT throwIf(getSetting('max_block_size') = 17)", "", args(), ""},
		{"SELECT 1", "", args("session_check", "1"), "48"},
		{"SET max_block_size = 17", "", args(), "48"},
		{"use system", "", args(), "48"},
		{"-- mine\nCREATE OR REPLACE TEMPORARY TABLE mine (k UInt8)", "", args(), "48"},
		{"CREATE TEMPORARY TABLE mine (k UInt8)", "", args(), "48"},
		{"CREATE TEMPORARY TABLE mine (k UInt8)", "", url.Values{}, ""}, // as on a server: it ends with its request
	} {
		tc.args.Set("query", tc.sql)
		if r := p.do(t, http.MethodPost, tc.args, nil, []byte(tc.body)); r.code() != tc.code {
			t.Errorf("%s: got %d %s, want code %q", tc.sql, r.status, r.body, tc.code)
		}
	}
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
		{"brotli", nil, http.Header{"Content-Encoding": {"br"}}, "89"},
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
		return p.do(t, http.MethodPost, url.Values{"priority": {"1"}}, nil, []byte(countEndless))
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
		at := url.Values{"query": {tc.query}}
		if r := p.do(t, http.MethodPost, at, nil, []byte(tc.body)); r.status != http.StatusOK {
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
