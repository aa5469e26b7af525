package chdb

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"heliograph/infra/embedded/engine"
)

// The users of the front. There are no others.
const (
	// Writer may do what our own roles do: make, fill, change and drop tables.
	Writer = "default"
	// Reader may ask, within limits: for analysts, dashboards and curl.
	Reader = "reader"
)

// Accounts are the passwords of the two users.
type Accounts struct{ Writer, Reader string }

// accountFiles are where the passwords lie, in the data directory.
var accountFiles = map[string]string{Writer: "password", Reader: "reader-password"}

// ReadAccounts reads the passwords that Run has made in a data directory.
func ReadAccounts(dataDir string) (Accounts, error) {
	var a Accounts
	for user, to := range map[string]*string{Writer: &a.Writer, Reader: &a.Reader} {
		raw, err := os.ReadFile(filepath.Join(dataDir, accountFiles[user]))
		if err != nil {
			return Accounts{}, engine.DiskError(engine.ClickHouse, dataDir, err)
		}
		if *to = strings.TrimSpace(string(raw)); *to == "" {
			return Accounts{}, fmt.Errorf("clickhouse: the password of %s in %s is empty", user, dataDir)
		}
	}
	return a, nil
}

// makeAccounts makes the passwords that are missing: data of before there were any is taken up.
func makeAccounts(dataDir string) (Accounts, error) {
	for _, file := range accountFiles {
		name := filepath.Join(dataDir, file)
		raw, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(raw)) != "" {
			continue
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return Accounts{}, engine.DiskError(engine.ClickHouse, dataDir, err)
		}
		var random [24]byte
		rand.Read(random[:]) // never fails
		if err := engine.WriteFile(name, []byte(hex.EncodeToString(random[:])+"\n"), 0o600); err != nil {
			return Accounts{}, engine.DiskError(engine.ClickHouse, dataDir, err)
		}
	}
	return ReadAccounts(dataDir)
}

// knows tells whether there is this user with this password.
func (a Accounts) knows(user, password string) bool {
	want := a.Writer
	if user == Reader {
		want = a.Reader
	} else if user != Writer {
		return false
	}
	return want != "" && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
}

// String leaves the passwords out.
func (Accounts) String() string { return "chdb.Accounts{[redacted]}" }

// grants is what either user may do at most. No source is among them: no table function, table engine or database
// engine that reaches a file or the network, no dictionary (its source may be a command), no backup, no SYSTEM but what
// tests of merges need. What the engine lets anybody do nonetheless is refused by the front (guard.go).
var grants = []string{
	"GRANT CHECK, SHOW, SELECT, INSERT, ALTER, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, dictGet ON *.*",
	"GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE TEMPORARY TABLE, CREATE TEMPORARY VIEW ON *.*",
	"GRANT SYSTEM MERGES, SYSTEM FLUSH ON *.*",
	"REVOKE ALTER FREEZE PARTITION, ALTER FETCH PARTITION ON *.*",
}

// closed are settings that nobody changes: each makes the engine read a file, call a server or parse another language
// than the one that the front reads.
var closed = []string{
	"dialect", "format_template_row", "format_template_resultset", "format_schema", "format_avro_schema_registry_url",
}

// limit is a bound on what a reader's statement may use.
type limit struct {
	setting  string
	value    int64
	min, max int64 // what the reader may set it to
}

// limits of the reader; a statement that exceeds one ends with an error, never with a part of its result.
func limits(memory int64) []limit {
	memory /= 2 // the writer needs the rest
	return []limit{
		{"max_execution_time", 60, 1, 60},            // seconds
		{"max_result_rows", 1_000_000, 1, 1_000_000}, //
		{"max_result_bytes", 1 << 30, 1, 1 << 30},    //
		{"max_rows_to_read", 1e10, 1, 1e10},          //
		{"max_memory_usage", memory, 1, memory},      //
		{"max_temporary_data_on_disk_size_for_query", 4 << 30, 1, 4 << 30},
	}
}

// fixed are settings of the reader's limits that must stay as they are, or the limits mean something else.
var fixed = []string{
	"timeout_overflow_mode", "result_overflow_mode", "read_overflow_mode",
}

// profiles are the settings of the two users, in the form of users.xml.
func profiles(cfg Config) string {
	var b strings.Builder
	b.WriteString("  <profiles><default>\n" +
		"    <async_insert>0</async_insert>\n" +
		"    <log_queries>0</log_queries>\n" +
		"    <query_profiler_real_time_period_ns>0</query_profiler_real_time_period_ns>\n" +
		"    <query_profiler_cpu_time_period_ns>0</query_profiler_cpu_time_period_ns>\n")
	if cfg.MaxThreads > 0 {
		fmt.Fprintf(&b, "    <max_threads>%d</max_threads>\n", cfg.MaxThreads)
	}
	for _, s := range expressions {
		fmt.Fprintf(&b, "    <%s>0</%s>\n", s, s)
	}
	b.WriteString("    <constraints>\n")
	for _, s := range closed {
		fmt.Fprintf(&b, "      <%s><const/></%s>\n", s, s)
	}
	b.WriteString("    </constraints>\n  </default><reader>\n    <constraints>\n")
	for _, l := range limits(cfg.MaxMemory) {
		fmt.Fprintf(&b, "      <%s><min>%d</min><max>%d</max></%s>\n", l.setting, l.min, l.max, l.setting)
	}
	for _, s := range append(fixed, closed...) {
		fmt.Fprintf(&b, "      <%s><const/></%s>\n", s, s)
	}
	b.WriteString("    </constraints>\n  </reader></profiles>\n")
	return b.String()
}

// readerStatements bind a fresh connection to what the reader may do. The engine takes a profile's constraints and not
// its values from SET, so those are set as well.
func readerStatements(memory int64) []string {
	var b strings.Builder
	for _, l := range limits(memory) {
		fmt.Fprintf(&b, ", %s = %d", l.setting, l.value)
	}
	return []string{"SET " + b.String()[2:], "SET profile = '" + Reader + "'"}
}
