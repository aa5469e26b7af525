package thread

import (
	"sync/atomic"

	eventv1 "heliograph/schemas/event/v1"
)

// trip is called after each event that a State has applied; nil but in tests.
var trip atomic.Pointer[func(*eventv1.Event)]

// Trip is for tests of those who fold: fn is called after each event that any State has applied, and may panic as a
// broken fold would, when the state has changed and the verdict is not out. nil ends it.
func Trip(fn func(*eventv1.Event)) {
	if fn == nil {
		trip.Store(nil)
		return
	}
	trip.Store(&fn)
}
