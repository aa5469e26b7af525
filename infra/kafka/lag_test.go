package kafka

import (
	"testing"
	"time"

	"heliograph/schemas/topic"
)

// TestAgeOfBusySlot: a slot that always lacks some records, and each time others, is not as far behind as the first
// time that it lacked any; one that stands still is.
func TestAgeOfBusySlot(t *testing.T) {
	c, err := NewConsumer(ConsumerConfig{Kafka: Config{Brokers: []string{"127.0.0.1:1"}}, View: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ask := func(at time.Duration, next, end topic.Position, inHand ...Record) float64 {
		l := Lag{Topic: topic.Threads, Slot: 1, Next: next, End: end, Records: int64(end - next)}
		return c.age(began.Add(at), l, inHand, nil)
	}
	for n := range 60 {
		at := time.Duration(n) * 2 * time.Second
		var inHand []Record
		if n%2 == 1 { // now and then something is in hand when it is asked
			inHand = []Record{{Topic: topic.Threads, LogTime: began.Add(at - time.Second)}}
		}
		if got := ask(at, topic.Position(10*n+4), topic.Position(10*n+10), inHand...); got > 2 {
			t.Fatalf("after %v it is %v s behind", at, got)
		}
	}
	at := 2 * time.Minute
	for n, want := range []float64{0, 2, 4} {
		if got := ask(at+time.Duration(n)*2*time.Second, 600, 610); got != want {
			t.Errorf("it stands still for %v s and is %v s behind", want, got)
		}
	}
	if got := ask(at+time.Hour, 610, 610); got != 0 {
		t.Errorf("with nothing to take in it is %v s behind", got)
	}
	if got := ask(at+2*time.Hour, 610, 611); got != 0 {
		t.Errorf("what has just come is %v s old", got)
	}
}
