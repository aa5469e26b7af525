package ingest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// TestRelease: what an operator decides lies in the partition of the event that it is about, whatever its subject's is,
// and only a reader that obeys it may read it; what would count for nothing is refused.
func TestRelease(t *testing.T) {
	f := start(t, nil)
	cfg := f.cfg
	good := Release{
		Topic: topic.Threads, Slot: 3, Position: 7, Subject: topic.Subject(group),
		Release: eventv1.Release_RELEASE_DROPPED, Note: "of a broken build", Who: "ann@host/v1",
	}
	rec, err := good.Append(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]map[int32]kgo.Offset{cfg.Name(topic.Quarantine): {3: kgo.NewOffset().AtStart()}}
	cl, err := kafka.Dial(cfg, kgo.ConsumePartitions(at))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got := cl.PollFetches(t.Context()).Records()
	if len(got) != 1 || rec.Slot != 3 || rec.Topic != topic.Quarantine || int64(rec.Position) != got[0].Offset {
		t.Fatalf("got %v at %v", got, rec)
	}
	e, err := event.Decode(got[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	m := e.GetQuarantineReleased()
	is := []any{
		topic.Subject(got[0].Key), m.GetTopic(), m.GetSlot(), m.GetPosition(), m.GetRelease(), m.GetNote(),
		e.GetProducer(), e.GetActorKind(), e.GetMinReader(), e.GetRules(),
	}
	want := []any{
		good.Subject, int32(1), int32(3), int64(7), good.Release, good.Note, good.Who,
		eventv1.ActorKind_ACTOR_KIND_OPERATOR, uint32(4), uint32(event.WrittenRules),
	}
	if diff := cmp.Diff(want, is); diff != "" {
		t.Errorf("the event (-want +got):\n%s", diff)
	}
	for field, change := range map[string]func(*Release){
		"topic":    func(r *Release) { r.Topic = topic.Presence },
		"slot":     func(r *Release) { r.Slot = partitions },
		"position": func(r *Release) { r.Position = -1 },
		"release":  func(r *Release) { r.Release = 0 },
		"note":     func(r *Release) { r.Note = " " },
		"producer": func(r *Release) { r.Who = strings.Repeat("x", event.MaxProducer+1) },
	} {
		bad := good
		change(&bad)
		var invalid *event.Invalid
		if _, err := bad.Append(t.Context(), cfg); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
