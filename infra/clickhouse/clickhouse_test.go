package clickhouse

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/fstest"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/embedded/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func migrations(n int, comment string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 1; i <= n; i++ {
		fsys[fmt.Sprintf("%05d_step.sql", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- %s\n"+
			"CREATE TABLE IF NOT EXISTS a%d (x Int64 COMMENT 'one; two') ENGINE = MergeTree ORDER BY x;\n"+
			"INSERT INTO a%d VALUES (1);\n", comment, i, i)}
	}
	return fsys
}

func TestMigrate(t *testing.T) {
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	c := Config{Addr: []string{addr}, Database: database, Password: password}
	ctx := t.Context()
	g, gctx := errgroup.WithContext(ctx)
	for range 3 {
		g.Go(func() error {
			v, err := Migrate(gctx, c, migrations(2, ""))
			if err == nil && v != 2 {
				err = fmt.Errorf("version %d", v)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("three at once: %v", err)
	}
	if v, err := Migrate(ctx, c, migrations(3, "")); err != nil || v != 3 {
		t.Fatalf("one more: %d, %v", v, err)
	}
	var newer *NewerError
	if _, err := Migrate(ctx, c, migrations(2, "")); !errors.As(err, &newer) || newer.Have != 3 || newer.Want != 2 {
		t.Errorf("an older program: %v", err)
	}
	if _, err := Migrate(ctx, c, migrations(3, "edited")); !errors.Is(err, ErrEdited) {
		t.Errorf("an edited migration: %v", err)
	}
	conn, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var rows uint64
	const count = "SELECT (SELECT count() FROM a1) + (SELECT count() FROM a2) + (SELECT count() FROM a3)"
	if err := conn.QueryRow(ctx, count).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 3 {
		t.Errorf("rows = %d: the migrations did not run once each", rows)
	}
	err = conn.Exec(ctx, "SELECT * FROM nothing_of_that_name")
	if err == nil || Transient(err) {
		t.Errorf("Transient(%v)", err)
	}
}

func TestSplit(t *testing.T) {
	src := "-- a; comment\nSELECT ';', `b;`, \"c;\" /* ; */ FROM x;\n\n;\nSELECT 'it\\'s; fine';\n-- the end;\n"
	want := []string{"-- a; comment\nSELECT ';', `b;`, \"c;\" /* ; */ FROM x", "SELECT 'it\\'s; fine'"}
	if d := cmp.Diff(want, split(src)); d != "" {
		t.Errorf("statements (-want +got):\n%s", d)
	}
	for _, odd := range []string{"", ";", "--", "/*", "'", "SELECT 'x\\", "/* ; */"} {
		split(odd) // must not panic
	}
	if got := split("SELECT 1"); len(got) != 1 {
		t.Errorf("without a semicolon: %q", got)
	}
}

func TestTransient(t *testing.T) {
	conn, err := Open(Config{Addr: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{conn.Ping(t.Context()), true},
		{fmt.Errorf("insert: %w", io.EOF), true},
		{&clickhouse.Exception{Code: 252}, true},
		{&clickhouse.Exception{Code: 241}, true},
		{&clickhouse.Exception{Code: 60}, false},
		{&clickhouse.HTTPError{StatusCode: 502, Err: errors.New("bad gateway")}, true},
		{&clickhouse.HTTPError{StatusCode: 404, Err: &clickhouse.Exception{Code: 60}}, false},
		{errors.New("no such column in the batch"), false},
	} {
		if got := Transient(c.err); got != c.want {
			t.Errorf("Transient(%v) = %v", c.err, got)
		}
	}
}
