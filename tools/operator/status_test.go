package operator

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/roster"
)

// TestProcesses: who was heard lately runs, and who runs and lacks what others read is told.
func TestProcesses(t *testing.T) {
	now := time.Now()
	role := func(name string, ago time.Duration, left bool, types ...string) roster.Role {
		return roster.Role{Instance: name, Name: name, Seen: now.Add(-ago), Left: left, Types: types}
	}
	got := map[string]string{}
	for _, p := range processes([]roster.Role{
		role("new", time.Second, false, "a", "b", "c"), role("old", time.Second, false, "a"),
		role("gone", roster.Gone, false, "d"), role("left", time.Second, true),
	}, now) {
		got[p.Name] = p.State + " " + strings.Join(p.Lacks, " ")
	}
	want := map[string]string{"new": "runs ", "old": "runs b c", "gone": "silent ", "left": "stopped "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

// TestScrape: sums and highest values of the processes that run; what does not answer, or not well, is told.
func TestScrape(t *testing.T) {
	serve := func(h http.HandlerFunc) Process {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return Process{Role: roster.Role{Admin: strings.TrimPrefix(s.URL, "http://")}, State: StateRuns}
	}
	says := func(text string) Process {
		return serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }) // to this test
	}
	hangs := make(chan struct{})
	silent := serve(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	})
	defer close(hangs)
	got := Scrape(t.Context(), []Process{
		says("# TYPE helio_kafka_queue_records gauge\nhelio_kafka_queue_records{view=\"a\"} 3\n" +
			"helio_kafka_queue_records{view=\"b\"} 4\n" +
			"# TYPE helio_session_oldest_undelivered_seconds gauge\nhelio_session_oldest_undelivered_seconds 2\n" +
			"# TYPE helio_replica_oldest_undelivered_seconds gauge\nhelio_replica_oldest_undelivered_seconds 5\n" +
			"# TYPE helio_session_outbox_frames gauge\nhelio_session_outbox_frames 10\n"),
		says("this is no metric"),
		serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }),
		silent,
		{Role: roster.Role{Admin: "127.0.0.1:1"}, State: StateRuns},
		{Role: roster.Role{Admin: "127.0.0.1:1"}, State: StateSilent},
	})
	if len(got) != 5 {
		t.Fatalf("%d answers", len(got))
	}
	if g := got[0]; g.Error != "" || g.Waiting() != 17 || g.Oldest() != 5 {
		t.Errorf("waiting %v, oldest %v: %+v", g.Waiting(), g.Oldest(), g)
	}
	for i, want := range []string{"", "metrics of", "404", "exceeded", "refused"} {
		if !strings.Contains(got[i].Error, want) || (want == "") != (got[i].Error == "") {
			t.Errorf("%d: error %q, want %q", i, got[i].Error, want)
		}
	}
}
