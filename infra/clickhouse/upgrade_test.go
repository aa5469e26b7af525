package clickhouse

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/embedded/enginetest"
	schema "heliograph/schemas/clickhouse"
)

// TestUpgradesSurviveAKill: a start that ends at any statement of any upgrade is made good by the next, and by two next
// ones at once: what comes out is what an undisturbed start makes.
func TestUpgradesSurviveAKill(t *testing.T) {
	ctx := t.Context()
	addr, password, straight := enginetest.NewClickHouseDatabase(t)
	files, err := fs.Sub(schema.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Addr: []string{addr}, Database: straight, Password: password}
	if _, err := Migrate(ctx, c, files); err != nil {
		t.Fatal(err)
	}
	want := describe(t, c)
	_, _, killed := enginetest.NewClickHouseDatabase(t)
	c.Database = killed
	relay := enginetest.NewRelay(t, addr)
	through := c
	through.Addr = []string{relay.Addr}
	conn, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cuts := 0
	for n, step := range upTo(t, files) {
		for k := 0; ; k++ {
			relay.CutAt(k, (k+n)%2 == 0)
			_, err := Migrate(ctx, through, step)
			if !relay.Cut() {
				if err != nil {
					t.Fatalf("step %d, uncut: %v", n+1, err)
				}
				break
			}
			cuts++
			// That a lock expires is another test's.
			if err := conn.Exec(ctx, "DROP TABLE IF EXISTS schema_migrations_lock"); err != nil {
				t.Fatal(err)
			}
		}
		relay.CutAt(-1, false)
		g, gctx := errgroup.WithContext(ctx)
		for range 2 {
			g.Go(func() error { _, err := Migrate(gctx, c, step); return err })
		}
		if err := g.Wait(); err != nil {
			t.Fatalf("step %d, two at once: %v", n+1, err)
		}
	}
	if d := cmp.Diff(want, describe(t, c)); d != "" {
		t.Errorf("an upgrade with %d kills (-undisturbed +killed):\n%s", cuts, d)
	}
	if cuts < 20 {
		t.Errorf("only %d kills", cuts)
	}
	t.Logf("%d kills", cuts)
}

// TestLockOfTheDead: the lock of a process that was killed is taken over, by one of those that wait, as soon as it was
// not renewed for a while; the lock of one that lives is not, however long its migration takes.
func TestLockOfTheDead(t *testing.T) {
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	ctx := t.Context()
	c := Config{Addr: []string{addr}, Database: database, Password: password, lockExpiry: time.Second}
	if _, err := Migrate(ctx, c, migrations(1, "")); err != nil {
		t.Fatal(err)
	}
	conn, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	unlock, err := lock(ctx, conn, c, lockTable)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
	_, err = Migrate(short, c, migrations(2, ""))
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another holds the lock: %v, want that it waits", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	// Killed: it is there and nobody renews it.
	dead := "CREATE TABLE schema_migrations_lock (x UInt8) ENGINE = Memory COMMENT " + text(renewed)
	if err := conn.Exec(ctx, dead); err != nil {
		t.Fatal(err)
	}
	g, gctx := errgroup.WithContext(ctx)
	for range 3 {
		g.Go(func() error { _, err := Migrate(gctx, c, migrations(2, "")); return err })
	}
	if err := g.Wait(); err != nil {
		t.Errorf("after the holder's end: %v", err)
	}
	var rows, left uint64
	if err := conn.QueryRow(ctx, "SELECT (SELECT count() FROM a2), (SELECT count() FROM system.tables "+
		"WHERE database = currentDatabase() AND name LIKE 'schema_migrations_lock%')").Scan(&rows, &left); err != nil {
		t.Fatal(err)
	}
	if rows != 1 || left != 0 {
		t.Errorf("the migration ran %d times, want once; %d locks are left, want none", rows, left)
	}
}

// upTo returns, for each migration, the files up to it.
func upTo(t *testing.T, files fs.FS) []fs.FS {
	t.Helper()
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	var out []fs.FS
	have := fstest.MapFS{}
	for _, e := range entries {
		raw, err := fs.ReadFile(files, e.Name())
		if err != nil {
			t.Fatal(err)
		}
		next := fstest.MapFS{e.Name(): {Data: raw}}
		for k, v := range have {
			next[k] = v
		}
		have = next
		out = append(out, next)
	}
	return out
}

// describe lists the columns, indices and engines of a database and its versions, in words.
func describe(t *testing.T, c Config) []string {
	t.Helper()
	conn, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out []string
	for _, q := range []string{
		`SELECT arraySort(groupArray(concat(name, ' ', replaceAll(create_table_query, currentDatabase(), 'db'))))
			FROM system.tables WHERE database = currentDatabase()`,
		`SELECT arraySort(groupUniqArray(concat('version ', toString(version), ' ', sum))) FROM schema_migrations`,
	} {
		var part []string
		if err := conn.QueryRow(t.Context(), q).Scan(&part); err != nil {
			t.Fatal(err)
		}
		out = append(out, part...)
	}
	return out
}
