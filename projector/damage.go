package projector

import "fmt"

// DamagedError says that a view's own store found what it keeps damaged on its disk: no retry mends it, and the log has
// all of it.
type DamagedError struct {
	View    string // for people
	Command string // what rebuilds the view
	Err     error
}

// Error names the view and what mends it, in one line.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("the %s are damaged on the disk: '%s' rebuilds them from the log, beside these: %v",
		e.View, e.Command, e.Err)
}

// Unwrap returns the store's own error.
func (e *DamagedError) Unwrap() error { return e.Err }
