package session

import (
	"testing"

	wirev1 "heliograph/schemas/wire/v1"
)

// A device at rest says that nothing has moved, every few seconds: what judges moves is not kept for that.
func TestAKeepAliveKeepsNothing(t *testing.T) {
	s := &Session{srv: &Server{}}
	nothing := &wirev1.Watermarks{}
	if n := testing.AllocsPerRun(100, func() { s.watermarks(t.Context(), 0, nothing) }); n > 1 {
		t.Errorf("a keep-alive makes %v objects", n)
	}
	if s.moves != nil {
		t.Error("a rate of watermarks is kept for a device that moves none")
	}
}
