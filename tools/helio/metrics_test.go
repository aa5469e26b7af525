package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/delivery"
	"heliograph/edge/auth"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/link"
	"heliograph/tools/secrets"
)

// described are the metrics of a registry with their labels, those without a sample too.
func described(reg *prometheus.Registry) map[string][]string {
	ch := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(ch)
		close(ch)
	}()
	form := regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{(.*)\}, variableLabels: \{([^}]*)\}`)
	out := map[string][]string{}
	for d := range ch {
		m := form.FindStringSubmatch(d.String())
		for _, l := range strings.Split(m[2]+","+m[3], ",") {
			if name, _, _ := strings.Cut(l, "="); name != "" {
				out[m[1]] = append(out[m[1]], name)
			}
		}
		out[m[1]] = append(out[m[1]], "instance", "le")
	}
	return out
}

// roles runs each role against real engines until the test ends.
func roles(t *testing.T) map[string]*process {
	t.Helper()
	brokers, prefix := enginetest.Kafka(t)
	views := postgresFlags{Postgres: enginetest.NewDatabase(t), PostgresSchema: "views"}
	addr, password, database := enginetest.NewClickHouseDatabase(t)
	history := clickhouseFlags{
		Clickhouse:         []string{addr},
		ClickhouseProtocol: "http",
		ClickhouseDatabase: database,
		ClickhouseUser:     "default",
		ClickhousePassword: password,
	}
	files := secretsFlags{Secrets: filepath.Join(t.TempDir(), "secrets")}
	if err := secrets.Ensure(files.Secrets); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	all := map[string]*process{}
	for _, role := range []string{"threads", "history", "delivery", "edge"} {
		ctx, stop := context.WithCancel(t.Context())
		p, err := newProcess(log, adminFlags{Admin: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		cfg := kafkaFlags{Kafka: brokers, TopicPrefix: prefix, Partitions: 2}.config(log, p.reg, "helio-"+role)
		p.makesLog = true
		bases, err := p.openLog(ctx, &cfg)
		if err != nil {
			t.Fatal(err)
		}
		conf, err := p.links(files)
		if err != nil {
			t.Fatal(err)
		}
		switch role {
		case "threads":
			p.watchTopics(cfg)
			err = addThreads(ctx, p, cfg, views, role, 720*time.Hour, 10*time.Second)
		case "history":
			err = addHistory(ctx, p, cfg, history, 1, role, 10*time.Second)
		case "delivery":
			_, err = addDelivery(p, delivery.Config{Kafka: cfg, Name: role, Addr: "127.0.0.1:1"})
		default:
			_, err = addEdge(ctx, p, edgeParts{
				name: role, listen: "127.0.0.1:0", maxConnections: 10, sendsPerDay: 10, kafka: cfg, bases: bases,
				postgres: views, clickhouse: history, deliveryGroup: delivery.Group(cfg),
				secrets: files, directory: link.Static{}, dialer: link.QUICDialer{TLS: conf},
				sender: auth.NewFileSender(filepath.Join(t.TempDir(), "sms"), log),
			})
		}
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		p.announce(cfg, role, role)
		ended := make(chan error, 1)
		go func() { ended <- p.run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", role, err)
			}
		})
		all[role] = p
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\bhelio_[a-z0-9_]+`)
	labelLists = regexp.MustCompile(`\bby \(([^)]*)\)|\{([^}]*)\}`)
	// what a legend or a summary names
	legendLabels = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z]+)\s*\}\}`)
	suffixes     = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// checkQuery tells what a query asks for that no role exports.
func checkQuery(query string, exported map[string][]string) error {
	if strings.Count(query, "(") != strings.Count(query, ")") {
		return fmt.Errorf("%s: brackets do not match", query)
	}
	// Both sides of an or stand for themselves.
	for _, part := range strings.Split(query, " or ") {
		names := metricName.FindAllString(part, -1)
		if len(names) == 0 {
			return fmt.Errorf("%s: no metric", part)
		}
		var labels []string
		for _, name := range names {
			have, found := exported[name]
			if !found {
				have, found = exported[suffixes.ReplaceAllString(name, "")]
			}
			if !found {
				return fmt.Errorf("%s: no role exports %s", query, name)
			}
			labels = append(labels, have...)
		}
		for _, list := range labelLists.FindAllStringSubmatch(part, -1) {
			for _, l := range strings.Split(list[1]+list[2], ",") {
				name := strings.TrimSpace(regexp.MustCompile(`[=!~].*`).ReplaceAllString(l, ""))
				if !slices.Contains(labels, name) {
					return fmt.Errorf("%s: %v have no label %q", part, names, name)
				}
			}
		}
	}
	return nil
}

func TestDashboardAndAlertsAskForWhatIsExported(t *testing.T) {
	alerts := alertRules(t)
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(deployed(t, "grafana.json"), &board); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, p := range roles(t) {
		maps.Copy(all, described(p.reg))
	}
	tried := string(deployed(t, "alerts_test.yaml"))
	queries, seen := 0, map[string]bool{}
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			queries++
			if err := checkQuery(r.Expr, all); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil || r.Labels["severity"] == "" ||
				seen[r.Alert] {
				t.Errorf("%s: for %q, labels %v, or it is there twice", r.Alert, r.For, r.Labels)
			}
			seen[r.Alert] = true
			if !regexp.MustCompile(`alertname: ` + r.Alert + `\n *exp_alerts:`).MatchString(tried) {
				t.Errorf("%s: no series in alerts_test.yaml set it off", r.Alert)
			}
			if !regexp.MustCompile(`\{ eval_time: \w+, alertname: ` + r.Alert + ` \}`).MatchString(tried) {
				t.Errorf("%s: no series in alerts_test.yaml leave it alone", r.Alert)
			}
			grouped := strings.Contains(r.Expr, " by (")
			for _, m := range legendLabels.FindAllStringSubmatch(r.Annotations["summary"], -1) {
				if grouped && !regexp.MustCompile(`by \([^)]*\b`+m[1]+`\b`).MatchString(r.Expr) {
					t.Errorf("%s: its summary names %s, which its query sums away", r.Alert, m[1])
				}
			}
		}
	}
	for i, p := range board.Panels {
		for _, q := range p.Targets {
			queries++
			if err := checkQuery(q.Expr, all); err != nil {
				t.Errorf("%s: %v", p.Title, err)
			}
			for _, m := range legendLabels.FindAllStringSubmatch(q.LegendFormat, -1) {
				if strings.Contains(q.Expr, " by (") &&
					!regexp.MustCompile(`by \([^)]*\b`+m[1]+`\b`).MatchString(q.Expr) {
					t.Errorf("%s: its legend names %s, which its query sums away", p.Title, m[1])
				}
			}
		}
		for _, o := range board.Panels[:i] {
			a, b := p.GridPos, o.GridPos
			if p.ID == o.ID || a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s and %s lie on each other", p.Title, o.Title)
			}
		}
	}
	// The first gauges of health are queue lengths.
	for _, name := range []string{
		"helio_session_outbox_frames", "helio_ingest_buffered_records", "helio_kafka_lag_records",
		"helio_kafka_lag_seconds",
		"helio_replica_oldest_undelivered_seconds", "helio_fanout_oldest_undelivered_seconds",
		"helio_delivery_oldest_undelivered_seconds",
	} {
		found := false
		for _, p := range board.Panels[:7] {
			for _, q := range p.Targets {
				found = found || strings.Contains(q.Expr, name)
			}
		}
		if !found {
			t.Errorf("%s is not in the dashboard's first row", name)
		}
	}
	if queries < 30 {
		t.Errorf("only %d queries were found", queries)
	}
}
