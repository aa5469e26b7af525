package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server and returns how to ask it.
func serve(t *testing.T, edit ...func(*Config)) (*Server, func(path string) (int, string)) {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg := Config{checkTimeout: 30 * time.Millisecond, Registerer: reg, Gatherer: reg}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return s, func(path string) (int, string) {
		t.Helper()
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestReadiness(t *testing.T) {
	s, get := serve(t)
	s.Check("log", func(context.Context) error { return nil })
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready = %d %s", code, body)
	}
	s.Check("postgres", func(context.Context) error { return errors.New("refused") })
	release := make(chan struct{})
	defer close(release)
	s.Check("clickhouse", func(context.Context) error { <-release; return nil }) // deaf to its context
	code, body := get("/readyz")
	var st Status
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if code != http.StatusServiceUnavailable || st.Ready || !st.Checks["log"].OK ||
		st.Checks["postgres"].Error != "refused" ||
		!strings.Contains(st.Checks["clickhouse"].Error, "no answer") {
		t.Errorf("not ready = %d %s", code, body)
	}
	for path, want := range map[string]int{
		"/readyz?of=log": http.StatusOK, "/readyz?of=log&of=postgres": http.StatusServiceUnavailable,
		"/readyz?of=log&of=edge": http.StatusServiceUnavailable,
	} {
		if code, body := get(path); code != want {
			t.Errorf("%s = %d %s", path, code, body)
		}
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("live = %d", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK ||
		!strings.Contains(body, `helio_admin_dependency_up{dependency="postgres"} 0`) {
		t.Errorf("metrics = %d %s", code, body)
	}
	// Profiles are not served unless asked for, and then not here.
	if code, _ := get("/debug/pprof/goroutine?debug=1"); code != http.StatusNotFound || s.Profiles() != "" {
		t.Errorf("pprof = %d, at %q", code, s.Profiles())
	}
}

// TestDependenciesUnasked: what is down shows in the metrics although nobody asks whether the process is ready.
func TestDependenciesUnasked(t *testing.T) {
	s, get := serve(t, func(c *Config) { c.checkEvery = 10 * time.Millisecond })
	asked := make(chan struct{})
	s.Check("postgres", func(ctx context.Context) error {
		select {
		case asked <- struct{}{}:
		case <-ctx.Done():
		}
		return errors.New("refused")
	})
	for range 2 { // the second run begins after the first has ended
		select {
		case <-asked:
		case <-time.After(time.Minute):
			t.Fatal("the checks are not run")
		}
	}
	if _, body := get("/metrics"); !strings.Contains(body, `helio_admin_dependency_up{dependency="postgres"} 0`) {
		t.Errorf("metrics = %s", body)
	}
}

func TestProfilesApart(t *testing.T) {
	s, get := serve(t, func(c *Config) { c.Profiles = "127.0.0.1:0" })
	if code, _ := get("/debug/pprof/cmdline"); code != http.StatusNotFound {
		t.Errorf("pprof beside the metrics = %d", code)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{
		"/debug/pprof/goroutine?debug=1": http.StatusOK, "/metrics": http.StatusNotFound, "/livez": http.StatusNotFound,
	} {
		resp, err := client.Get("http://" + s.Profiles() + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s at the address of profiles = %d, want %d", path, resp.StatusCode, want)
		}
	}
	taken, err := New(Config{Profiles: s.Profiles()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taken.Listen(); err == nil || !strings.Contains(err.Error(), "--pprof") {
		t.Errorf("Listen = %v", err)
	}
	if _, err := New(Config{Profiles: "6060"}); err == nil {
		t.Error("a port alone is an address")
	}
}

func TestDraining(t *testing.T) {
	s, get := serve(t)
	s.Check("log", func(context.Context) error { return nil })
	s.SetDraining()
	if code, body := get("/readyz?of=log"); code != http.StatusServiceUnavailable {
		t.Errorf("draining = %d %s", code, body)
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable ||
		!strings.Contains(body, `"draining": true`) {
		t.Errorf("draining = %d %s", code, body)
	}
}

func TestPortInUseNamesTheFlag(t *testing.T) {
	first, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := first.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := New(Config{Addr: addr, Flag: "--edge-admin-addr"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Listen(); err == nil || !strings.Contains(err.Error(), "--edge-admin-addr") ||
		!strings.Contains(err.Error(), addr) {
		t.Errorf("Listen = %v", err)
	}
}
