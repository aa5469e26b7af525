package views

import (
	"context"
	"errors"
	"time"
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
