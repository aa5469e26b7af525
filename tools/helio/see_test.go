package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"heliograph/infra/lag"
	"heliograph/infra/roster"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

func pointer(n float64) *float64 { return &n }

// seen are views as they might be: one keeps up, one is dead, of one nothing is known.
func seen() []lag.View {
	return []lag.View{
		{
			View: "threads", Generation: "views", Records: 700, Seconds: 90.4, Slots: 16, Lagging: 2, Unowned: 16,
			Flow: lag.Flow{Rate: pointer(0), Arrivals: pointer(12)},
			Places: []lag.Place{
				{Topic: topic.Threads, Slot: 1, Next: 10, End: 15, Records: 5, Seconds: 2},
				{
					Topic: topic.Threads, Slot: 7, Next: 5, End: 700, Records: 695, Seconds: 90.4,
					Flow: lag.Flow{Rate: pointer(0), Arrivals: pointer(12)},
				},
				{Topic: topic.Threads, Slot: 8, Next: 3, End: 3},
			},
		},
		{
			View: "history", Generation: "2", Records: 40, Seconds: 0.3, AtLeast: true, Slots: 16, Lagging: 1,
			Owners: []string{"history-a", "history-b"},
			Flow:   lag.Flow{Rate: pointer(30), Arrivals: pointer(10), CatchUp: pointer(2)},
			Places: []lag.Place{{
				Topic: topic.Receipts, Slot: 3, Next: 60, End: 100, Records: 40, Seconds: 0.3, AtLeast: true,
				Owner: "history-a",
			}},
		},
		{View: "delivery", Error: "no|answer\nat all", Slots: 16},
	}
}

// words are the lines of a text, without what fills them up.
func words(s string) (out []string) {
	for _, l := range strings.Split(s, "\n") {
		if f := strings.Join(strings.Fields(l), " "); f != "" && !strings.HasPrefix(f, "──") {
			out = append(out, f)
		}
	}
	return out
}

func TestLagTable(t *testing.T) {
	var b strings.Builder
	c := lagCmd{outputFlags: outputFlags{Output: "table"}, N: 2}
	if err := c.show(&b, seen()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"VIEW GENERATION RECORDS BEHIND TAKEN IN/S ARRIVING/S CATCH-UP SLOTS BEHIND NO OWNER OWNERS LOST AHEAD",
		"threads views 700 1m30s 0.0 12.0 never 2 of 16 16 0 0",
		"history 2 40 >300ms 30.0 10.0 2s 1 of 16 0 history-a history-b 0 0",
		"delivery ? ? 0",
		"VIEW TOPIC SLOT NEXT END RECORDS BEHIND TAKEN IN/S CATCH-UP OWNER GENERATION",
		"threads helio.threads 7 5 700 695 1m30s 0.0 never none views",
		"threads helio.threads 1 10 15 5 2s none views",
		"and partitions that are less far behind: 1 (-n 2 shows more)",
		"delivery: no|answer", "at all",
	}
	if diff := cmp.Diff(want, words(b.String())); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	// With --watch JSON is a line each time.
	b.Reset()
	c = lagCmd{outputFlags: outputFlags{Output: "json"}, Watch: true}
	if err := c.show(&b, seen()); err != nil {
		t.Fatal(err)
	}
	var all []lag.View
	if err := json.Unmarshal([]byte(b.String()), &all); err != nil || strings.Count(b.String(), "\n") != 1 ||
		len(all) != 3 || *all[1].CatchUp != 2 || all[0].CatchUp != nil {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestCheckOutputs(t *testing.T) {
	c := checkCmd{Output: "nagios", Max: 30 * time.Second, Timeout: time.Second}
	by, err := c.limits()
	if err != nil {
		t.Fatal(err)
	}
	whole, found := operator.Judge(seen(), by)
	say := func(output string, found []operator.Finding, failed error) string {
		t.Helper()
		var b strings.Builder
		c.Output = output
		if err := c.write(&b, whole, found, failed); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := []string{
		"HELIO CRITICAL - threads CRITICAL: it is 1m30s behind, history 300ms behind, delivery UNKNOWN: its store " +
			"does not tell how far it is: no/answer at all | " +
			"threads_seconds=90.400s;30;120;0 threads_records=700;;;0 " +
			"history_seconds=0.300s;30;120;0 history_records=40;;;0",
		"threads: it is 1m30s behind", "threads: of its 16 slots have no owner: 16",
		"delivery: its store does not tell how far it is: no/answer at all",
	}
	if diff := cmp.Diff(want, words(say("nagios", found, nil))); diff != "" {
		t.Errorf("nagios (-want +got):\n%s", diff)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(say("prometheus", found, nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
			name = f.GetName()
		}
	}
	if diff := cmp.Diff(map[string]float64{
		"helio_check_state": 2, "helio_check_view_state threads": 2, "helio_check_view_state history": 0,
		"helio_check_view_state delivery": 3, "helio_check_lag_seconds threads": 90.4,
		"helio_check_lag_seconds history": 0.3, "helio_check_lag_records threads": 700,
		"helio_check_lag_records history": 40, "helio_check_slots_unowned threads": 16,
		"helio_check_slots_unowned history": 0, "helio_check_slots_unowned delivery": 0,
	}, got); diff != "" {
		t.Errorf("prometheus (-want +got):\n%s", diff)
	}
	var said struct {
		State, Error string
		Code         int
		Views        []struct{ State string }
	}
	if err := json.Unmarshal([]byte(say("json", found, nil)), &said); err != nil || said.Code != 2 ||
		said.State != "CRITICAL" || len(said.Views) != 3 || said.Views[2].State != "UNKNOWN" {
		t.Errorf("json: %v, %+v", err, said)
	}
	whole = operator.Unknown
	if got := say("nagios", nil, errors.New("no log")); got != "HELIO UNKNOWN - no log\n" {
		t.Errorf("without a log: %q", got)
	}
}

// shot is a snapshot of a deployment in which an edge is full, a projector does not answer and a view is dead.
func shot() operator.Snapshot {
	process := func(role, name string, queues map[string]float64) operator.Gauges {
		return operator.Gauges{
			Process: operator.Process{Role: roster.Role{
				Role: role, Name: name, Slots: map[string]int{"threads": 8},
			}, State: operator.StateRuns},
			Queues: queues,
		}
	}
	mute := process("projector", "p1\x1b[31m", nil)
	mute.Error = "i/o timeout"
	return operator.Snapshot{
		At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local),
		Processes: []operator.Gauges{mute, process("edge", "e1", map[string]float64{
			operator.OutboxFrames: 60000, operator.OutboxBytes: 1e6, operator.ProduceRecords: 12,
			operator.OldestAtReplica: 7.5, operator.BudgetUsed: 80, operator.BudgetLimit: 100,
			operator.Connections: 1000,
		})},
		Views: seen(),
	}
}

func TestTopLines(t *testing.T) {
	marked := topStyle{unmarked, unmarked, func(s string) string { return "!" + s }}
	want := []string{
		"helio top 03:04:05 waiting 60012 oldest undelivered 7.5s at edge e1",
		"role name outboxes bytes produce fetched link oldest memory devices stalled slots",
		"!projector p1␛[31m ? no answer: i/o timeout",
		"!edge e1 60000 1000000 12 7.5s 80% 1000 threads 8",
		"view generation records behind taken in/s arriving/s catch-up slots behind no owner owners lost ahead",
		"!threads views 700 1m30s 0.0 12.0 never 2 of 16 16 0 0",
		"history 2 40 >300ms 30.0 10.0 2s 1 of 16 0 history-a history-b 0 0",
		"!delivery ? ? 0",
		"!delivery: no|answer at all",
		"view topic slot next end records behind taken in/s catch-up owner generation",
		"threads helio.threads 7 5 700 695 1m30s 0.0 never none views",
	}
	got := words(strings.Join(topLines(shot(), 1, marked), "\n"))
	if strings.Contains(strings.Join(got, ""), "\x1b") {
		t.Error("a name can drive the terminal")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
	for name, s := range map[string]operator.Snapshot{
		"!the log does not answer: down": {Log: "down"}, "!the roster does not answer: down": {Roster: "down"},
		"!no role tells that it runs": {},
	} {
		if got := strings.Join(topLines(s, 1, marked), "\n"); !strings.Contains(got, name) {
			t.Errorf("%q is not in:\n%s", name, got)
		}
	}
}

// TestTopScreen: it asks, shows what it was told, asks again after a while, scrolls within its lines and ends.
func TestTopScreen(t *testing.T) {
	asked := 0
	m := &topModel{
		look: func() operator.Snapshot { asked++; return shot() }, every: time.Millisecond, n: 5, style: plain,
	}
	step := func(msg tea.Msg) tea.Cmd { _, cmd := m.Update(msg); return cmd }
	step(tea.WindowSizeMsg{Width: 60, Height: 6})
	if got := m.View().Content; got != "asking …" {
		t.Errorf("at first: %q", got)
	}
	tick := step(m.Init()())
	screen := strings.Split(m.View().Content, "\n")
	if len(screen) != 6 || !strings.HasPrefix(screen[0], "helio top") || len([]rune(screen[3])) > 60 {
		t.Errorf("the screen is:\n%s", strings.Join(screen, "\n"))
	}
	if again := step(tick()); again == nil || asked != 1 {
		t.Errorf("asked %d times before it asks again", asked)
	} else if step(again()); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	for range 100 {
		step(tea.KeyPressMsg{Code: tea.KeyDown})
	}
	screen = strings.Split(m.View().Content, "\n")
	if len(screen) != 6 || !strings.HasPrefix(screen[5], "history") {
		t.Errorf("at the end:\n%s", strings.Join(screen, "\n"))
	}
	for range 2 {
		step(tea.KeyPressMsg{Code: tea.KeyPgUp})
	}
	step(tea.KeyPressMsg{Code: tea.KeyPgUp})
	step(tea.KeyPressMsg{Code: tea.KeyPgUp})
	if got := m.View().Content; !strings.HasPrefix(got, "helio top") {
		t.Errorf("at the top again:\n%s", got)
	}
	if cmd := step(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil {
		t.Error("q does not end it")
	} else if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("q does not end it")
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Now()
	var b strings.Builder
	c := statusCmd{outputFlags: outputFlags{Output: "table"}}
	if err := c.show(&b, []operator.Process{{
		Role: roster.Role{
			Role: "edge", Name: "e1\x1b[0m", Version: "v1.2.0", Commit: "0123456789abcdef", Reader: 3,
			Types: []string{"a", "b"}, Started: now.Add(-2 * time.Hour), Admin: "10.0.0.1:80",
			Seen:  now.Add(-5 * time.Second),
			Slots: map[string]int{"threads": 3, "history": 4},
		},
		State: operator.StateRuns, Lacks: []string{"c"},
	}}, now); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ROLE NAME STATE VERSION READER EVENT TYPES STARTED SLOTS ADMIN HEARD",
		"edge e1␛[0m runs v1.2.0 0123456789 3 2 2h0m0s ago history 4, threads 3 10.0.0.1:80 5s ago",
		"edge e1␛[0m does not read events that others read: c",
	}
	if diff := cmp.Diff(want, words(b.String())); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
