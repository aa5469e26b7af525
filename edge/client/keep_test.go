package client

import (
	"sync"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// slowStore stores the first watermark late.
type slowStore struct {
	*MemoryStore
	once    sync.Once
	begun   chan struct{}
	release chan struct{}
}

func (s *slowStore) SetWatermark(t id.ThreadID, w thread.Watermark) error {
	s.once.Do(func() { close(s.begun); <-s.release })
	return s.MemoryStore.SetWatermark(t, w)
}

// Watermarks that move on two goroutines never go back in the store: else a device would get an event again after a
// restart.
func TestStoredWatermarksNeverGoBack(t *testing.T) {
	s := &slowStore{MemoryStore: registered(t), begun: make(chan struct{}), release: make(chan struct{})}
	c, err := New(Config{Addrs: []string{"127.0.0.1:1"}, Store: s})
	must(t, err)
	th := id.NewGroup()
	var wg sync.WaitGroup
	wg.Go(func() { c.move(th, thread.Watermark{DeliveredPosition: 1}, true) })
	<-s.begun
	wg.Go(func() { c.move(th, thread.Watermark{DeliveredPosition: 2}, true) })
	for at := topic.Position(0); at < 2; { // until the second has moved; it waits for the first to be stored
		c.mu.Lock()
		at = c.applied[th].DeliveredPosition
		c.mu.Unlock()
	}
	close(s.release)
	wg.Wait()
	saved, err := s.Load()
	must(t, err)
	if got := saved.Watermarks[th].DeliveredPosition; got != 2 {
		t.Errorf("stored %d, want 2", got)
	}
}
