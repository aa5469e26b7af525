package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// scraper is a real Prometheus that scrapes processes.
type scraper struct {
	t    *testing.T
	addr string
}

// startPrometheus starts one that scrapes each process every half second and evaluates the alerts.
func startPrometheus(t *testing.T, all map[string]*process) *scraper {
	t.Helper()
	program := tool(t, "prometheus")
	dir := t.TempDir()
	rules := filepath.Join(dir, "alerts.yaml")
	type targets struct {
		Targets []string `yaml:"targets"`
	}
	type job struct {
		Name   string    `yaml:"job_name"`
		Static []targets `yaml:"static_configs"`
	}
	var of []string
	for _, p := range all {
		of = append(of, p.Admin)
	}
	config, err := yaml.Marshal(map[string]any{
		"global": map[string]string{
			"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms",
		},
		"rule_files":     []string{rules},
		"scrape_configs": []job{{"helio", []targets{{of}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	for name, b := range map[string][]byte{rules: deployed(t, "alerts.yaml"), file: config} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &scraper{t, l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(
		ctx, program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.addr, "--log.level=warn",
	)
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return p
}

// ask asks its API and decodes the answer's data; what it warns of is an error too.
func (p *scraper) ask(path string, args url.Values, data any) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path+"?"+args.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var got struct {
		Status, Error string
		Warnings      []string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		return err
	}
	if got.Status != "success" || len(got.Warnings) > 0 {
		return fmt.Errorf("%s %s %v", got.Status, got.Error, got.Warnings)
	}
	return json.Unmarshal(got.Data, data)
}

// sample is one of a query's answer.
type sample struct {
	Metric map[string]string
}

func (p *scraper) query(expr string) ([]sample, error) {
	p.t.Helper()
	var data struct{ Result []sample }
	err := p.ask("/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// TestDashboardOnPrometheus: a real Prometheus that scrapes every role answers each query of the dashboard with
// something, under the labels that its legend names, and takes each rule.
func TestDashboardOnPrometheus(t *testing.T) {
	tool(t, "prometheus") // before anything is started
	all := roles(t)
	p := startPrometheus(t, all)
	// Of histograms that nobody has put anything into only the empty buckets are there, and no quantile; they are there
	// all the same. What is labelled by kinds of requests is there once one was made.
	unmade := map[string]string{
		"helio_session_request_seconds_bucket": "by kinds of requests, and no device has made any",
		"helio_history_insert_seconds_bucket":  "by tables, and nothing was inserted",
		"helio_session_open_count":             "by state, and no device has connected",
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(deployed(t, "grafana.json"), &board); err != nil {
		t.Fatal(err)
	}
	// It has seen every role twice, and an edge watches the views.
	ready := fmt.Sprintf(
		"count(count_over_time(helio_build_info[1m]) > 2) == %d and on() helio_view_watching == 1", len(all),
	)
	deadline := time.Now().Add(wait)
	for {
		got, err := p.query(ready)
		if err == nil && len(got) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not every role was scraped: %v, %v", got, err)
		}
		<-time.After(50 * time.Millisecond)
	}
	queries := 0
	for _, panel := range board.Panels {
		for _, q := range panel.Targets {
			queries++
			p.judge(panel.Title, strings.ReplaceAll(q.Expr, "$__rate_interval", "1m"), q.LegendFormat, unmade, deadline)
		}
	}
	if queries < 30 {
		t.Errorf("only %d queries", queries)
	}
	p.checkRules(deadline)
}

// checkRules waits until each rule was evaluated: it must be one, and one that waits for nothing must not fire over a
// deployment in which nothing happens.
func (p *scraper) checkRules(deadline time.Time) {
	p.t.Helper()
	want := strings.Count(string(deployed(p.t, "alerts.yaml")), "- alert:")
	for {
		var told struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError, State string
					Duration                       float64
				}
			}
		}
		if err := p.ask("/api/v1/rules", nil, &told); err != nil {
			p.t.Fatal(err)
		}
		evaluated := 0
		for _, g := range told.Groups {
			for _, r := range g.Rules {
				switch r.Health {
				case "err":
					p.t.Errorf("%s: %s", r.Name, r.LastError)
				case "ok":
					evaluated++
				}
				// The edge has no delivery here, of which the watchdog tells.
				if r.State == "firing" && r.Duration == 0 && r.Name != "HelioWatchdog" {
					p.t.Errorf("%s fires over a deployment in which nothing happens", r.Name)
				}
			}
		}
		if evaluated == want || p.t.Failed() {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d of %d rules were evaluated", evaluated, want)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// judge asks a query until it has an answer.
func (p *scraper) judge(title, expr, legend string, unmade map[string]string, deadline time.Time) {
	p.t.Helper()
	for {
		got, err := p.query(expr)
		if err != nil {
			p.t.Errorf("%s: %s: %v", title, expr, err)
			return
		}
		if len(got) > 0 {
			for _, m := range legendLabels.FindAllStringSubmatch(legend, -1) {
				if _, ok := got[0].Metric[m[1]]; !ok {
					p.t.Errorf("%s: %s: its legend names %s, which %v does not have", title, expr, m[1], got[0])
				}
			}
			return
		}
		for name := range unmade {
			if strings.Contains(expr, name) {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%s: %s has no answer", title, expr)
			return
		}
		<-time.After(100 * time.Millisecond)
	}
}
