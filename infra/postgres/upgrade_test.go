package postgres

import (
	"context"
	"io/fs"
	"net/url"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"heliograph/infra/embedded/enginetest"
	schema "heliograph/schemas/postgres"
)

// TestMigrateASequenceThatLags: a schema whose server crashed right after it was migrated takes the next migration.
// With wal_level=minimal, as embedded servers once had it, the sequence behind goose's table comes back older than its
// rows.
func TestMigrateASequenceThatLags(t *testing.T) {
	dsn := enginetest.NewDatabase(t)
	ctx := t.Context()
	if _, err := Migrate(ctx, dsn, migrations(3), "views"); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SELECT setval('views.goose_db_version_id_seq', 1)"); err != nil {
		t.Fatal(err)
	}
	if v, err := Migrate(ctx, dsn, migrations(5), "views"); err != nil || v != 5 {
		t.Errorf("migrate on: %d, %v", v, err)
	}
}

// TestUpgradesSurviveAKill: a start that ends at any statement of any upgrade, of any store, is made good by the next,
// and by two next ones at once: what comes out is what an undisturbed start makes.
func TestUpgradesSurviveAKill(t *testing.T) {
	for _, dir := range []string{"views", "registration"} {
		t.Run(dir, func(t *testing.T) {
			ctx := t.Context()
			files, err := fs.Sub(schema.FS, dir)
			if err != nil {
				t.Fatal(err)
			}
			steps := upTo(t, files)
			straight := enginetest.NewDatabase(t)
			if _, err := Migrate(ctx, straight, files, dir); err != nil {
				t.Fatal(err)
			}
			dsn := enginetest.NewDatabase(t)
			at, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			relay := enginetest.NewRelay(t, at.Host)
			at.Host = relay.Addr
			cuts := 0
			for n, step := range steps {
				for k := n % 3; ; k += 3 { // the next steps have the others
					relay.CutAt(k, (k/3+n)%2 == 0)
					_, err := Migrate(ctx, at.String(), step, dir)
					if !relay.Cut() {
						if err != nil {
							t.Fatalf("step %d, uncut: %v", n+1, err)
						}
						break
					}
					cuts++
				}
				g, gctx := errgroup.WithContext(ctx)
				for range 2 {
					g.Go(func() error { _, err := Migrate(gctx, dsn, step, dir); return err })
				}
				if err := g.Wait(); err != nil {
					t.Fatalf("step %d, two at once: %v", n+1, err)
				}
			}
			if d := cmp.Diff(describe(t, straight, dir), describe(t, dsn, dir)); d != "" {
				t.Errorf("an upgrade with %d kills (-undisturbed +killed):\n%s", cuts, d)
			}
			t.Logf("%d kills", cuts)
			if cuts < 3*len(steps) {
				t.Errorf("only %d kills in %d steps", cuts, len(steps))
			}
		})
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

// describe lists all that a schema has, in words.
func describe(t *testing.T, dsn, schema string) []string {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `
		SELECT concat_ws(' ', 'column', table_name, column_name, ordinal_position, data_type, is_nullable,
			column_default)
		FROM information_schema.columns WHERE table_schema = $1
		UNION ALL SELECT concat_ws(' ', 'index', indexdef) FROM pg_indexes WHERE schemaname = $1
		UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
			WHERE connamespace = $1::regnamespace
		UNION ALL SELECT concat_ws(' ', 'options', relname, reloptions) FROM pg_class
			WHERE relnamespace = $1::regnamespace
		UNION ALL SELECT concat_ws(' ', 'trigger', tgname, pg_get_triggerdef(t.oid)) FROM pg_trigger t
			JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = $1::regnamespace AND NOT tgisinternal
		UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = $1::regnamespace
		UNION ALL SELECT concat_ws(' ', 'version', version_id)
			FROM `+pgx.Identifier{schema, "goose_db_version"}.Sanitize()+`
		ORDER BY 1`, schema)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}
