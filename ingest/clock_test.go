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
