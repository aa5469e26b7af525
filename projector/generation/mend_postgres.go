package generation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/infra/views"
	"heliograph/schemas/topic"
)

// mendMost is how long the live view's writers are held back while one subject is mended.
const mendMost = 20 * time.Second

// ofSubject are the tables that have rows of a thread or a user, and the column that names it. In quarantine a subject
// is either, and the topic counts too.
var ofSubject = map[string][][2]string{
	ThreadSubject: {
		{"threads", "thread_id"}, {"members", "thread_id"}, {"invitations", "thread_id"}, {"messages", "thread_id"},
		{"rejected", "thread_id"}, {"trimmed", "thread_id"}, {"watermarks", "thread_id"},
		{"device_watermarks", "thread_id"}, {tableOfQuarantine, "subject"},
	},
	UserSubject: {
		{"users", "user_id"}, {"devices", "user_id"}, {"contacts", "user_id"}, {"blocks", "user_id"},
		{"user_threads", "user_id"}, {"user_invitations", "user_id"}, {tableOfQuarantine, "subject"},
	},
}

const tableOfQuarantine = "quarantine"

// Reached implements Mender.
func (p *Postgres) Reached(ctx context.Context, slot topic.Slot) (at kafka.Positions, err error) {
	err = pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		at, err = views.Reached(ctx, tx, p.cfg.Schema, slot)
		return err
	})
	return at, err
}

// Mend implements Mender, in one transaction. The live schema stays the generation that it is, under another identity:
// what its projectors have in their caches of what was mended is not written any more.
func (p *Postgres) Mend(
	ctx context.Context, g Generation, s Subject, slot topic.Slot, fill Filling,
) (out []Mended, err error) {
	back := run.Backoff{Min: 200 * time.Millisecond, Max: 2 * time.Second}
	for try := 0; ; try++ {
		once, cancel := context.WithTimeout(ctx, mendMost)
		out, err = p.mend(once, g, s, slot, min(lockLeast<<min(try, 10), lockMost), fill)
		cancel()
		if err == nil || !gaveWay(err) {
			break
		}
		if err := back.Wait(ctx); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mend %v: %w", s, err)
	}
	return out, nil
}

func (p *Postgres) mend(
	ctx context.Context, g Generation, s Subject, slot topic.Slot, wait time.Duration, fill Filling,
) (out []Mended, err error) {
	name := func(schema, table string) string { return pgx.Identifier{schema, table}.Sanitize() }
	live := p.cfg.Schema
	err = pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		do := func(sql string, args ...any) (int64, error) {
			tag, err := tx.Exec(ctx, sql, args...)
			return tag.RowsAffected(), err
		}
		for _, sql := range []string{
			fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds()),
			"LOCK TABLE " + name(live, "generation") + " IN ACCESS EXCLUSIVE MODE",
			"LOCK TABLE " + name(live, "positions") + " IN EXCLUSIVE MODE",
		} {
			if _, err := do(sql); err != nil {
				return err
			}
		}
		at, err := views.Reached(ctx, tx, live, slot)
		if err != nil {
			return err
		}
		if err := fill(ctx, at); err != nil {
			return err
		}
		topics := []int32{}
		for _, t := range s.topics() {
			topics = append(topics, t.Number())
		}
		for _, of := range ofSubject[s.Kind] {
			m := Mended{Table: of[0]}
			columns, err := p.columns(ctx, tx, g.Place, m.Table)
			if err != nil {
				return err
			}
			here, args := of[1]+" = $1", []any{[16]byte(s.ID)}
			if m.Table == tableOfQuarantine {
				here, args = here+" AND topic = ANY ($2)", append(args, topics)
			}
			from := func(schema string) string {
				return "SELECT " + columns + " FROM " + name(schema, m.Table) + " WHERE " + here
			}
			for _, count := range []struct {
				into *int64
				sql  string
			}{
				{&m.Rows, from(g.Place)},
				{&m.Wrong, from(g.Place) + " EXCEPT " + from(live)},
				{&m.Undue, from(live) + " EXCEPT " + from(g.Place)},
			} {
				err := tx.QueryRow(ctx, "SELECT count(*) FROM ("+count.sql+") r", args...).Scan(count.into)
				if err != nil {
					return fmt.Errorf("compare the rows of %s: %w", m.Table, err)
				}
			}
			m.Undue = max(0, m.Undue-m.Wrong) // one that is other than it should be is in both
			out = append(out, m)
			if m.Wrong+m.Undue == 0 {
				continue
			}
			if _, err := do("DELETE FROM "+name(live, m.Table)+" WHERE "+here, args...); err != nil {
				return fmt.Errorf("mend %s: %w", m.Table, err)
			}
			_, err = do("INSERT INTO "+name(live, m.Table)+" ("+columns+") "+from(g.Place), args...)
			if err != nil {
				return fmt.Errorf("mend %s: %w", m.Table, err)
			}
		}
		_, err = do("UPDATE " + name(live, "generation") + " SET id = gen_random_uuid()")
		return err
	})
	return out, err
}

// columns lists those of a table.
func (p *Postgres) columns(ctx context.Context, tx pgx.Tx, schema, table string) (string, error) {
	rows, err := tx.Query(ctx, `
		SELECT quote_ident(attname) FROM pg_attribute
		 WHERE attrelid = (quote_ident($1) || '.' || quote_ident($2))::regclass AND attnum > 0 AND NOT attisdropped
		 ORDER BY attnum`, schema, table)
	if err != nil {
		return "", fmt.Errorf("read the columns of %s: %w", table, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(names, ", "), err
}
