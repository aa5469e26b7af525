package ingest

import (
	"context"
	"errors"
	"testing"
	"time"

	"heliograph/schemas/topic"
)

// The end is beyond whatever was acknowledged before it was asked for.
func TestEndsAreBeyondWhatWasAcknowledged(t *testing.T) {
	f := start(t, nil)
	slot := topic.SlotOf(topic.Subject(group), partitions)
	for range 3 {
		rec, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("hello"))
		if err != nil {
			t.Fatal(err)
		}
		ends, err := f.Ends(t.Context(), topic.Threads)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ends[slot], rec.Position+1; got != want || len(ends) != partitions {
			t.Errorf("got end %d of %d slots, want %d of %d", got, len(ends), want, partitions)
		}
	}
	f.net.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.Ends(ctx, topic.Users); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with the log out of reach: got %v, want ErrUnavailable", err)
	}
}

// An answer counts only for those who had asked before it was on its way.
func TestEndsGather(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan []topic.Position)
	e := &ends{ask: func(context.Context) ([]topic.Position, error) {
		asked <- struct{}{}
		return <-answer, nil
	}}
	got := make(chan topic.Position, 3)
	get := func() {
		at, err := e.get(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- at[0]
	}
	go get()
	<-asked
	go get()
	go get()
	until(t, "two wait", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.waiting) == 2
	})
	answer <- []topic.Position{1}
	<-asked
	answer <- []topic.Position{2}
	if a, b, c := <-got, <-got, <-got; a+b+c != 5 {
		t.Errorf("got %d, %d and %d, want 1, 2 and 2", a, b, c)
	}
}
