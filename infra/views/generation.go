package views

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"heliograph/schemas/topic"
)

// GenerationID tells one building of the views from every other.
type GenerationID [16]byte

// The states of a Generation, as they are stored.
const (
	Live     = "live"
	Building = "building" // a replay fills it
	AsOf     = "asof"     // a replay fills it up to a place; it can never be live
	Retired  = "retired"  // it was live, and is kept
)

// Generation is which building of the views a schema holds.
type Generation struct {
	ID     GenerationID
	Number int
	State  string
	Until  string    // AsOf: up to where
	Since  time.Time // of the state
}

func (r *Generation) targets() []any {
	return []any{(*key)(&r.ID), &r.Number, &r.State, &r.Until, &r.Since}
}

const sqlGeneration = `SELECT id, number, state, until, since FROM generation`

// Generation asks which building of the views is asked.
func (q *Questions) Generation(fn func(*Generation) error) { put(q, "generation", sqlGeneration, fn) }

// Generation returns which building of the views is asked.
func (v *Views) Generation(ctx context.Context) (Generation, error) {
	r, ok, err := one[Generation](ctx, v, "generation", sqlGeneration)
	if err == nil && !ok {
		err = errors.New("read generation: the schema does not say which it is")
	}
	return r, err
}

// Behind counts the topics and slots in which the views of one schema have got less far than those of another, within
// the caller's transaction.
func Behind(ctx context.Context, tx pgx.Tx, schema, other string) (n int, err error) {
	positions := func(s string) string { return pgx.Identifier{s, "positions"}.Sanitize() }
	err = tx.QueryRow(ctx, `SELECT count(*) FROM `+positions(other)+` o LEFT JOIN `+positions(schema)+
		` p USING (topic, slot) WHERE coalesce(p.next, 0) < o.next`).Scan(&n)
	if err != nil {
		err = fmt.Errorf("read how far %s is behind %s: %w", schema, other, err)
	}
	return n, err
}

// GenerationOf returns which building of the views a schema holds; ok is false where it does not say.
func GenerationOf(ctx context.Context, tx pgx.Tx, schema string) (r Generation, ok bool, err error) {
	table := pgx.Identifier{schema, "generation"}.Sanitize()
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&there); err != nil || !there {
		return r, false, err
	}
	rows, err := tx.Query(ctx, `SELECT id, number, state, until, since FROM `+table)
	if err == nil {
		what := "generation of " + schema
		err = forEach[Generation](what, rows, func(g *Generation) error { r, ok = *g, true; return nil })
	}
	return r, ok, err
}

// Reached returns how far the views of a schema have taken in a slot, within the caller's transaction.
func Reached(ctx context.Context, tx pgx.Tx, schema string, slot topic.Slot) (map[topic.Topic]topic.Position, error) {
	rows, err := tx.Query(ctx, `SELECT `+columnsFreshness+` FROM `+pgx.Identifier{schema, "positions"}.Sanitize()+
		` WHERE slot = $1`, int32(slot))
	if err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", schema, err)
	}
	out := map[topic.Topic]topic.Position{}
	what := "positions of " + schema
	err = forEach[Freshness](what, rows, func(f *Freshness) error { out[f.Topic] = f.Next; return nil })
	return out, err
}
