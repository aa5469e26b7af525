package generation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	"heliograph/infra/views"
	"heliograph/projector"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	pgschema "heliograph/schemas/postgres"
)

// PostgresConfig says where the thread views are.
type PostgresConfig struct {
	Postgres  postgres.Config // its search_path is set here
	Schema    string          // of the live generation; default views
	Retention time.Duration   // as the projectors have it
	Logger    *slog.Logger
	// Look: only to list, and to reckon; others may replay meanwhile.
	Look bool
}

// Postgres holds the generations of the thread views. It has the right to replay them alone, until Close.
type Postgres struct {
	cfg  PostgresConfig
	name *regexp.Regexp // of a schema beside the live one
	conn *pgx.Conn      // holds the lock; the switch is made on it, so that none is made without
}

// OpenPostgres takes the right to replay the thread views, or returns a *BusyError. The caller closes.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	run.Default(&cfg.Schema, pgschema.ViewsSchema)
	run.Default(&cfg.Logger, slog.New(slog.DiscardHandler))
	run.Default(&cfg.Retention, threads.DefaultRetention)
	pool, err := postgres.Open(ctx, postgres.Config{URL: cfg.Postgres.URL, Name: "helio replay", MaxConns: 1})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	c, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: connect: %w", err)
	}
	p := &Postgres{
		cfg: cfg, conn: c.Hijack(), name: regexp.MustCompile("^" + regexp.QuoteMeta(cfg.Schema) + "_g([0-9]+)$"),
	}
	if !cfg.Look {
		if err := p.take(ctx); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Beside tells whether the name of a schema or a database is that of a generation beside a live one: no role is given
// it.
func Beside(name string) bool { return besideName.MatchString(name) }

var besideName = regexp.MustCompile("_g[0-9]+$")

// Close gives the right back.
func (p *Postgres) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // the server frees the lock when it sees the connection gone
}

// lockWait is how long a replay that was killed may still seem to run.
const lockWait = 3 * time.Second

func (p *Postgres) take(ctx context.Context) error {
	h := fnv.New64a()
	h.Write([]byte("heliograph/replay/" + p.cfg.Schema))
	key := int64(h.Sum64())
	for deadline := time.Now().Add(lockWait); ; {
		var got bool
		if err := p.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&got); err != nil {
			return fmt.Errorf("lock the replay of %s: %w", p.cfg.Schema, err)
		}
		if got {
			return nil
		}
		if time.Now().After(deadline) || !run.Sleep(ctx, 100*time.Millisecond) {
			return &BusyError{p.View(), p.holder(ctx, key)}
		}
	}
}

func (p *Postgres) holder(ctx context.Context, key int64) string {
	var pid int32
	var client string
	var since time.Time
	err := p.conn.QueryRow(ctx, `
		SELECT a.pid, coalesce(host(a.client_addr), 'this machine'), a.backend_start
		  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = (
		       SELECT oid FROM pg_database WHERE datname = current_database())
		   AND (l.classid::bigint << 32 | l.objid::bigint) = $1`, key).Scan(&pid, &client, &since)
	if err != nil {
		return "it has the lock"
	}
	return fmt.Sprintf("from %s since %s, server process %d", client, since.UTC().Format(time.RFC3339), pid)
}

// View implements Store.
func (p *Postgres) View() string { return "thread views" }

// Generations implements Store.
func (p *Postgres) Generations(ctx context.Context) ([]Generation, error) {
	var out []Generation
	err := pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT n.nspname, coalesce((
			       SELECT sum(pg_table_size(c.oid) + pg_indexes_size(c.oid)) FROM pg_class c
			        WHERE c.relnamespace = n.oid AND c.relkind = 'r'), 0)::bigint
			  FROM pg_namespace n WHERE n.nspname = $1 OR starts_with(n.nspname, $1 || '_g')`, p.cfg.Schema)
		if err != nil {
			return err
		}
		schemas, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
			Name  string
			Bytes int64
		}])
		if err != nil {
			return err
		}
		for _, s := range schemas {
			g := Generation{Number: 1, Place: s.Name, Bytes: s.Bytes, State: Building}
			m := p.name.FindStringSubmatch(s.Name)
			if m == nil && s.Name != p.cfg.Schema {
				continue
			}
			if m != nil {
				g.Number, _ = strconv.Atoi(m[1])
			}
			is, ok, err := views.GenerationOf(ctx, tx, s.Name)
			switch {
			case err != nil:
				return err
			case m == nil && ok: // the live one is the one that has the name
				g.Number, g.State, g.Since = is.Number, Live, is.Since
			case m == nil:
				g.State = Live // of a version that had no generations
			case ok && is.State != views.Live: // else a replay was killed before it could say what it makes
				g.State, g.Until, g.Since = is.State, is.Until, is.Since
			}
			out = append(out, g)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the generations of the thread views: %w", err)
	}
	slices.SortFunc(out, func(a, b Generation) int { return cmp.Compare(a.Number, b.Number) })
	if !slices.ContainsFunc(out, func(g Generation) bool { return g.State == Live }) {
		return nil, &LiveError{"schema " + p.cfg.Schema}
	}
	return out, nil
}

// Prepare implements Store: it brings the live schema to this version too, since both are compared and exchanged.
func (p *Postgres) Prepare(ctx context.Context, g Generation) (Generation, error) {
	if g.Place == "" {
		g.Place = fmt.Sprintf("%s_g%d", p.cfg.Schema, g.Number)
	}
	if err := p.owned(ctx); err != nil {
		return g, err
	}
	files, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		return g, fmt.Errorf("migrations of the views: %w", err)
	}
	for _, schema := range []string{p.cfg.Schema, g.Place} {
		if _, err := postgres.Migrate(ctx, p.cfg.Postgres.URL, files, schema); err != nil {
			return g, err
		}
	}
	g.Since = time.Now().UTC()
	table := pgx.Identifier{g.Place, "generation"}.Sanitize()
	err = pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		if g.State != Retired {
			_, err := tx.Exec(ctx, `UPDATE `+table+` SET number = $1, state = $2, until = $3, since = $4
				 WHERE state = 'live'`, g.Number, g.State, g.Until, g.Since)
			if err != nil {
				return err
			}
		}
		return p.grant(ctx, tx, g.Place)
	})
	if err != nil {
		return g, fmt.Errorf("prepare schema %s: %w", g.Place, err)
	}
	p.warnOfReaders(ctx)
	return g, nil
}

// owned refuses a user to whom the live schema does not belong: what it makes would not belong to the projectors' user.
func (p *Postgres) owned(ctx context.Context) error {
	var owner, me string
	err := p.conn.QueryRow(ctx, `
		SELECT pg_get_userbyid(nspowner), current_user FROM pg_namespace WHERE nspname = $1`, p.cfg.Schema,
	).Scan(&owner, &me)
	if err != nil {
		return fmt.Errorf("read whose schema %s is: %w", p.cfg.Schema, err)
	}
	if owner != me {
		return fmt.Errorf("schema %s belongs to %s and not to %s: replay as the user of the projectors",
			p.cfg.Schema, owner, me)
	}
	return nil
}

// grant gives whoever may use the live schema the same rights on another.
func (p *Postgres) grant(ctx context.Context, tx pgx.Tx, schema string) error {
	rows, err := tx.Query(ctx, `
		SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, what.name,
		       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
		       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
		  FROM (
		       SELECT 'SCHEMA ' || quote_ident($2) AS name, nspacl AS acl, nspowner AS owner FROM pg_namespace
		        WHERE nspname = $1
		        UNION ALL
		       SELECT 'TABLE ' || quote_ident($2) || '.' || quote_ident(relname), relacl, relowner FROM pg_class
		        WHERE relnamespace = quote_ident($1)::regnamespace AND relkind IN ('r', 'p')
		          AND to_regclass(quote_ident($2) || '.' || quote_ident(relname)) IS NOT NULL
		       ) what, aclexplode(what.acl) a
		 WHERE a.grantee <> what.owner`, p.cfg.Schema, schema)
	if err != nil {
		return err
	}
	grants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, sql := range grants {
		if err == nil {
			_, err = tx.Exec(ctx, sql)
		}
	}
	return err
}

// readers names the views outside of a schema that read its tables.
func (p *Postgres) readers(ctx context.Context, schema string) ([]string, error) {
	rows, err := p.conn.Query(ctx, `
		SELECT DISTINCT v.oid::regclass::text
		  FROM pg_depend d
		  JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
		  JOIN pg_class v ON v.oid = r.ev_class
		  JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
		 WHERE t.relnamespace = quote_ident($1)::regnamespace AND v.relnamespace <> t.relnamespace`, schema)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (p *Postgres) warnOfReaders(ctx context.Context) {
	names, err := p.readers(ctx, p.cfg.Schema)
	if err == nil && len(names) > 0 {
		p.cfg.Logger.Warn("views outside of the schema go on reading the retired tables after a switch: make them anew",
			"schema", p.cfg.Schema, "views", strings.Join(names, ", "))
	}
}

// pool opens connections to a generation. The caller closes it.
func (p *Postgres) pool(ctx context.Context, schema, name string, conns int32) (*pgxpool.Pool, error) {
	c := p.cfg.Postgres
	c.Name, c.MaxConns = name, conns
	c.Params = map[string]string{"search_path": pgx.Identifier{schema}.Sanitize(), "synchronous_commit": "off"}
	return postgres.Open(ctx, c)
}

// fillConns is how many connections fill a generation at most.
const fillConns = 16

// Sink implements Store.
func (p *Postgres) Sink(
	ctx context.Context, g Generation, from kafka.ConsumerConfig, log projector.Log,
) (kafka.Sink, func(), error) {
	pool, err := p.pool(ctx, g.Place, "helio replay", int32(min(from.Partitions, fillConns)+1))
	if err != nil {
		return nil, nil, err
	}
	cfg := threads.Config{Consumer: from, Retention: p.cfg.Retention, Beside: true, Log: log}
	return threads.NewSink(cfg, pool, p.cfg.Logger, nil), pool.Close, nil
}

// Tune implements Store.
func (p *Postgres) Tune(*kafka.ConsumerConfig) {}

// Finished implements Store: a transaction is made or not.
func (p *Postgres) Finished() Generation { return Generation{} }

// Settle implements Store: it trims what the tail does not keep, and has the server count the rows.
func (p *Postgres) Settle(ctx context.Context, g Generation, sink kafka.Sink) error {
	if s, ok := sink.(*threads.Sink); ok {
		if err := s.Trim(ctx); err != nil {
			return err
		}
	}
	tables, err := p.tables(ctx, g.Place)
	if err != nil {
		return err
	}
	if _, err := p.conn.Exec(ctx, `ANALYZE `+strings.Join(tables, ", ")); err != nil {
		return fmt.Errorf("count the rows of %s: %w", g.Place, err)
	}
	return nil
}

// tables names those of a schema: first what writers hold first.
func (p *Postgres) tables(ctx context.Context, schema string) ([]string, error) {
	rows, err := p.conn.Query(ctx, `
		SELECT format('%I.%I', $1::text, relname) FROM pg_class
		 WHERE relnamespace = quote_ident($1)::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
		 ORDER BY relname <> 'generation', relname <> 'positions', relname`, schema)
	if err != nil {
		return nil, fmt.Errorf("list the tables of %s: %w", schema, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Verify implements Store.
func (p *Postgres) Verify(ctx context.Context, g Generation, cfg verify.Config) (*verify.Report, error) {
	pool, err := p.pool(ctx, g.Place, "helio replay", 2)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	cfg.Retention = p.cfg.Retention
	return verify.Threads(ctx, cfg, pool)
}

// Drop implements Store. It refuses while others' views read the tables.
func (p *Postgres) Drop(ctx context.Context, g Generation) error {
	if g.State == Live || g.Place == p.cfg.Schema {
		return errors.New("the live generation is not dropped")
	}
	names, err := p.readers(ctx, g.Place)
	if err != nil {
		return fmt.Errorf("read who reads %s: %w", g.Place, err)
	}
	if len(names) > 0 {
		return fmt.Errorf("views outside of schema %s read its tables, and would go with it: make them anew or drop "+
			"them first: %s", g.Place, strings.Join(names, ", "))
	}
	if _, err := p.conn.Exec(ctx, `DROP SCHEMA `+pgx.Identifier{g.Place}.Sanitize()+` CASCADE`); err != nil {
		return fmt.Errorf("drop schema %s: %w", g.Place, err)
	}
	return nil
}
