package chdb

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	chcompress "github.com/ClickHouse/ch-go/compress"
)

// packed is text in an HTTP content encoding.
func packed(tb testing.TB, encoding, text string) []byte {
	tb.Helper()
	var b bytes.Buffer
	e, err := encoder(encoding, &b)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(e, text); err != nil {
		tb.Fatal(err)
	}
	if err := e.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// framed is text in ClickHouse's own frames.
func framed(tb testing.TB, m chcompress.Method, text string) []byte {
	tb.Helper()
	w := chcompress.NewWriter(0, m)
	if err := w.Compress([]byte(text)); err != nil {
		tb.Fatal(err)
	}
	return bytes.Clone(w.Data)
}

func TestContentEncodings(t *testing.T) {
	p := start(t, childConfig{MaxBody: 16 << 20})
	p.sql(t, "CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
	var b strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&b, "{\"k\":%d,\"s\":\"line %d\"}\n", i, i)
	}
	lines := b.String()
	insert := url.Values{"query": {"INSERT INTO t FORMAT JSONEachRow"}}
	for _, name := range encodings {
		t.Run(name, func(t *testing.T) {
			header := http.Header{"Content-Encoding": {name}}
			body := packed(t, name, lines)
			p.sql(t, "TRUNCATE TABLE t")
			if r := p.do(t, http.MethodPost, insert, header, body); r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
			whole := packed(t, name, "INSERT INTO t FORMAT JSONEachRow "+lines)
			if r := p.do(t, http.MethodPost, nil, header, whole); r.status != http.StatusOK {
				t.Fatalf("all in the body: %d %s", r.status, r.body)
			}
			if got := p.sql(t, "SELECT count(), sum(k), max(s) FROM t"); got != "40000\t399980000\tline 9999" {
				t.Errorf("got %s", got)
			}
			p.sql(t, "TRUNCATE TABLE t")
			for what, bad := range map[string][]byte{"cut": body[:len(body)/2], "not compressed": []byte(lines[:100])} {
				r := p.do(t, http.MethodPost, insert, header, bad)
				if r.status == http.StatusOK || r.code() == "" {
					t.Errorf("a body that is %s: got %d %s", what, r.status, r.body)
				}
			}
			if got := p.sql(t, "SELECT count() FROM t"); got != "0" {
				t.Errorf("a bad body inserted %s rows", got)
			}
			r := p.do(t, http.MethodPost, insert, header, packed(t, name, strings.Repeat(" ", 17<<20)))
			if r.code() != "229" {
				t.Errorf("a body that is too large once unpacked: got %d %s", r.status, r.body)
			}
			accept := http.Header{"Accept-Encoding": {"identity, " + name + ";q=0.5"}}
			for sql, size := range map[string]int{
				"SELECT number, 'some text' FROM numbers(5000)": 73890,
				"SELECT number FROM numbers(500000)":            3388890,
			} {
				r = p.do(t, http.MethodPost, nil, accept, []byte(sql))
				if r.header.Get("Content-Encoding") != name {
					t.Fatalf("got %v", r.header)
				}
				d, err := decoder(name, strings.NewReader(r.body))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(d)
				if err != nil || len(text) != size || len(r.body) >= size {
					t.Errorf("%s: %d bytes became %d, want %d: %v", sql, len(r.body), len(text), size, err)
				}
			}
		})
	}
	t.Run("not asked for", func(t *testing.T) {
		for name, tc := range map[string]struct {
			args   url.Values
			accept string
		}{
			"switched off": {url.Values{"enable_http_compression": {"0"}}, "gzip"},
			"no header":    {url.Values{"enable_http_compression": {"1"}}, ""},
			"refused":      {nil, "gzip;q=0"},
			"unknown":      {nil, "sdch"},
		} {
			r := p.do(
				t, http.MethodPost, tc.args, http.Header{"Accept-Encoding": {tc.accept}},
				[]byte("SELECT number FROM numbers(5000)"),
			)
			if r.header.Get("Content-Encoding") != "" || len(r.body) != 23890 {
				t.Errorf("%s: %q of %d bytes", name, r.header.Get("Content-Encoding"), len(r.body))
			}
		}
	})
}

func TestNativeFrames(t *testing.T) {
	p := start(t, childConfig{})
	p.sql(t, "CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
	for name, m := range map[string]chcompress.Method{"LZ4": chcompress.LZ4, "ZSTD": chcompress.ZSTD} {
		t.Run(name, func(t *testing.T) {
			p.sql(t, "TRUNCATE TABLE t")
			// A Native block: one column, two rows.
			block := "\x01\x02\x01k\x06UInt64" + "\x07\x00\x00\x00\x00\x00\x00\x00" + "\x09\x00\x00\x00\x00\x00\x00\x00"
			args := url.Values{"query": {"INSERT INTO t FORMAT Native"}, "decompress": {"1"}}
			body := append(framed(t, m, block), framed(t, m, block)...)
			if r := p.do(t, http.MethodPost, args, nil, body); r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got := p.sql(t, "SELECT count(), sum(k) FROM t"); got != "4\t32" {
				t.Errorf("got %s", got)
			}
			bad := bytes.Clone(body)
			bad[len(bad)-1] ^= 1
			if r := p.do(t, http.MethodPost, args, nil, bad); r.status == http.StatusOK {
				t.Errorf("a damaged frame: got %d %s", r.status, r.body)
			}
			if got := p.sql(t, "SELECT count() FROM t"); got != "4" {
				t.Errorf("a damaged frame left %s rows", got)
			}
			r := p.do(t, http.MethodPost, url.Values{"compress": {"1"}, "network_compression_method": {name}}, nil,
				[]byte("SELECT number FROM numbers(500000)"))
			text, err := io.ReadAll(plainEOF{chcompress.NewReader(strings.NewReader(r.body))})
			if err != nil || len(text) != 3388890 || len(r.body) >= len(text) {
				t.Errorf("%d bytes became %d: %v", len(r.body), len(text), err)
			}
			if method := r.body[16]; method != map[string]byte{"LZ4": 0x82, "ZSTD": 0x90}[name] {
				t.Errorf("the frame's method is %#x", method)
			}
		})
	}
}

// breaksOff fails after about two million rows.
const breaksOff = "SELECT number, throwIf(number = 2000000) FROM numbers(3000000) SETTINGS max_threads = 1"

// TestExceptionInTheMiddle reads results that fail after the first bytes, as a client without a driver does.
func TestExceptionInTheMiddle(t *testing.T) {
	p := start(t, childConfig{})
	for name, accept := range map[string]string{"plain": "", "gzip": "gzip", "zstd": "zstd"} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodPost, "http://"+p.addr, strings.NewReader(breaksOff))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = as(Writer, p.who.Writer)
			req.Header.Set("Accept-Encoding", accept)
			res, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			tag := res.Header.Get("X-ClickHouse-Exception-Tag")
			if res.StatusCode != http.StatusOK || len(tag) != 16 {
				t.Fatalf("got %d %v", res.StatusCode, res.Header)
			}
			raw, err := io.ReadAll(res.Body)
			if err == nil {
				t.Error("the answer looks whole")
			}
			d, err := decoder(accept, bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(d) // it is cut
			head, frame, found := bytes.Cut(text, []byte("\r\n__exception__\r\n"+tag+"\r\n"))
			if !found || !bytes.HasPrefix(head, []byte("0\t0\n1\t0\n")) {
				t.Fatalf("no frame with the tag at the end of %d bytes: %q", len(text), text[max(0, len(text)-300):])
			}
			message, rest, _ := bytes.Cut(frame, []byte("\n"))
			if want := fmt.Sprintf("%d %s\r\n__exception__\r\n", len(message)+1, tag); string(rest) != want {
				t.Errorf("got %q after the message, want %q", rest, want)
			}
			if !bytes.HasPrefix(message, []byte("Code: 395. DB::Exception: ")) {
				t.Errorf("got %q", message)
			}
		})
	}
	t.Run("the client waits for the end", func(t *testing.T) {
		for _, name := range []string{"wait_end_of_query", "http_wait_end_of_query"} {
			r := p.do(t, http.MethodPost, url.Values{name: {"1"}}, nil, []byte(breaksOff))
			if r.status == http.StatusOK || r.code() != "395" || !strings.HasPrefix(r.body, "Code: 395.") {
				t.Errorf("%s: got %d, code %q, %d bytes", name, r.status, r.code(), len(r.body))
			}
			args := url.Values{name: {"1"}, "send_progress_in_http_headers": {"1"}}
			r = p.do(t, http.MethodPost, args, nil, []byte("SELECT number FROM numbers(3000000)"))
			if r.status != http.StatusOK || len(r.body) != 22888890 {
				t.Errorf("%s: got %d and %d bytes", name, r.status, len(r.body))
			}
			for _, h := range []string{"X-ClickHouse-Summary", "X-ClickHouse-Progress"} {
				if !strings.Contains(r.header.Get(h), `"result_rows":"3000000"`) {
					t.Errorf("%s: %s is %q", name, h, r.header.Get(h))
				}
			}
		}
	})
	t.Run("too long to wait for", func(t *testing.T) {
		p := start(t, childConfig{MaxBody: 1 << 20})
		r := p.do(
			t, http.MethodPost, url.Values{"wait_end_of_query": {"1"}}, nil,
			[]byte("SELECT number FROM numbers(3000000)"),
		)
		if r.code() != "396" {
			t.Errorf("got %d %.200s", r.status, r.body)
		}
	})
}
