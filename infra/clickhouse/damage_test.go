package clickhouse

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/run"
)

// TestDamagedPart: a part that was changed on the disk, or lost its end, is told as damage, and not as something that
// passes.
func TestDamagedPart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	opts := enginetest.Options(t, embedded.ClickHouse)
	e, err := embedded.Start(ctx, opts)
	if err != nil {
		enginetest.Absent(t, err)
	}
	defer func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := Open(Config{
		Addr: []string{e.ClickHouseAddr}, User: "default", Password: run.Secret(e.ClickHousePassword),
		Database: "default",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for table, damage := range map[string]func([]byte) []byte{
		"changed": func(b []byte) []byte { b[len(b)/2] ^= 0x55; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
	} {
		// Few rows: it looks for a single bit that may have flipped, which takes longer the more there are.
		for _, sql := range []string{
			"CREATE TABLE " + table + " (n UInt64, body String) ENGINE = MergeTree ORDER BY n " +
				"SETTINGS min_bytes_for_wide_part = 0",
			"INSERT INTO " + table + " SELECT number, toString(cityHash64(number)) FROM numbers(200)",
		} {
			if err := conn.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		var path string
		const where = "SELECT path FROM system.parts WHERE table = ? AND active"
		if err := conn.QueryRow(ctx, where, table).Scan(&path); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, "body.bin")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		var sum uint64
		err = conn.QueryRow(ctx, "SELECT sum(cityHash64(body)) FROM "+table).Scan(&sum)
		if !Damaged(err) || Transient(err) {
			t.Errorf("%s: got %v", table, err)
		}
	}
}
