package generation

import (
	"context"
	"fmt"
	"time"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/projector/verify"
)

// The states of a Generation.
const (
	Live     = "live"
	Building = "building"
	AsOf     = "asof"
	Retired  = "retired"
)

// Generation is one building of a view.
type Generation struct {
	Number int       `json:"generation"`
	State  string    `json:"state"`
	Until  string    `json:"until,omitempty"` // AsOf: up to where
	Since  time.Time `json:"since"`           // of the state
	Place  string    `json:"place"`           // the schema or database that holds it
	Bytes  int64     `json:"bytes"`
}

// Store holds the generations of one view. One goroutine calls it.
type Store interface {
	// View names the view.
	View() string
	// Generations lists all of them, by number. Exactly one is live.
	Generations(ctx context.Context) ([]Generation, error)
	// Prepare makes the place of a generation, or brings it up to this version, and marks what is not Retired as g
	// says. It may be called again.
	Prepare(ctx context.Context, g Generation) (Generation, error)
	// Sink writes into a generation that is not live; done releases it. log brings what leaves quarantine again.
	Sink(
		ctx context.Context, g Generation, from kafka.ConsumerConfig, log projector.Log,
	) (sink kafka.Sink, done func(), err error)
	// Settle is called when a generation has caught up, before it is compared and switched to.
	Settle(ctx context.Context, g Generation, sink kafka.Sink) error
	// Verify compares a generation with a fold of the log.
	Verify(ctx context.Context, g Generation, cfg verify.Config) (*verify.Report, error)
	// Tune says how the generation is best filled.
	Tune(cfg *kafka.ConsumerConfig)
	// Switch makes a generation live and retires the one that was, while the generation is being filled; stop ends that
	// and waits for it, and a store that needs it still calls it once it has caught up. It returns ErrBehind when it
	// does not catch up with the live one; it is then filled on.
	Switch(ctx context.Context, to Generation, stop func()) error
	// Finished is the generation that was made live when the store was opened, because who had begun that was killed
	// in the middle of it; Number 0: there was none.
	Finished() Generation
	// Drop removes a generation that is not live.
	Drop(ctx context.Context, g Generation) error
}

// BusyError says that another replay of the view is under way.
type BusyError struct {
	View string
	By   string // who, as far as the store knows
}

// Error names who.
func (e *BusyError) Error() string {
	return fmt.Sprintf("another replay of the %s is under way (%s); it goes on alone", e.View, e.By)
}

// LiveError says that there is no live generation to switch from.
type LiveError struct{ Place string }

// Error names where it should be.
func (e *LiveError) Error() string {
	return fmt.Sprintf("there is no live generation in %s: start a projector first, which makes it", e.Place)
}
