package threads_test

import (
	"testing"
	"time"

	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
)

// One stamp that is 40 days ahead does not take the tail of its whole slot along.
func TestTrimIsNotLedAstrayByAStamp(t *testing.T) {
	pool := newViews(t)
	steps := world(17, 300)
	now := time.Now()
	for i := range steps {
		steps[i].TimeMS = now.Add(time.Duration(i-len(steps)) * time.Second).UnixMilli()
		if i%50 == 49 {
			steps[i].TimeMS = now.Add(40 * 24 * time.Hour).UnixMilli()
		}
	}
	l := sinktest.NewLog(steps)
	sink := threads.NewSink(config(3), pool, nil, nil)
	if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM messages").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for _, s := range l.Slots() {
		if _, err := sink.Open(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		defer sink.Close(s, false)
	}
	if err := sink.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != before || before == 0 {
		t.Errorf("got %d rows after trimming, want %d", got, before)
	}
}
