package threads_test

import (
	"testing"
	"time"

	"heliograph/projector/sinktest"
	"heliograph/projector/threads"
	"heliograph/schemas/topic"
)

// One stamp that is 40 days ahead does not take the tail of its whole slot along, nor what was rejected in it; and what
// gets old meanwhile is trimmed all the same.
func TestTrimIsNotLedAstrayByAStamp(t *testing.T) {
	pool := newViews(t)
	steps := world(17, 300)
	now := time.Now()
	nth := map[topic.Slot]int{}
	for i := range steps {
		steps[i].TimeMS = now.Add(time.Duration(i-len(steps)) * time.Second).UnixMilli()
		if steps[i].Topic != topic.Threads {
			continue
		}
		if nth[steps[i].Slot]++; nth[steps[i].Slot]%10 == 5 {
			steps[i].TimeMS = now.Add(40 * 24 * time.Hour).UnixMilli()
		}
	}
	l := sinktest.NewLog(steps)
	sink := threads.NewSink(config(3), pool, nil, nil)
	if err := sinktest.Feed(t.Context(), l, sink, sinktest.Options{}); err != nil {
		t.Fatal(err)
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	tables := []string{"messages", "rejected"}
	before := map[string]int{}
	for _, table := range tables {
		before[table] = count(table)
	}
	for _, s := range l.Slots() {
		if _, err := sink.Open(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		defer sink.Close(s, false)
	}
	if err := sink.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if got, want := count(table), before[table]; got != want || want == 0 {
			t.Errorf("got %d rows in %s after trimming, want %d", got, table, want)
		}
		if _, err := pool.Exec(t.Context(), "UPDATE "+table+" SET log_time = log_time - interval '31 days'"+
			" WHERE log_time < now()"); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if got := count(table + " t WHERE log_time < now() - interval '30 days'" +
			" AND thread_id NOT IN (SELECT subject FROM quarantine)"); got != 0 {
			t.Errorf("%d rows of %s are left that are older than 30 days", got, table)
		}
	}
}
