package history

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"heliograph/infra/history"
)

// GenerationError says that the history is of a later generation than its projector: its positions are those of a
// rebuild, and what an earlier generation had taken in means nothing for it.
type GenerationError struct {
	Have uint32 // the history's
	Want uint32 // the projector's
}

// Error names both and what mends it.
func (e *GenerationError) Error() string {
	return fmt.Sprintf("the history has been rebuilt as generation %d, and this projector is of generation %d: "+
		"give all of its projectors the same", e.Have, e.Want)
}

// CheckGeneration returns a *GenerationError when the history is of a later generation than want. An earlier one is no
// error: the projector that comes first with a higher generation begins the rebuild.
func CheckGeneration(ctx context.Context, conn driver.Conn, want uint32) error {
	have, err := history.New(conn).Generation(ctx)
	if err == nil && have > want {
		err = &GenerationError{Have: have, Want: want}
	}
	return err
}
