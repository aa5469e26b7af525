package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"heliograph/infra/kafka"
	"heliograph/infra/roster"
)

// rosterWindow is how far back the roster is read: what is older says nothing of who runs.
const rosterWindow = 15 * time.Minute

// The states of a process.
const (
	// StateRuns: it was heard lately.
	// StateStopped: it said that it stops.
	// StateSilent: it was not heard lately; it is dead, or does not reach the log.
	StateRuns    = "runs"
	StateStopped = "stopped"
	StateSilent  = "silent"
)

// Process is a process of the deployment as the roster has it.
type Process struct {
	roster.Role
	State string `json:"state"`
	// Lacks are the event types that others read and it does not.
	Lacks []string `json:"lacks,omitempty"`
}

// Processes lists the processes that were heard within the last quarter of an hour.
func Processes(ctx context.Context, cfg kafka.Config) ([]Process, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	roles, err := roster.Read(ctx, cfg, rosterWindow)
	if err != nil {
		return nil, err
	}
	return processes(roles, time.Now()), nil
}

func processes(roles []roster.Role, now time.Time) []Process {
	known := map[string]bool{}
	out := make([]Process, len(roles))
	for i, r := range roles {
		out[i] = Process{Role: r, State: StateSilent}
		switch {
		case r.Left:
			out[i].State = StateStopped
		case r.Alive(now):
			out[i].State = StateRuns
			for _, t := range r.Types {
				known[t] = true
			}
		}
	}
	for i := range out {
		for t := range known {
			if !slices.Contains(out[i].Types, t) && out[i].State == StateRuns {
				out[i].Lacks = append(out[i].Lacks, t)
			}
		}
		slices.Sort(out[i].Lacks)
	}
	return out
}

// scrapeTime bounds the asking of one process for its metrics, and maxScrape what is read of its answer.
const (
	scrapeTime = 2 * time.Second
	maxScrape  = 32 << 20
)

// Gauges are the queues and ages of a process, by the names of its metrics.
type Gauges struct {
	Process Process `json:"process"`
	Error   string  `json:"error,omitempty"` // it did not answer
	// By metric; summed over labels, or the highest of an age.
	Queues map[string]float64 `json:"queues,omitempty"`
}

// The metrics that are shown of a process.
const (
	OutboxFrames    = "helio_session_outbox_frames"
	OutboxBytes     = "helio_session_outbox_bytes"
	ProduceRecords  = "helio_ingest_buffered_records"
	FetchedRecords  = "helio_kafka_queue_records"
	LinkFrames      = "helio_delivery_link_queue_frames"
	Connections     = "helio_edge_connections_count"
	SlotsStalled    = "helio_kafka_slots_stalled"
	BudgetUsed      = "helio_budget_used_bytes"
	BudgetLimit     = "helio_budget_limit_bytes"
	OldestInOutbox  = "helio_session_oldest_undelivered_seconds"
	OldestAtReplica = "helio_replica_oldest_undelivered_seconds"
	OldestHeldBack  = "helio_fanout_oldest_undelivered_seconds"
	OldestUnpushed  = "helio_delivery_oldest_undelivered_seconds"
)

// shownMetrics tells of each whether the highest of its samples counts, and not their sum.
var shownMetrics = map[string]bool{
	OutboxFrames: false, OutboxBytes: false, ProduceRecords: false, FetchedRecords: false, LinkFrames: true,
	Connections: false, SlotsStalled: false, BudgetUsed: false, BudgetLimit: false,
	OldestInOutbox: true, OldestAtReplica: true, OldestHeldBack: true, OldestUnpushed: true,
}

// Oldest is the age of the oldest event that the process holds back from devices.
func (g *Gauges) Oldest() float64 {
	return max(g.Queues[OldestInOutbox], g.Queues[OldestAtReplica], g.Queues[OldestHeldBack], g.Queues[OldestUnpushed])
}

// Waiting is how many frames and records wait in the process.
func (g *Gauges) Waiting() float64 {
	return g.Queues[OutboxFrames] + g.Queues[ProduceRecords] + g.Queues[FetchedRecords] + g.Queues[LinkFrames]
}

// Scrape asks the processes that run for their metrics, all at the same time.
func Scrape(ctx context.Context, all []Process) []Gauges {
	client := &http.Client{Timeout: scrapeTime, Transport: &http.Transport{DisableKeepAlives: true}}
	var out []Gauges
	for _, p := range all {
		if p.State == StateRuns {
			out = append(out, Gauges{Process: p})
		}
	}
	var asked sync.WaitGroup
	for i := range out {
		asked.Go(func() {
			queues, err := scrape(ctx, client, out[i].Process.Admin)
			if out[i].Queues = queues; err != nil {
				out[i].Error = err.Error()
			}
		})
	}
	asked.Wait()
	return out
}

func scrape(ctx context.Context, client *http.Client, addr string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // without the method and the URL
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", addr, answer.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(answer.Body, maxScrape))
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", addr, err)
	}
	out := map[string]float64{}
	for name, highest := range shownMetrics {
		family, ok := families[name]
		if !ok || family.GetType() != dto.MetricType_GAUGE {
			continue
		}
		for _, m := range family.GetMetric() {
			if v := m.GetGauge().GetValue(); highest {
				out[name] = max(out[name], v)
			} else {
				out[name] += v
			}
		}
	}
	return out, nil
}
