package history

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// GenerationError says that the history is of a later generation than its projector: its positions are those of a
// rebuild, and what an earlier generation had taken in means nothing for it.
type GenerationError struct {
	Have uint32 // the history's
	Want uint32 // the projector's
}

// Error names both and what mends it.
func (e *GenerationError) Error() string {
	return fmt.Sprintf(
		"the history has been rebuilt as generation %d, and this projector is of generation %d: give all of its projectors the same",
		e.Have, e.Want,
	)
}

// CheckGeneration returns a *GenerationError when the history is of a later generation than want. An earlier one is no
// error: the projector that comes first with a higher generation begins the rebuild.
func CheckGeneration(ctx context.Context, conn driver.Conn, want uint32) error {
	have, err := Generation(ctx, conn)
	if err == nil && have > want {
		err = &GenerationError{Have: have, Want: want}
	}
	return err
}

// Generation returns the generation of the history: the latest that anything was taken in under, 0 before that.
func Generation(ctx context.Context, conn driver.Conn) (uint32, error) {
	var have uint32
	if err := conn.QueryRow(ctx, "SELECT max(generation) FROM positions").Scan(&have); err != nil {
		return 0, fmt.Errorf("read generation: %w", err)
	}
	return have, nil
}
