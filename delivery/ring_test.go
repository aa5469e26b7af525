package delivery

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"pgregory.net/rapid"

	"heliograph/infra/budget"
	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

func count(t *testing.T, s *Service, served string) float64 {
	t.Helper()
	var m dto.Metric
	if err := s.metrics.subscribe.WithLabelValues(served).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// Whatever was added and evicted: collect, in as many pieces as it likes, returns the records from the cursor on that
// are at or after start.
func TestRingCollect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		r := newRing(10*time.Second, rapid.IntRange(1, 20_000).Draw(t, "bytes"), topic.Cursor{})
		type rec struct {
			pos     topic.Position
			subject topic.Subject
		}
		var all [topics][]rec
		for range rapid.IntRange(0, 200).Draw(t, "records") {
			k := rapid.IntRange(0, topics-1).Draw(t, "topic")
			p := r.logs[k].next + topic.Position(rapid.IntRange(0, 2).Draw(t, "hole"))
			s := subject(rapid.IntRange(0, 9).Draw(t, "subject"))
			now = now.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "ms")) * time.Millisecond)
			x := kafka.Record{Topic: topic.Folded[k], Position: p, Key: s[:], Value: make([]byte, 50)}
			if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
				x.Value = nil // a tombstone: nobody is told
			} else {
				all[k] = append(all[k], rec{p, s})
			}
			r.add(&x, now)
			r.evict(now)
		}
		want := make(map[topic.Subject]struct{})
		for i := range rapid.IntRange(0, 12).Draw(t, "wanted") {
			want[subject(i)] = struct{}{}
		}
		cur := r.start()
		for k := range cur {
			cur[k] += topic.Position(rapid.IntRange(0, 30).Draw(t, "from"))
		}
		var wantRecs, gotRecs [topics][]topic.Position
		for k := range all {
			for _, x := range all[k] {
				if _, ok := want[x.subject]; ok && x.pos >= cur[k] {
					wantRecs[k] = append(wantRecs[k], x.pos)
				}
			}
		}
		for {
			recs, reached := r.collect(cur, r.next(), want)
			for k := range recs {
				for _, x := range recs[k] {
					gotRecs[k] = append(gotRecs[k], topic.Position(x.GetPosition()))
				}
			}
			cur = reached
			if cur.Covers(r.next()) {
				break
			}
		}
		if diff := cmp.Diff(wantRecs, gotRecs); diff != "" {
			t.Fatalf("collected (-want +got):\n%s", diff)
		}
		if r.bytes > r.max && len(r.count) > 0 {
			t.Fatalf("%d bytes in a ring of %d", r.bytes, r.max)
		}
	})
}

// The rings of all slots share the memory: with many slots each has less.
func TestRingsShareTheMemory(t *testing.T) {
	w := newWorld(t)
	s := w.service(Config{})
	s.cfg.Kafka.Budget = budget.New(partitions<<20, nil)
	w.start(s)
	w.owns(s, partitions)
	if got, want := s.ringBytes(), 1<<20/8; got != want {
		t.Errorf("a ring may keep %d bytes, want %d", got, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.slots {
		if sl.ring.max != s.ringBytes() {
			t.Errorf("slot %d may keep %d bytes", sl.id, sl.ring.max)
		}
	}
}
