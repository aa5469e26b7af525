package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"heliograph/infra/run"
)

// LockExpiry is the age at which the migration lock of a program that does not renew it, as earlier ones did not,
// counts as left behind. A migration must be done by then, and is cancelled if it is not. Ours is renewed and counts as
// left behind when it was not for renewedExpiry.
const (
	LockExpiry    = 2 * time.Minute
	renewedExpiry = 15 * time.Second
	renewEvery    = 3 * time.Second
)

// lockTable is the lock that migrations are made under.
const lockTable = "schema_migrations_lock"

// renewed is the comment of a lock that its holder renews.
const renewed = "renewed while it is held"

// NewerError says that a database was migrated by a later program; this one must not touch it.
type NewerError struct {
	Database string
	Have     int64 // the database's version
	Want     int64 // the program's
}

// Error names the database, both versions and what mends it.
func (e *NewerError) Error() string {
	return fmt.Sprintf(
		"clickhouse: database %s is at version %d, newer than this program's %d: "+
			"run the later program, or rebuild the view from the log",
		e.Database, e.Have, e.Want,
	)
}

// ErrEdited is wrapped when a migration is not the one that was applied under its number.
var ErrEdited = errors.New("migration was edited after it was applied")

type migration struct {
	version    int64
	name       string
	sum        string
	min        string // the oldest server version that takes it; empty: any
	statements []string
}

// Migrate brings the database, created when it is missing, to the last migration in fsys (files NNNNN_name.sql of
// repeatable statements, unqualified names) and returns the version. Processes that migrate at the same time wait for
// one another. A file whose first line is "-- min-version: X.Y" is passed over by an older server, with a log line, and
// applied by the first Migrate after the server was upgraded.
func Migrate(ctx context.Context, c Config, fsys fs.FS) (int64, error) {
	ms, err := readMigrations(fsys)
	if err != nil {
		return 0, err
	}
	version, err := migrate(ctx, c, ms)
	if err != nil {
		return 0, fmt.Errorf("clickhouse: migrate database %s: %w", c.database(), err)
	}
	return version, nil
}

// Drop removes the database with all that is in it; it is no error when there is none.
func Drop(ctx context.Context, c Config) error {
	first := c
	first.Registerer, first.Database = nil, "default"
	conn, err := Open(first)
	if err == nil {
		err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(c.database())+" SYNC")
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return fmt.Errorf("clickhouse: drop database %s: %w", c.database(), err)
	}
	return nil
}

func migrate(ctx context.Context, c Config, ms []migration) (int64, error) {
	c.Registerer = nil
	db := quote(c.database())
	first := c
	first.Database = "default"
	boot, err := Open(first)
	if err != nil {
		return 0, err
	}
	err = boot.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+db)
	err = errors.Join(err, boot.Close())
	if err != nil {
		return 0, fmt.Errorf("create database: %w", err)
	}
	conn, err := Open(c)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version Int64, name String, sum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
	) ENGINE = MergeTree ORDER BY version`); err != nil {
		return 0, fmt.Errorf("create schema_migrations: %w", err)
	}
	want := int64(0)
	if len(ms) > 0 {
		want = ms[len(ms)-1].version
	}
	if ms, err = fitting(ctx, conn, c, ms); err != nil {
		return 0, err
	}
	todo, err := pending(ctx, conn, c.database(), ms, want)
	if err != nil || len(todo) == 0 {
		return want, err
	}
	unlock, err := lock(ctx, conn, c, lockTable)
	if err != nil {
		return 0, err
	}
	err = func() error {
		ctx, cancel := context.WithTimeout(ctx, LockExpiry-10*time.Second)
		defer cancel()
		todo, err := pending(ctx, conn, c.database(), ms, want) // again, now that nobody else can be at it
		if err != nil {
			return err
		}
		for _, m := range todo {
			for i, s := range m.statements {
				if err := conn.Exec(ctx, s); err != nil {
					return fmt.Errorf("%s, statement %d: %w", m.name, i+1, err)
				}
			}
			if err := conn.Exec(ctx, "INSERT INTO schema_migrations (version, name, sum) SELECT "+
				strconv.FormatInt(m.version, 10)+", "+text(m.name)+", "+text(m.sum)); err != nil {
				return fmt.Errorf("%s: record it: %w", m.name, err)
			}
		}
		return nil
	}()
	if err := errors.Join(err, unlock()); err != nil {
		return 0, err
	}
	return want, nil
}

// pending returns the migrations that are still to be applied.
func pending(ctx context.Context, conn driver.Conn, database string, ms []migration, want int64) ([]migration, error) {
	rows, err := conn.Query(
		ctx, "SELECT version, any(name), any(sum) FROM schema_migrations GROUP BY version ORDER BY version",
	)
	if err != nil {
		return nil, fmt.Errorf("read version: %w", err)
	}
	defer rows.Close()
	applied := make(map[int64]string)
	for rows.Next() {
		var v int64
		var name, sum string
		if err := rows.Scan(&v, &name, &sum); err != nil {
			return nil, fmt.Errorf("read version: %w", err)
		}
		if v > want {
			return nil, &NewerError{Database: database, Have: v, Want: want}
		}
		applied[v] = sum
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read version: %w", err)
	}
	var todo []migration
	for _, m := range ms {
		switch sum, ok := applied[m.version]; {
		case !ok:
			todo = append(todo, m)
		case sum != m.sum:
			return nil, fmt.Errorf("%s: %w", m.name, ErrEdited)
		}
	}
	return todo, nil
}

// Lock makes the caller the only one who has the lock of this name in the database, until unlock; when it ends without,
// another may have it after expiry (0: some seconds). It waits for as long as ctx lets it.
func Lock(
	ctx context.Context, conn driver.Conn, c Config, name string, expiry time.Duration,
) (unlock func() error, err error) {
	if expiry > 0 {
		c.lockExpiry = expiry
	}
	return lock(ctx, conn, c, name)
}

// lock creates the lock table; that succeeds for one process alone. It is renewed until unlock.
func lock(ctx context.Context, conn driver.Conn, c Config, name string) (unlock func() error, err error) {
	expiry, every := renewedExpiry, renewEvery
	if c.lockExpiry > 0 {
		expiry, every = c.lockExpiry, c.lockExpiry/5
	}
	back := run.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for {
		err := conn.Exec(ctx, "CREATE TABLE "+name+" (x UInt8) ENGINE = Memory COMMENT "+text(renewed))
		if err == nil {
			return held(ctx, conn, name, every), nil
		}
		if !exists(err) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		var stale []string
		old := fmt.Sprintf("SELECT groupArray(toString(uuid)) FROM system.tables WHERE database = %s "+
			"AND name = %s "+
			"AND metadata_modification_time < now() - toIntervalSecond(if(comment = %s, %d, %d))",
			text(c.database()), text(name), text(renewed), int(expiry.Seconds()), int(LockExpiry.Seconds()))
		if err := conn.QueryRow(ctx, old).Scan(&stale); err != nil {
			return nil, fmt.Errorf("lock: read its age: %w", err)
		}
		if len(stale) > 0 {
			// Of two that take over the same lock one gets through: the name is taken until its migration is done.
			err := conn.Exec(ctx, "RENAME TABLE "+name+" TO "+quote(name+"_"+stale[0]))
			var ex *clickhouse.Exception
			switch {
			case err == nil:
				continue
			case exists(err), errors.As(err, &ex) && ex.Code == 60: // another has, and may be done: UNKNOWN_TABLE
			default:
				return nil, fmt.Errorf("lock: take over: %w", err)
			}
		}
		if err := back.Wait(ctx); err != nil {
			return nil, fmt.Errorf("lock: another process has it: %w", err)
		}
	}
}

// held renews the lock until the returned function is called, which gives it up.
func held(ctx context.Context, conn driver.Conn, name string, every time.Duration) (unlock func() error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for run.Sleep(ctx, every) {
			// One that fails is made good by the next, or it is too late and another goes on: statements are
			// repeatable.
			_ = conn.Exec(ctx, "ALTER TABLE "+name+" MODIFY COMMENT "+text(renewed))
		}
	}()
	return func() error {
		stop()
		<-done
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		var left []string
		err := conn.Exec(ctx, "DROP TABLE IF EXISTS "+name)
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() "+
				"AND startsWith(name, "+text(name+"_")+")").Scan(&left)
		}
		for _, old := range left { // locks that were taken over
			err = errors.Join(err, conn.Exec(ctx, "DROP TABLE IF EXISTS "+quote(old)))
		}
		if err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
		return nil
	}
}

// exists tells whether a statement failed because a table of the name is there.
func exists(err error) bool {
	var ex *clickhouse.Exception
	return errors.As(err, &ex) && ex.Code == 57 // TABLE_ALREADY_EXISTS
}

func readMigrations(fsys fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("clickhouse: read migrations: %w", err)
	}
	var out []migration
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".sql" {
			continue
		}
		number, _, ok := strings.Cut(e.Name(), "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || v <= 0 {
			return nil, fmt.Errorf("clickhouse: migration %s is not named NNNNN_name.sql", e.Name())
		}
		raw, err := fs.ReadFile(fsys, e.Name())
		if err != nil {
			return nil, fmt.Errorf("clickhouse: read migration %s: %w", e.Name(), err)
		}
		sum := sha256.Sum256(raw)
		out = append(out, migration{
			version:    v,
			name:       e.Name(),
			sum:        hex.EncodeToString(sum[:]),
			min:        minVersion(string(raw)),
			statements: split(string(raw)),
		})
	}
	slices.SortFunc(out, func(a, b migration) int { return int(a.version - b.version) })
	for i := 1; i < len(out); i++ {
		if out[i].version == out[i-1].version {
			return nil, fmt.Errorf("clickhouse: migrations %s and %s have the same number", out[i-1].name, out[i].name)
		}
	}
	return out, nil
}

// split cuts a file at the semicolons that stand outside of quotes and comments; comments stay in, empty statements go.
func split(src string) []string {
	var out []string
	begin, code := 0, false
	flush := func(end int) {
		if s := strings.TrimSpace(src[begin:end]); code {
			out = append(out, s)
		}
		begin, code = end+1, false
	}
	for i := 0; i < len(src); i++ {
		switch ch := src[i]; {
		case ch == '-' && strings.HasPrefix(src[i:], "--"):
			i = skipTo(src, i, "\n")
		case ch == '/' && strings.HasPrefix(src[i:], "/*"):
			i = skipTo(src, i+2, "*/")
		case ch == '\'' || ch == '"' || ch == '`':
			code = true
			for i++; i < len(src) && src[i] != ch; i++ {
				if src[i] == '\\' {
					i++
				}
			}
		case ch == ';':
			flush(i)
		case ch > ' ':
			code = true
		}
	}
	if begin < len(src) {
		flush(len(src))
	}
	return out
}

// skipTo returns the index of the last byte of the next mark, or of the source.
func skipTo(src string, from int, mark string) int {
	n := strings.Index(src[min(from, len(src)):], mark)
	if n < 0 {
		return len(src)
	}
	return from + n + len(mark) - 1
}

func quote(ident string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(ident) + "`"
}

func text(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
}
