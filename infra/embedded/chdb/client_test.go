package chdb

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// TestGrafanaDataSource does what Grafana's ClickHouse data source does with the protocol HTTP: clickhouse-go over
// database/sql with gzip, a user and a password in headers, settings, a row limit and the user's time zone.
func TestGrafanaDataSource(t *testing.T) {
	p := start(t, childConfig{})
	auth := clickhouse.Auth{Database: "default", Username: Reader, Password: p.who.Reader}
	options := func(auth clickhouse.Auth) *clickhouse.Options {
		o := &clickhouse.Options{
			Addr: []string{p.addr}, Protocol: clickhouse.HTTP, Auth: auth,
			Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
			DialTimeout: 10 * time.Second, ReadTimeout: 60 * time.Second, HttpUrlPath: "",
			Settings:    clickhouse.Settings{"max_execution_time": "30", "limit": "1000"},
			HttpHeaders: map[string]string{"X-Dashboard-Uid": "d", "X-Panel-Id": "1"},
		}
		o.ClientInfo.Products = append(o.ClientInfo.Products, struct{ Name, Version string }{"grafana", "12.0.0"})
		return o
	}
	db := clickhouse.OpenDB(options(auth))
	defer func() { _ = db.Close() }()
	ctx := clickhouse.Context(
		context.Background(), clickhouse.WithClientInfo(clickhouse.ClientInfo{Comment: []string{"grafana_user:ann"}}),
		clickhouse.WithUserLocation(time.FixedZone("there", 3600)),
	)
	if err := db.PingContext(ctx); err != nil { // its health check
		t.Fatal(err)
	}
	var version string
	if err := db.QueryRowContext(ctx, "SELECT version()").Scan(&version); err != nil ||
		!strings.HasPrefix(version, "26.") {
		t.Errorf("got %q, %v", version, err)
	}
	for _, stmt := range []string{
		`CREATE TABLE m (at DateTime64(3), n UInt64, who LowCardinality(String), note Nullable(String))
			ENGINE = MergeTree ORDER BY at`,
		`INSERT INTO m SELECT toDateTime64('2026-01-01 00:00:00', 3) + number, number, 'x', if(number % 2, NULL, 'n')
			FROM numbers(5000)`,
	} {
		p.sql(t, stmt)
	}
	// What the editor asks to offer names, and what a panel with a time filter becomes.
	for query, want := range map[string]int{
		"SELECT name, database, table FROM system.columns WHERE database = 'default' AND table = 'm'": 4,
		"SHOW TABLES": 1,
		"DESC TABLE \"default\".\"m\" SETTINGS describe_compact_output=1":                                   4,
		"SELECT at, n FROM m WHERE at >= fromUnixTimestamp64Milli(1767225600000) ORDER BY at LIMIT 5":       5,
		"SELECT toStartOfInterval(at, INTERVAL 60 second) AS time, count() FROM m GROUP BY time ORDER BY 1": 84,
		"SELECT * FROM m": 1000, // the row limit
	} {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		types, err := rows.ColumnTypes()
		if err != nil || len(types) == 0 {
			t.Errorf("%s: %v, %v", query, types, err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		if err := rows.Err(); err != nil || n != want {
			t.Errorf("%s: %d rows, want %d: %v", query, n, want, err)
		}
		_ = rows.Close()
	}
	wrong := clickhouse.OpenDB(options(clickhouse.Auth{Database: "default", Username: Reader, Password: "x"}))
	defer func() { _ = wrong.Close() }()
	var e *clickhouse.Exception
	if err := wrong.PingContext(ctx); !errors.As(err, &e) || e.Code != 516 {
		t.Errorf("a wrong password: got %v, want code 516", err)
	}
}

// TestBareHTTP does what curl and the data sources without a driver do.
func TestBareHTTP(t *testing.T) {
	p := start(t, childConfig{})
	p.sql(t, "CREATE DATABASE d")
	login := base64.StdEncoding.EncodeToString([]byte(Reader + ":" + p.who.Reader))
	basic := http.Header{"Authorization": {"Basic " + login}}
	with := func(header http.Header) http.Header {
		maps.Copy(header, basic)
		return header
	}
	for _, tc := range []struct {
		name   string
		method string
		args   url.Values
		header http.Header
		body   string
		status int
		want   string
	}{
		{"nothing asked", http.MethodGet, nil, basic, "", http.StatusOK, "Ok.\n"},
		{"settings in the address", http.MethodGet, url.Values{
			"query":          {"SELECT toUInt64(getSetting('max_block_size')) AS n FORMAT JSONEachRow"},
			"max_block_size": {"11"}, "output_format_json_quote_64bit_integers": {"1"},
		}, basic, "", http.StatusOK, "{\"n\":\"11\"}\n"},
		{"default format", http.MethodGet, url.Values{
			"query": {"SELECT version() = '' AS v"}, "default_format": {"JSONCompactEachRow"},
		}, basic, "", http.StatusOK, "[0]\n"},
		{"database header", http.MethodPost, nil, with(http.Header{"X-Clickhouse-Database": {"d"}}),
			"SELECT currentDatabase()", http.StatusOK, "d\n"},
		{"unknown database", http.MethodPost, nil, with(http.Header{"X-Clickhouse-Database": {"e"}}),
			"SELECT 1", http.StatusNotFound, ""},
		{"a form that is none", http.MethodPost, nil,
			with(http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}), "SELECT 1", http.StatusOK, "1\n"},
		{"no password", http.MethodGet, url.Values{"query": {"SELECT 1"}}, nil, "", http.StatusForbidden, ""},
		{"preflight", http.MethodOptions, nil, basic, "", http.StatusMethodNotAllowed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := p.ask(t, tc.method, tc.args, tc.header, []byte(tc.body))
			if r.status != tc.status || tc.want != "" && r.body != tc.want {
				t.Errorf("got %d %q, want %d %q", r.status, r.body, tc.status, tc.want)
			}
		})
	}
}
