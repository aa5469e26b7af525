package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/embedded/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func migrations(n int) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 1; i <= n; i++ {
		fsys[fmt.Sprintf("%05d_step.sql", i)] = &fstest.MapFile{
			Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE t%d (x int);\n", i),
		}
	}
	return fsys
}

func TestMigrate(t *testing.T) {
	url := enginetest.NewDatabase(t)
	ctx := t.Context()
	g, gctx := errgroup.WithContext(ctx)
	for range 4 {
		g.Go(func() error {
			v, err := Migrate(gctx, url, migrations(2), "views")
			if err == nil && v != 2 {
				err = fmt.Errorf("version %d", v)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("four at once: %v", err)
	}
	if v, err := Migrate(ctx, url, migrations(3), "views"); err != nil || v != 3 {
		t.Fatalf("one more: %d, %v", v, err)
	}
	var newer *NewerError
	if _, err := Migrate(ctx, url, migrations(2), "views"); !errors.As(err, &newer) || newer.Have != 3 ||
		newer.Want != 2 {
		t.Errorf("an older program: %v", err)
	}
	if v, err := Migrate(ctx, url, migrations(1), "views_2"); err != nil || v != 1 {
		t.Errorf("another generation: %d, %v", v, err)
	}

	reg := prometheus.NewRegistry()
	pool, err := Open(ctx, Config{
		URL:        url,
		Name:       "views",
		Params:     map[string]string{"search_path": "views", "synchronous_commit": "off"},
		Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var commit string
	var tables int
	if err := pool.QueryRow(ctx, `
		SELECT current_setting('synchronous_commit'), count(*)
		FROM pg_tables WHERE schemaname = 'views' AND tablename ~ '^t[0-9]'`).Scan(&commit, &tables); err != nil {
		t.Fatal(err)
	}
	if commit != "off" || tables != 3 {
		t.Errorf("synchronous_commit %s, %d tables", commit, tables)
	}
	if fams, err := reg.Gather(); err != nil || len(fams) == 0 {
		t.Errorf("metrics: %d, %v", len(fams), err)
	}
	_, err = pool.Exec(ctx, "SELECT 1/0")
	if err == nil || Transient(err) {
		t.Errorf("Transient(%v)", err)
	}
	_, err = pool.Exec(ctx, "SET statement_timeout = 1; SELECT pg_sleep(10)")
	if !Transient(err) {
		t.Errorf("not Transient(%v)", err)
	}
}

func TestTransient(t *testing.T) {
	pool, err := Open(t.Context(), Config{URL: "postgres://nobody:hunter2@127.0.0.1:1/none"})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	down := pool.Ping(t.Context())
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{down, true},
		{fmt.Errorf("apply: %w", io.ErrUnexpectedEOF), true},
		{context.DeadlineExceeded, true},
		{&pgconn.PgError{Code: "40P01"}, true},
		{&pgconn.PgError{Code: "57P01"}, true},
		{&pgconn.PgError{Code: "53300"}, true},
		{&pgconn.PgError{Code: "23505"}, false},
		{&pgconn.PgError{Code: "42P01"}, false},
		{errors.New("cannot encode"), false},
	} {
		if got := Transient(c.err); got != c.want {
			t.Errorf("Transient(%v) = %v", c.err, got)
		}
	}
	if strings.Contains(down.Error(), "hunter2") {
		t.Errorf("the password shows in %v", down)
	}
}

func TestConfigHidesThePassword(t *testing.T) {
	for _, url := range []string{
		"postgres://u:hunter2@h/d", "host=h password=hunter2", "postgres://h/d?user=u&password=hunter2",
	} {
		c := Config{URL: url}
		if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(s, "hunter2") {
			t.Errorf("shown: %s", s)
		}
	}
	if err := (Config{URL: "postgres://u:hunter2@h:port/d", MaxConns: -2}).Validate(); err == nil ||
		strings.Contains(err.Error(), "hunter2") ||
		!strings.Contains(err.Error(), "at most -2") {
		t.Errorf("Validate = %v", err)
	}
}
