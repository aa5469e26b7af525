package generation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"heliograph/infra/postgres"
	"heliograph/infra/run"
	"heliograph/infra/views"
)

const (
	// Whoever comes while the switch waits for a lock waits behind it, at first no longer than this. It grows, because
	// the server's own vacuum gives way only after a second (deadlock_timeout).
	lockLeast, lockMost = 100 * time.Millisecond, 3 * time.Second
	// settleMost is how long the live view's writers are held back while what is built catches up with them.
	settleMost = 2 * time.Second
	// switchMost bounds one attempt.
	switchMost = 30 * time.Second
)

// readersMost is how long the switch waits for the snapshots of others.
var readersMost = 300 * time.Millisecond

// waits is called each time that the switch waits for others. For tests.
var waits = func() {}

// Switch implements Store, in one transaction. While others hold the tables it tries again.
func (p *Postgres) Switch(ctx context.Context, to Generation, _ func()) error {
	all, err := p.Generations(ctx)
	if err != nil {
		return err
	}
	var from Generation
	for _, g := range all {
		if g.State == Live {
			from = g
		}
	}
	tables, err := p.tables(ctx, p.cfg.Schema)
	if err != nil {
		return err
	}
	back := run.Backoff{Min: 200 * time.Millisecond, Max: 2 * time.Second}
	for try := 0; ; try++ {
		wait := min(lockLeast<<min(try, 10), lockMost)
		// Once it is begun nobody calls it off: whether it was made must be known.
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), switchMost)
		err := p.exchange(once, from, to, tables, wait)
		cancel()
		if err == nil || errors.Is(err, ErrBehind) {
			return err
		}
		if !gaveWay(err) {
			if p.switched(ctx, to) {
				return nil
			}
			return fmt.Errorf("switch to schema %s: %w", to.Place, err)
		}
		waits()
		if try%5 == 2 {
			p.cfg.Logger.Warn("the switch waits for others that hold the live tables",
				"tries", try+1, "by", p.holders(ctx), "err", err)
		}
		if err := back.Wait(ctx); err != nil {
			return err
		}
	}
}

// switched tells whether a generation is live after all, when the server did not say so.
func (p *Postgres) switched(ctx context.Context, to Generation) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), switchMost)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, p.conn.Config())
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is written on it
	var now views.Generation
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		now, _, err = views.GenerationOf(ctx, tx, p.cfg.Schema)
		return err
	})
	return err == nil && now.Number == to.Number
}

// gaveWay tells whether a lock was not to be had.
func gaveWay(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01") || errors.Is(err, errMigrating)
}

// errMigrating says that somebody migrates one of the schemas.
var errMigrating = errors.New("a schema is being migrated")

func (p *Postgres) exchange(ctx context.Context, from, to Generation, tables []string, wait time.Duration) error {
	live := p.cfg.Schema
	retired := fmt.Sprintf("%s_g%d", live, from.Number)
	quote := func(schema string, more ...string) string {
		return pgx.Identifier(append([]string{schema}, more...)).Sanitize()
	}
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		do := func(sql string, args ...any) error { _, err := tx.Exec(ctx, sql, args...); return err }
		if err := do(fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds())); err != nil {
			return err
		}
		for _, schema := range []string{live, to.Place} {
			var got bool
			err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", postgres.MigrationLock(schema)).Scan(&got)
			if err != nil {
				return err
			}
			if !got {
				return errMigrating
			}
		}
		// The live one's writers have ended what they were at, and come no further. Those of a version that does not
		// hold the generation stop at the positions.
		if err := do("LOCK TABLE " + quote(live, "generation") + " IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		if err := do("LOCK TABLE " + quote(live, "positions") + " IN EXCLUSIVE MODE"); err != nil {
			return err
		}
		for deadline := time.Now().Add(settleMost); ; {
			behind, err := views.Behind(ctx, tx, to.Place, live)
			if err != nil {
				return err
			}
			if behind == 0 {
				break
			}
			if time.Now().After(deadline) || !run.Sleep(ctx, 5*time.Millisecond) {
				return fmt.Errorf("%w: in %d partitions of topics", ErrBehind, behind)
			}
		}
		if err := settled(ctx, tx); err != nil {
			return err
		}
		// Now nobody fills what is to be live, and nobody is in the middle of anything in what is.
		if err := do("LOCK TABLE " + quote(to.Place, "generation") + ", " + quote(to.Place, "positions") +
			" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		if err := do("LOCK TABLE " + strings.Join(tables, ", ") + " IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		for _, g := range []struct {
			schema, state string
			number        int
		}{{live, Retired, from.Number}, {to.Place, Live, to.Number}} {
			err := do("UPDATE "+quote(g.schema, "generation")+" SET state = $1, number = $2, since = now()",
				g.state, g.number)
			if err != nil {
				return err
			}
		}
		if err := do("ALTER SCHEMA " + quote(live) + " RENAME TO " + quote(retired)); err != nil {
			return err
		}
		return do("ALTER SCHEMA " + quote(to.Place) + " RENAME TO " + quote(live))
	})
}

// settled waits until those are gone who have a snapshot of the database from before what is built had caught up: one
// of them that is about to touch its first table would read the new tables as they were then, behind what it may have
// read in the old ones. Who has not done that within a moment is at something else.
func settled(ctx context.Context, tx pgx.Tx) error {
	var pids []int32
	var begun []time.Time
	const others = `
		SELECT coalesce(array_agg(pid), '{}'), coalesce(array_agg(xact_start), '{}') FROM pg_stat_activity
		 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
		   AND backend_xmin IS NOT NULL AND xact_start IS NOT NULL AND wait_event_type IS DISTINCT FROM 'Lock'`
	if err := tx.QueryRow(ctx, others).Scan(&pids, &begun); err != nil {
		return err
	}
	for deadline := time.Now().Add(readersMost); len(pids) > 0 && time.Now().Before(deadline); {
		waits()
		if !run.Sleep(ctx, 2*time.Millisecond) {
			return ctx.Err()
		}
		if _, err := tx.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, others+` AND (pid, xact_start) IN (SELECT * FROM unnest($1::int[], $2::timestamptz[]))`,
			pids, begun).Scan(&pids, &begun)
		if err != nil {
			return err
		}
	}
	return nil
}

// holders names who has held tables of the live schema for longest.
func (p *Postgres) holders(ctx context.Context) string {
	rows, err := p.conn.Query(ctx, `
		SELECT format('%s (server process %s, for %s s)', a.application_name, a.pid,
		       extract(epoch FROM now() - min(a.xact_start))::bigint)
		  FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
		 WHERE c.relnamespace = quote_ident($1)::regnamespace AND l.granted AND a.pid <> pg_backend_pid()
		 GROUP BY a.pid, a.application_name ORDER BY min(a.xact_start) LIMIT 3`, p.cfg.Schema)
	if err != nil {
		return ""
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) == 0 {
		return "nobody any more"
	}
	return strings.Join(names, ", ")
}
