package session

import (
	"context"
	"errors"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// slowStore answers when it is let.
type slowStore struct {
	Queries
	asked, let chan struct{}
}

func (s slowStore) UserExists(context.Context, id.UserID) (bool, error) {
	s.asked <- struct{}{}
	<-s.let
	return true, nil
}

func (s slowStore) ListDevices(context.Context, id.UserID) (*wirev1.Devices, error) {
	s.asked <- struct{}{}
	<-s.let
	return nil, nil
}

// TestTwoRequestsOfAConnectionAreWithAStore: of whatever kind; a third waits for its turn, and no longer than its time.
func TestTwoRequestsOfAConnectionAreWithAStore(t *testing.T) {
	store := slowStore{asked: make(chan struct{}, 9), let: make(chan struct{})}
	a := newAsking(store)
	done := make(chan error, 9)
	for range 3 {
		go func() { _, err := a.UserExists(t.Context(), id.UserID{}); done <- err }()
		go func() { _, err := a.ListDevices(t.Context(), id.UserID{}); done <- err }()
	}
	<-store.asked
	<-store.asked
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.UserExists(ended, id.UserID{}); !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
		t.Errorf("a third one: got %v, want that it waits", err)
	}
	if n := len(store.asked); n != 0 {
		t.Errorf("%d more requests are with the store", n)
	}
	close(store.let)
	for range 6 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
