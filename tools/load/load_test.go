package load

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"
	"go.uber.org/goleak"

	"heliograph/edge/auth"
	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, f *flow, due time.Time) (client.Outgoing, int) {
	t.Helper()
	o, err := f.next(due)
	must(t, err)
	text, ok := event.Text(eventv1.Sealed_builder{Data: o.Data}.Build())
	if !ok {
		t.Fatal("no text")
	}
	run, number, seq, ok := parseBody(text)
	if !ok || run != f.run || number != f.number || len(text) != 100 {
		t.Fatalf("body %q: run %x, flow %d, %v", text, run, number, ok)
	}
	return o, seq
}

func TestFlowCountsEachCopyOnce(t *testing.T) {
	f := newFlow(0xfeedfacecafebeef, 7, 2, 100, client.To{Thread: id.NewGroup()})
	f.record()
	at := time.Now()
	a, sa := next(t, f, at)
	b, sb := next(t, f, at.Add(time.Second))
	if u, m := f.open(); u != 2 || m != 4 {
		t.Fatalf("open %d, %d", u, m)
	}
	must(
		t, f.acked(a.ID, at.Add(time.Millisecond)), f.delivered(0, sb, b.ID, at.Add(time.Second+3*time.Millisecond)),
		f.delivered(0, sa, a.ID, at.Add(time.Second)), f.delivered(1, sa, a.ID, at.Add(5*time.Millisecond)),
	)
	for name, err := range map[string]error{
		"a second copy":       f.delivered(0, sa, a.ID, at),
		"another id":          f.delivered(1, sb, a.ID, at),
		"a number never sent": f.delivered(1, 99, a.ID, at),
		"a second ack":        f.acked(a.ID, at),
		"an unknown ack":      f.acked(id.NewMessage(), at),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if u, m := f.open(); u != 1 || m != 1 {
		t.Fatalf("open %d, %d", u, m)
	}
	acks, arrived := f.take(nil, nil, at, at.Add(time.Second))
	slices.Sort(arrived)
	if d := cmp.Diff([]time.Duration{time.Millisecond}, acks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]time.Duration{5 * time.Millisecond, time.Second}, arrived); d != "" {
		t.Error(d)
	}
}

func TestTrafficOfOtherRuns(t *testing.T) {
	tr := newTraffic()
	tr.add(100, 1, 0, client.To{})
	tr.copyOf = func(device, flow int) (int, bool) { return 0, device == 1+flow }
	o, err := tr.flows[0].next(time.Now())
	must(t, err)
	text, _ := event.Text(eventv1.Sealed_builder{Data: o.Data}.Build())
	old := newFlow(tr.run+1, 0, 1, 100, client.To{})
	oo, err := old.next(time.Now())
	must(t, err)
	oldText, _ := event.Text(eventv1.Sealed_builder{Data: oo.Data}.Build())
	must(t,
		tr.handle(1, client.Message{ID: oo.ID, Text: oldText}),
		tr.handle(1, client.Message{Text: "hello"}),
		tr.handle(0, client.Message{ID: o.ID, Text: text}),
		tr.handle(1, client.Message{ID: o.ID, Text: text}),
		tr.handle(0, client.Sent{ID: o.ID}),
	)
	if tr.delivered.Load() != 1 {
		t.Fatalf("%d delivered", tr.delivered.Load())
	}
	for name, err := range map[string]error{
		"a second copy":     tr.handle(1, client.Message{ID: o.ID, Text: text}),
		"a stranger's copy": tr.handle(2, client.Message{ID: o.ID, Text: text}),
		"a refusal":         tr.handle(0, client.Failed{ID: o.ID, Err: errUnknown}),
		"a rejection":       tr.handle(0, client.Rejected{ID: o.ID}),
		"a stranger's ack":  tr.handle(1, client.Sent{ID: o.ID}),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzParseBody(f *testing.F) {
	f.Add(strings.Repeat("0", minBody))
	f.Add("00000000000000010000000200000003xxxx")
	f.Fuzz(func(t *testing.T, s string) {
		_, n, q, ok := parseBody(s)
		if ok && (len(s) < minBody || n < 0 || q < 0) {
			t.Fatalf("%q is taken as flow %d, message %d", s, n, q)
		}
	})
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := 1000; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	if d := cmp.Diff(Quantiles{P50: 500, P95: 950, P99: 990, P999: 999}, quantiles(all)); d != "" {
		t.Error(d)
	}
	one := quantiles([]time.Duration{2 * time.Millisecond})
	if d := cmp.Diff(Quantiles{P50: 2, P95: 2, P99: 2, P999: 2}, one); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Quantiles{}, quantiles(nil)); d != "" {
		t.Error(d)
	}
}

func TestSMSFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sms.jsonl")
	s := NewSMSFile(path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if _, err := s.Pin(short, "+491"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a PIN out of a file that is not there: %v", err)
	}
	write := func(text string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err, f.Close())
	}
	line := func(phone, pin string) string {
		b, err := json.Marshal(auth.SMS{Phone: phone, Pin: pin})
		must(t, err)
		return string(b) + "\n"
	}
	half := line("+492", "222222")
	write(line("+491", "111110") + line("+491", "111111") + half[:20])
	if pin, err := s.Pin(ctx, "+491"); pin != "111111" || err != nil {
		t.Fatalf("%q, %v", pin, err)
	}
	got := make(chan string, 1)
	go func() { pin, _ := s.Pin(ctx, "+492"); got <- pin }()
	write(half[20:])
	if pin := <-got; pin != "222222" {
		t.Fatalf("%q", pin)
	}
	write("{\n")
	if _, err := s.Pin(ctx, "+491"); err == nil || ctx.Err() != nil {
		t.Fatalf("a damaged file: %v", err)
	}
}

func TestCPUSecondsHaveThoseOfEndedChildren(t *testing.T) {
	if got := cpuSeconds(procfs.ProcStat{UTime: 100, STime: 50, CUTime: 20, CSTime: 30}); got != 2 {
		t.Errorf("got %v s, want 2", got)
	}
}

func TestCPUOfThisProcess(t *testing.T) {
	if _, err := (Target{}).cpu(); !errors.Is(err, errUnknown) {
		t.Fatalf("no process: %v", err)
	}
	me := Target{PID: os.Getpid()}
	c, err := me.cpu()
	if errors.Is(err, errUnknown) {
		t.Skip("no /proc here")
	}
	must(t, err)
	if len(c) != 1 {
		t.Fatalf("%v", c)
	}
	if n, err := me.rss(); err != nil || n < 1<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func TestParseLag(t *testing.T) {
	got, err := parseLag(`# HELP helio_kafka_lag_records Log end minus the view's next position.
helio_kafka_lag_records{slot="0",topic="helio.threads",view="threads"} 12
helio_kafka_lag_records{slot="1",topic="helio.threads",view="threads"} 1.5e+03
helio_kafka_lag_records{slot="0",topic="helio.threads",view="history"} 3
helio_kafka_lag_seconds{slot="0",topic="helio.threads",view="history"} 99
`)
	must(t, err)
	if d := cmp.Diff(map[string]float64{"threads": 1512, "history": 3}, got); d != "" {
		t.Fatal(d)
	}
	if _, err := parseLag("x 1\n"); !errors.Is(err, errUnknown) {
		t.Fatalf("without the metric: %v", err)
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "bench.json")
	s, err := loadState(path)
	must(t, err)
	s.Users = []saved{
		{
			Phone:    s.phone(0),
			Identity: client.Identity{User: id.UserID{1}, Device: id.DeviceID{2}, Key: make([]byte, 64)},
		},
	}
	must(t, s.save(path))
	again, err := loadState(path)
	must(t, err)
	if d := cmp.Diff(s, again); d != "" {
		t.Fatal(d)
	}
	for _, base := range []int64{0, 12_345_678, 53_771_599, 99_999_999} {
		s.Base = base
		for i := range 3 {
			if _, err := auth.ParsePhone(s.phone(i), ""); err != nil {
				t.Errorf("%s: %v", s.phone(i), err)
			}
		}
	}
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	if _, err := loadState(path); err == nil {
		t.Fatal("a damaged file was taken")
	}
}

func TestConfig(t *testing.T) {
	good := Config{Target: Target{Edge: "127.0.0.1:1", Pins: FixedPin("123456")}}
	must(t, good.Validate())
	must(t, good.withDefaults().Validate())
	if n := good.withDefaults().users(); n != 2000 {
		t.Errorf("%d users", n)
	}
	bad := Config{Parts: []Part{"x"}, Senders: -1, Body: 3, Rates: []int{0}, Measure: -1, Group: 5000}
	err := bad.Validate()
	for _, want := range []string{"no edge", "PINs", `"x"`, "senders", "body", "rate", "measured", "group"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// The keys are what scripts read.
func TestResultKeys(t *testing.T) {
	v := 10.0
	r := Result{ThroughputPerS: &v, Ceiling: Raw{ProducePerS: &v}}
	r.ratios()
	b, err := json.Marshal(r)
	must(t, err)
	want := `{"throughput_per_s":10,"ack_ms":null,"delivery_ms":null,"fanout_per_s":null,` +
		`"idle_conn_kib":null,"connects_per_s":null,"server_cpu_s_per_1000":null,` +
		`"ceiling":{"produce_per_s":10,"consume_per_s":null,"quic_echo_per_s":null},` +
		`"ratio":{"produce":1,"consume":null,"quic_echo":null},"lag_max_records":null,"rates":null}`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Fatal(d)
	}
}

func TestEcho(t *testing.T) {
	v, err := echo(t.Context(), 3, 2, 100, 100*time.Millisecond)
	if err != nil || v <= 0 {
		t.Fatalf("%v a second, %v", v, err)
	}
}

// Nobody answers at the edge: the run ends with an error as soon as patience does.
func TestRunWithoutEdge(t *testing.T) {
	var progress strings.Builder
	r, err := Run(t.Context(), Config{
		Target:   Target{Edge: "127.0.0.1:9", Pins: FixedPin("1")},
		Parts:    []Part{Throughput},
		Senders:  1,
		patience: 300 * time.Millisecond,
		Progress: &progress,
	})
	if err == nil || r.ThroughputPerS != nil || !strings.Contains(progress.String(), "registering 2 users") {
		t.Fatalf("%v, %v, %q", r, err, progress.String())
	}
}

func TestDevThatFails(t *testing.T) {
	dir := t.TempDir()
	_, err := StartDev(t.Context(), "/bin/false", dir)
	if err == nil || !strings.Contains(err.Error(), "ended at its start") {
		t.Fatalf("%v", err)
	}
}
