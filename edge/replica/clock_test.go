package replica

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// The clock follows the views back, but not an answer that was only late.
func TestViewClockGoesBack(t *testing.T) {
	back := 0
	v := newViewClock(nil, 2, Config{}.withDefaults(), nil, func() { back++ })
	first := v.answered()
	v.advance(first, []topic.Cursor{{10, 1, 1}, {5, 5, 5}})
	v.advance(first, []topic.Cursor{{9, 2, 1}, {5, 5, 5}})
	mustBe(t, "a late answer", v.slot(0), topic.Cursor{10, 2, 1})
	_, moved, _ := v.look()
	v.advance(v.answered(), []topic.Cursor{{8, 2, 1}, {5, 5, 5}})
	mustBe(t, "after a crash", v.slot(0), topic.Cursor{8, 2, 1})
	mustBe(t, "the other slot", v.slot(1), topic.Cursor{5, 5, 5})
	mustBe(t, "counted", back, 1)
	select {
	case <-moved:
		t.Error("told that the views are further when they went back")
	default:
	}
	v.take(v.answered(), seen{0, topic.Threads, 9})
	select {
	case <-moved:
	default:
		t.Error("not told that the views are further again")
	}
}

// Events of a topic that a later version added are dropped and counted; the link goes on.
func TestEventsOfAnUnknownTopicDoNotEndTheLink(t *testing.T) {
	r, err := New(Config{}, (*postgresStore)(nil), nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := linkv1.ToEdge_builder{Events: linkv1.Events_builder{
		Topic: 99, Records: []*linkv1.Record{linkv1.Record_builder{Key: make([]byte, id.Size)}.Build()},
	}.Build()}.Build()
	if err := r.frame(&conn{}, m); err != nil {
		t.Errorf("the link ends: %v", err)
	}
	var c dto.Metric
	if err := r.metrics.drops.WithLabelValues("unknown_topic").Write(&c); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "dropped", c.GetCounter().GetValue(), 1.0)
}

func mustBe(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("zero: %v", err)
	}
	err := Config{Partitions: -1, Batch: -1, Linger: -1}.Validate()
	if err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 3 {
		t.Errorf("got %v, want three faults", err)
	}
}
