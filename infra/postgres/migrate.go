package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// NewerError says that a schema was migrated by a later program; this one must not touch it.
type NewerError struct {
	Schema string
	Have   int64 // the schema's version
	Want   int64 // the program's
}

// Error names the schema, both versions and what mends it.
func (e *NewerError) Error() string {
	return fmt.Sprintf(
		"postgres: schema %s is at version %d, newer than this program's %d: "+
			"run the later program, or rebuild the view from the log",
		e.Schema, e.Have, e.Want,
	)
}

// Migrate brings a schema, created when it is missing, to the last migration in fsys (goose files, NNNNN_name.sql,
// unqualified names). It returns the version. Processes that migrate at the same time wait for one another.
func Migrate(ctx context.Context, url string, fsys fs.FS, schema string) (int64, error) {
	pc, err := pgx.ParseConfig(url)
	if err != nil {
		return 0, unusable(url, err)
	}
	if pc.ConnectTimeout == 0 {
		pc.ConnectTimeout = 10 * time.Second
	}
	quoted := pgx.Identifier{schema}.Sanitize()
	pc.RuntimeParams["search_path"] = quoted
	pc.RuntimeParams["application_name"] = "helio-migrate"
	db := stdlib.OpenDB(*pc)
	defer db.Close()
	version, err := migrate(ctx, db, fsys, schema, quoted)
	if err != nil {
		return 0, fmt.Errorf("postgres: migrate schema %s: %w", schema, oneLine{err})
	}
	return version, nil
}

// Drop removes a schema with all that is in it; it is no error when there is none.
func Drop(ctx context.Context, url, schema string) error {
	pc, err := pgx.ParseConfig(url)
	if err != nil {
		return unusable(url, err)
	}
	conn, err := pgx.ConnectConfig(ctx, pc)
	if err == nil {
		_, err = conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE")
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("postgres: drop schema %s: %w", schema, oneLine{err})
	}
	return nil
}

func migrate(ctx context.Context, db *sql.DB, fsys fs.FS, schema, quoted string) (version int64, err error) {
	// The lock belongs to this session; the migrations run on others.
	conn, err := db.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	key := lockKey(schema)
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	defer func() {
		// Should the unlock fail, closing the database ends the session, and that frees the lock.
		_, uerr := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", key)
		err = errors.Join(err, uerr)
	}()
	if _, err := conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+quoted); err != nil {
		return 0, fmt.Errorf("create schema: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, fsys, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return 0, fmt.Errorf("read version: %w", err)
	}
	if have > want {
		return 0, &NewerError{Schema: schema, Have: have, Want: want}
	}
	// With wal_level=minimal a crash can set goose's sequence back behind its rows: what a sequence gives out shortly
	// after it was made is in no log of the server. The next row would get an id that is taken.
	if _, err := conn.ExecContext(ctx, "SELECT setval(pg_get_serial_sequence('"+goose.DefaultTablename+
		"', 'id'), max(id)) FROM "+goose.DefaultTablename); err != nil {
		return 0, fmt.Errorf("set goose's sequence: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return 0, err
	}
	return want, nil
}

// MigrationLock is the advisory lock that a schema is migrated under: who holds it keeps migrations out.
func MigrationLock(schema string) int64 { return lockKey(schema) }

func lockKey(schema string) int64 {
	h := fnv.New64a()
	h.Write([]byte("heliograph/migrate/" + schema))
	return int64(h.Sum64())
}

// oneLine is an error whose text is one line: pgx gives each address that it tried a line of its own.
type oneLine struct{ error }

func (e oneLine) Error() string {
	return strings.NewReplacer(":\n\t", ": ", "\n\t", "; ").Replace(e.error.Error())
}

func (e oneLine) Unwrap() error { return e.error }
