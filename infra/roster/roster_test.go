package roster

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	realkafka "heliograph/infra/kafka/real"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// wait bounds every wait of a test.
const wait = time.Minute

// realBroker is an Apache Kafka, while TestReal runs tests on it.
var realBroker string

// TestReal: the topic is made, written and read as Apache Kafka has it.
func TestReal(t *testing.T) {
	realBroker = realkafka.Start(t)
	defer func() { realBroker = "" }()
	t.Run("Roster", TestRoster)
	t.Run("RosterChanges", TestRosterChanges)
}

func config(t *testing.T) kafka.Config {
	t.Helper()
	brokers, prefix := enginetest.Kafka(t)
	if realBroker != "" {
		brokers = []string{realBroker}
	}
	return kafka.Config{Brokers: brokers, TopicPrefix: prefix}
}

// announce runs an announcer until the test, or what it returns, ends it. Each call of current is told.
func announce(t *testing.T, cfg kafka.Config, r Role) (said chan struct{}, stop func()) {
	t.Helper()
	said = make(chan struct{}, 1000)
	a := NewAnnouncer(cfg, func() Role { said <- struct{}{}; return r }, nil)
	a.every = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return said, stop
}

// TestRoster: who runs is there as it is now, who was stopped is there as stopped, and nobody else.
func TestRoster(t *testing.T) {
	cfg := config(t)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if got, err := Read(ctx, cfg, time.Hour); err != nil || len(got) > 0 {
		t.Fatalf("before anybody: %v, %v", got, err)
	}
	began := time.Now()
	edge := Role{
		Instance: "e1", Role: "edge", Name: "one", Version: "v1", Go: "go1", Reader: 3, Types: []string{"message_sent"},
		Started: began.UTC().Truncate(time.Second), Admin: "127.0.0.1:1", Slots: map[string]int{"threads": 4},
	}
	projector := Role{Instance: "p1", Role: "projector", Name: "one", Started: began.UTC().Truncate(time.Second)}
	saidEdge, _ := announce(t, cfg, edge)
	saidProjector, stop := announce(t, cfg, projector)
	for range 2 { // the second was begun after the first was acknowledged, or had failed
		<-saidEdge
		<-saidProjector
	}
	stop()
	projector.Left = true
	got, err := Read(ctx, cfg, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Role{edge, projector}, got, cmpopts.IgnoreFields(Role{}, "Seen")); diff != "" {
		t.Fatalf("roster (-want +got):\n%s", diff)
	}
	if seen := got[0].Seen; seen.Before(began.Add(-time.Second)) || seen.After(time.Now().Add(time.Second)) {
		t.Errorf("seen at %v", seen)
	}
	now := time.Now()
	if !got[0].Alive(now) || got[1].Alive(now) || got[0].Alive(now.Add(Gone+time.Second)) {
		t.Errorf("alive: %v now, %v after it stopped, %v after %v of silence",
			got[0].Alive(now), got[1].Alive(now), got[0].Alive(now.Add(Gone+time.Second)), Gone)
	}
	if got, err := Read(ctx, cfg, -time.Hour); err != nil || len(got) > 0 { // of what is yet to be said
		t.Errorf("in an hour: %v, %v", got, err)
	}
}

// TestRosterChanges: a process that owns other slots says so at once.
func TestRosterChanges(t *testing.T) {
	cfg := config(t)
	asked, slots := make(chan struct{}), 0
	a := NewAnnouncer(cfg, func() Role {
		asked <- struct{}{}
		slots++
		return Role{Instance: "p", Slots: map[string]int{"threads": min(slots, 3)}}
	}, nil)
	a.every = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	tick := make(chan time.Time)
	go func() { done <- a.run(running, tick) }()
	<-asked
	for range 3 {
		tick <- time.Time{}
		<-asked
	}
	tick <- time.Time{} // what was said before is acknowledged
	<-asked
	got, err := Read(ctx, cfg, time.Hour)
	if err != nil || len(got) != 1 || got[0].Slots["threads"] != 3 || got[0].Left {
		t.Errorf("%+v, %v", got, err)
	}
	stop()
	<-asked
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLogDown: a log that is not there costs a line, said once, and no more.
func TestLogDown(t *testing.T) {
	var lines strings.Builder
	cfg := kafka.Config{Brokers: []string{"127.0.0.1:1"}}
	said := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	a := NewAnnouncer(
		cfg, func() Role { said <- struct{}{}; return Role{Instance: "e"} },
		slog.New(slog.NewTextHandler(&lines, nil)),
	)
	a.every = time.Millisecond
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for range 3 {
		<-said
	}
	cancel()
	for ended := false; !ended; {
		select {
		case <-said: // once more, or of the stop
		case err := <-done:
			if ended = true; err != nil {
				t.Error(err)
			}
		}
	}
	if n := strings.Count(lines.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, lines.String())
	}
}

func TestReachable(t *testing.T) {
	const broker = "127.0.0.1:9092"
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080", "edge.internal:80": "edge.internal:80", "10.1.2.3:1": "10.1.2.3:1",
		"0.0.0.0:8080": "127.0.0.1:8080", "[::]:8080": "127.0.0.1:8080", ":8080": "127.0.0.1:8080",
	} {
		if got := Reachable(addr, []string{"no such host.:1", broker}); got != want {
			t.Errorf("%s is reached at %s, want %s", addr, got, want)
		}
	}
	if got := Reachable("0.0.0.0:8080", nil); got != "0.0.0.0:8080" {
		t.Errorf("without a broker: %s", got)
	}
	if _, _, err := net.SplitHostPort(Reachable("nonsense", nil)); err == nil {
		t.Error("nonsense has become an address")
	}
}
