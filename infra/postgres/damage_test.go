package postgres

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
)

// TestDamagedPage: a page that was changed on the disk is told as damage, and not as something that passes.
func TestDamagedPage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	opts := enginetest.Options(t, embedded.Postgres)
	e, err := embedded.Start(ctx, opts)
	if err != nil {
		enginetest.Absent(t, err)
	}
	defer func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	}()
	pool, err := Open(ctx, Config{URL: e.PostgresURL})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var sums, path string
	for _, sql := range []string{
		"CREATE TABLE kept AS SELECT 'as it was written' AS body FROM generate_series(1, 100)", "CHECKPOINT",
	} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := pool.QueryRow(ctx, "SHOW data_checksums").Scan(&sums); err != nil || sums != "on" {
		t.Fatalf("the embedded Postgres has data_checksums %s, %v", sums, err)
	}
	if err := pool.QueryRow(ctx, "SELECT pg_relation_filepath('kept')").Scan(&path); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(opts.Dir, "postgres", "*", path))
	if own := filepath.Join(opts.Dir, "postgres", path); err == nil && len(files) == 0 {
		files = []string{own}
	}
	page, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	page = bytes.Replace(page, []byte("as it was written"), []byte("as it was changed"), 1)
	if err := os.WriteFile(files[0], page, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Restart(ctx, embedded.Postgres); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	_, err = pool.Exec(ctx, "SELECT * FROM kept")
	if !Damaged(err) || Transient(err) || !strings.Contains(err.Error(), "invalid page") {
		t.Errorf("got %v", err)
	}
}
