package chdb

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing that is sent to the front reads or writes a file, runs a command or calls a server, whoever sends it.
func TestNothingLeavesTheDataDirectory(t *testing.T) {
	p := start(t, childConfig{})
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("treasure\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	called := make(chan string, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case called <- c.RemoteAddr().String():
			default:
			}
			_ = c.Close()
		}
	}()
	p.sql(t, "CREATE TABLE t (s String) ENGINE = MergeTree ORDER BY s")
	for _, sql := range []string{
		// files, read
		"SELECT * FROM file('SECRET', LineAsString)",
		"SELECT file('SECRET')",
		"SELECT `file`('SECRET')",
		"SELECT \"f\\x69le\"('SECRET')",
		"SELECT `\\x66\\x69\\x6c\\x65`('SECRET')",
		"SELECT file /* /* */ ' */ ('SECRET') --'",
		"SELECT file\u00a0('SECRET')",
		"SELECT file // '\n ('SECRET') --'",
		"SELECT arrayMap(file, ['SECRET'])",
		"SELECT arrayMap({f:Identifier}, ['SECRET'])",
		"SELECT $a$ $a$, $ ' $, file('SECRET'), $ ' $",
		"WITH (SELECT file('SECRET')) AS x SELECT x",
		"CREATE TABLE d (k UInt8, s String DEFAULT file('SECRET')) ENGINE = MergeTree ORDER BY k",
		"CREATE FUNCTION f AS (x) -> file(x)",
		"SELECT * FROM format(Values, '(file(\\'SECRET\\'))')",
		"SELECT * FROM format(Values, 's String', '(file(\\'SECRET\\'))')",
		"SELECT * FROM loop(file('SECRET', LineAsString)) LIMIT 1",
		"SELECT * FROM fileCluster('default', 'SECRET', LineAsString)",
		"SELECT * FROM filesystem('DIR')",
		"DESCRIBE TABLE file('SECRET')",
		"INSERT INTO t FROM INFILE 'SECRET' FORMAT LineAsString",
		"INSERT INTO t VALUES (file('SECRET'))",
		"INSERT INTO t SETTINGS input_format_values_interpret_expressions = 1 VALUES (file('SECRET'))",
		"INSERT INTO t FORMAT Values (file('SECRET'))",
		"SELECT 1 AS a FORMAT Template SETTINGS format_template_row = 'SECRET'",
		"SELECT 1 AS a FORMAT Protobuf SETTINGS format_schema = 'SECRET:x'",
		"CREATE DATABASE fs ENGINE = Filesystem('DIR')",
		"CREATE TABLE fl (s String) ENGINE = FileLog('DIR', LineAsString)",
		"CREATE DICTIONARY dict (k UInt64, s String) PRIMARY KEY k SOURCE(FILE(path 'SECRET' format 'TSV')) " +
			"LAYOUT(FLAT()) LIFETIME(1)",
		"SELECT * FROM icebergLocal('DIR')",
		"SELECT * FROM deltaLakeLocal('DIR')",
		"SELECT * FROM sqlite('SECRET', 't')",
		"ATTACH TABLE at FROM 'DIR' (k UInt8) ENGINE = MergeTree ORDER BY k",
		"RESTORE TABLE t FROM File('SECRET')",
		// files, written
		"SELECT 1 INTO OUTFILE 'DIR/out'",
		"(SELECT 1) INTO OUTFILE 'DIR/out'",
		"SELECT * FROM (SELECT 1 INTO OUTFILE 'DIR/out')",
		"SHOW TABLES INTO OUTFILE 'DIR/out'",
		"EXPLAIN SELECT 1 INTO OUTFILE 'DIR/out'",
		"DESCRIBE TABLE t INTO OUTFILE 'DIR/out'",
		"INSERT INTO FUNCTION file('DIR/out', CSV, 's String') SELECT 'x'",
		"CREATE TABLE out (s String) ENGINE = File(CSV, 'DIR/out')",
		"CREATE TABLE out (k UInt8) ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY k",
		"CREATE TABLE out (k UInt8) ENGINE /* */ `EmbeddedRocksDB`(0, 'DIR/out') PRIMARY KEY k",
		"CREATE TABLE `SELECT` (k UInt8) ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY k",
		"CREATE TABLE out AS t ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY s",
		"CREATE OR REPLACE TABLE out (k UInt8) ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY k",
		"REPLACE TABLE out (k UInt8) ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY k",
		"CREATE MATERIALIZED VIEW out ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY s AS SELECT s FROM t",
		"CREATE TEMPORARY TABLE a (k UInt8) PARALLEL WITH CREATE TABLE out (k UInt8) " +
			"ENGINE = EmbeddedRocksDB(0, 'DIR/out') PRIMARY KEY k",
		"CREATE TABLE out (k UInt8) ENGINE = MergeTree ORDER BY k SETTINGS " +
			"disk = disk(type = local, path = 'DIR/out/')",
		"CREATE TABLE out (k UInt8) ENGINE = MergeTree ORDER BY k SETTINGS " +
			"disk = disk(name = 'x', type = object_storage, object_storage_type = local, " +
			"metadata_type = plain, path = 'DIR/out/')",
		"CREATE DATABASE out ENGINE = SQLite('DIR/out')",
		"BACKUP TABLE t TO File('DIR/out')",
		"BACKUP TABLE t TO Disk('default', 'out')",
		"ALTER TABLE t FREEZE",
		// commands
		"SELECT * FROM executable('id', TSV, 's String')",
		"CREATE TABLE ex (s String) ENGINE = Executable('id', TSV)",
		"CREATE DICTIONARY dict (k UInt64, s String) PRIMARY KEY k SOURCE(EXECUTABLE(command 'id' format 'TSV')) " +
			"LAYOUT(FLAT()) LIFETIME(1)",
		"SELECT catboostEvaluate('SECRET', 1)",
		"SYSTEM SHUTDOWN",
		"SYSTEM KILL",
		"SYSTEM RELOAD CONFIG",
		"SYSTEM RELOAD DICTIONARIES",
		// the network
		"SELECT * FROM url('http://ADDR/', CSV, 's String')",
		"INSERT INTO FUNCTION url('http://ADDR/', CSV, 's String') SELECT 'x'",
		"SELECT * FROM s3('http://ADDR/bucket/x', CSV, 's String')",
		"SELECT * FROM s3('http://ADDR/bucket/x', NOSIGN, CSV)",
		"SELECT * FROM gcs('http://ADDR/bucket/x', CSV, 's String')",
		"SELECT * FROM hdfs('hdfs://ADDR/x', CSV, 's String')",
		"SELECT * FROM azureBlobStorage('http://ADDR/', 'c', 'x', 'a', 'YQ==', CSV, 'auto', 's String')",
		"SELECT * FROM iceberg('http://ADDR/bucket/x')",
		"SELECT * FROM deltaLake('http://ADDR/bucket/x')",
		"SELECT * FROM hudi('http://ADDR/bucket/x')",
		"SELECT * FROM remote('ADDR', system.one)",
		"SELECT * FROM remoteSecure('ADDR', system.one)",
		"SELECT * FROM mysql('ADDR', 'd', 't', 'u', 'p')",
		"SELECT * FROM postgresql('ADDR', 'd', 't', 'u', 'p')",
		"SELECT * FROM mongodb('ADDR', 'd', 't', 'u', 'p', 's String')",
		"SELECT * FROM redis('ADDR', 's', 's String')",
		"SELECT * FROM odbc('DSN=x', 't')",
		"SELECT hasColumnInTable('ADDR', 'u', 'p', 'd', 't', 'c')",
		"CREATE TABLE net (s String) ENGINE = URL('http://ADDR/', CSV)",
		"CREATE TABLE net (s String) ENGINE = S3('http://ADDR/bucket/x', CSV)",
		"CREATE TABLE net (s String) ENGINE = Kafka('ADDR', 't', 'g', 'TSV')",
		"CREATE TABLE net (k UInt8) ENGINE = MergeTree ORDER BY k SETTINGS disk = disk(type = web, " +
			"endpoint = 'http://ADDR/b/')",
		"CREATE DATABASE net ENGINE = PostgreSQL('ADDR', 'a', 'b', 'c')",
		"CREATE DATABASE net ENGINE = DataLakeCatalog('http://ADDR') SETTINGS catalog_type = 'rest', warehouse = 'x'",
		"CREATE DICTIONARY dict (k UInt64, s String) PRIMARY KEY k SOURCE(HTTP(url 'http://ADDR/' format 'TSV')) " +
			"LAYOUT(FLAT()) LIFETIME(1)",
		"CREATE DICTIONARY dict (k UInt64, s String) PRIMARY KEY k " +
			"SOURCE(CLICKHOUSE(host '127.0.0.1' port 1 table 't')) LAYOUT(FLAT()) LIFETIME(1)",
		"RESTORE TABLE t FROM S3('http://ADDR/bucket/x', 'a', 'b')",
		"SELECT * FROM format(AvroConfluent, '\\0\\0\\0\\0\\1') " +
			"SETTINGS format_avro_schema_registry_url = 'http://ADDR/'",
		// what would give it all back
		"GRANT ALL ON *.* TO default WITH GRANT OPTION",
		"GRANT READ, WRITE ON FILE TO default",
		"CREATE USER u IDENTIFIED BY 'x'",
		"CREATE NAMED COLLECTION nc AS url = 'http://ADDR/'",
		"SELECT 1 SETTINGS dialect = 'kusto'",
	} {
		sql = strings.NewReplacer("SECRET", secret, "DIR", dir, "ADDR", l.Addr().String()).Replace(sql)
		args := url.Values{"param_f": {"file"}}
		for who, ask := range map[string]func() response{
			Reader: func() response { return p.read(t, args, sql) },
			Writer: func() response { return p.do(t, http.MethodPost, args, nil, []byte(sql)) },
		} {
			if r := ask(); r.status == http.StatusOK || strings.Contains(r.body, "treasure") {
				t.Errorf("%s: %s: got %d %s", who, sql, r.status, r.body)
			}
		}
		select {
		case from := <-called:
			t.Errorf("%s: it called from %s", sql, from)
		default:
		}
	}
	if got := p.sql(t, "SELECT count() FROM t"); got != "0" {
		t.Errorf("t has %s rows", got)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("beside the secret there is now %v, %v", left, err)
	}
}

// What looks like it and is not goes on.
func TestGuardLetsPass(t *testing.T) {
	p := start(t, childConfig{})
	for _, tc := range []struct{ sql, want string }{
		{"CREATE DATABASE d ENGINE = Atomic", ""},
		{"CREATE TABLE d.t (k UInt64, profile String, engine String) ENGINE = ReplacingMergeTree ORDER BY k", ""},
		{"CREATE TABLE d.m ENGINE Memory AS SELECT 1 AS a", ""},
		{"CREATE VIEW d.v AS SELECT k, engine FROM d.t WHERE engine = profile", ""},
		{"INSERT INTO d.t VALUES (1 + 1, 'x', upper('y'))", ""},
		{"INSERT INTO d.t VALUES (3, 'a file (x)', 'disk(''x'')')", ""},
		{"SELECT engine FROM system.tables WHERE database = 'd' AND name = 'm'", "Memory"},
		{"SELECT 'file(\\'x\\') INTO OUTFILE' AS s -- disk(", "file(\\'x\\') INTO OUTFILE"},
		{"SELECT sum(k) FROM d.t WHERE profile != 'file'", "5"},
		{"SELECT * FROM d.v", ""},
	} {
		if got := p.sql(t, tc.sql); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.sql, got, tc.want)
		}
	}
}
