package history

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"heliograph/schemas/topic"
)

// The states of a Building, as they are stored.
const (
	Live    = "live"
	Retired = "retired" // it was live, and is kept
)

// Building is which building of the history a database holds.
type Building struct {
	Number uint32
	State  string
	Until  string
	Since  time.Time // of the state
}

func (r *Building) scan(into func(...any) error) error {
	return into(&r.Number, &r.State, &r.Until, &r.Since)
}

// Switching is a change of buildings that is under way.
type Switching struct {
	Open   bool
	Beside string // the database of the building that comes
	Number uint32 // its number
	Leaves uint32 // that of the one that goes
	// Tables are exchanged one after the other; Was and Becomes are what identifies each before and after.
	Tables       []string
	Was, Becomes []uuid.UUID
	Since        time.Time
}

func (r *Switching) scan(into func(...any) error) error {
	return into(&r.Open, &r.Beside, &r.Number, &r.Leaves, &r.Tables, &r.Was, &r.Becomes, &r.Since)
}

// End is how far a topic of a slot was taken in, and how far at most.
type End struct {
	Topic topic.Topic
	Slot  topic.Slot
	Done  topic.Position // everything before it was
	Begun topic.Position // nothing behind it was; not less than Done
}

func (r *End) scan(into func(...any) error) error {
	return scanTopic(into, &r.Topic, (*int32)(&r.Slot), (*int64)(&r.Done), (*int64)(&r.Begun))
}

const (
	sqlBuilding  = `SELECT number, toString(state), until, since FROM generation FINAL`
	sqlSwitching = `SELECT open, beside, number, leaves, tables, was, becomes, written FROM switching FINAL`
	sqlEnds      = `
SELECT topic, slot, maxIf(next, state = 'done'), max(next) FROM positions
 WHERE generation = (` + sqlGeneration + `) GROUP BY topic, slot`
	sqlIdentities = `
SELECT name, uuid FROM system.tables
 WHERE database = ? AND endsWith(engine, 'MergeTree') ORDER BY name`
)

// Building returns which building of the history the database holds; without a word of its own it is the first one, and
// live.
func (h *History) Building(ctx context.Context) (Building, error) {
	r, ok, err := one[Building](ctx, h, "generation", sqlBuilding)
	if !ok {
		r = Building{Number: 1, State: Live}
	}
	return r, err
}

// Switching returns the change of buildings that is under way, or was last.
func (h *History) Switching(ctx context.Context) (Switching, error) {
	r, _, err := one[Switching](ctx, h, "switching", sqlSwitching)
	return r, err
}

// Ends returns how far each topic of each slot was taken in, in the latest generation.
func (h *History) Ends(ctx context.Context) ([]End, error) {
	return all[End](ctx, h, "positions", sqlEnds)
}

// Identities returns what identifies each table of a database, whatever it is named.
func (h *History) Identities(ctx context.Context, database string) (map[string]uuid.UUID, error) {
	rows, err := h.conn.Query(ctx, sqlIdentities, database)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error comes by rows.Err
	out := map[string]uuid.UUID{}
	for rows.Next() {
		var name string
		var is uuid.UUID
		if err := rows.Scan(&name, &is); err != nil {
			return nil, fmt.Errorf("scan tables: %w", err)
		}
		out[name] = is
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	return out, nil
}
