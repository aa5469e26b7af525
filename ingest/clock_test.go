package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"heliograph/schemas/topic"
)

// While its clock is off by more than a minute, either way, an edge appends nothing.
func TestAClockThatIsOffAppendsNothing(t *testing.T) {
	var ahead atomic.Int64 // of the others' clock
	f := start(t, func(c *Config) {
		c.clockEvery = 5 * time.Millisecond
		c.Clock = func(context.Context) (time.Time, error) { return time.Now().Add(time.Duration(ahead.Load())), nil }
	})
	appends := func() bool {
		_, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("hello"))
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	}
	for _, x := range []struct {
		ahead time.Duration
		want  bool
	}{{0, true}, {2 * time.Minute, false}, {50 * time.Second, true}, {-time.Hour, false}, {-50 * time.Second, true}} {
		ahead.Store(int64(x.ahead))
		until(t, "the others' clock "+x.ahead.String()+" ahead", func() bool { return appends() == x.want })
	}
}

// An edge that has nothing to compare its clock with goes on as before, and says that it does.
func TestAClockThatIsNotComparedIsTold(t *testing.T) {
	var fails atomic.Bool
	var ahead atomic.Int64
	f := start(t, func(c *Config) {
		c.clockEvery = 5 * time.Millisecond
		c.Clock = func(context.Context) (time.Time, error) {
			if fails.Load() {
				return time.Time{}, errors.New("down")
			}
			return time.Now().Add(time.Duration(ahead.Load())), nil
		}
	})
	unknown := func(want bool) {
		until(t, "the clock is compared", func() bool { return f.clock.unknown.Load() == want })
	}
	unknown(false)
	fails.Store(true)
	unknown(true)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("hello")); err != nil {
		t.Errorf("with a clock that was right: %v", err)
	}
	ahead.Store(int64(time.Hour))
	fails.Store(false)
	unknown(false)
	until(t, "the clock is off", f.clock.isOff)
	fails.Store(true)
	unknown(true)
	if _, err := f.AppendWait(t.Context(), topic.Threads, topic.Subject(group), message("hello")); err == nil {
		t.Error("with a clock that was off it appends")
	}
}
