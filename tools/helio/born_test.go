package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// TestCountersAreBornAtZero: every counter of every role is there before it counts anything, with every combination of
// its labels' values, so that the first event of its kind is an increase.
func TestCountersAreBornAtZero(t *testing.T) {
	// Counters that may be born late.
	late := map[string]string{
		"helio_auth_sms_over_budget_total": "there are as many countries",
	}
	// Counters of which not every combination can be.
	sparse := map[string]string{
		"helio_threads_events_total": "each topic has outcomes of its own",
		"helio_history_events_total": "each topic has outcomes of its own",
	}
	ours := func(name string) bool { // those of the Kafka client are its library's, by broker
		return strings.HasPrefix(name, "helio_") && strings.HasSuffix(name, "_total") &&
			!strings.HasPrefix(name, "helio_kafka_client_") && late[name] == ""
	}
	for role, p := range roles(t) {
		names := described(p.reg)
		maps.DeleteFunc(names, func(name string, _ []string) bool { return !ours(name) })
		var missing []string
		for deadline := time.Now().Add(wait / 6); ; { // services are counted from when they start
			families, err := p.reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]*dto.MetricFamily{}
			for _, f := range families {
				have[f.GetName()] = f
			}
			missing = nil
			for name := range names {
				missing = append(missing, unborn(name, have[name], sparse[name] != "")...)
			}
			if len(missing) == 0 || time.Now().After(deadline) {
				break
			}
			<-time.After(10 * time.Millisecond)
		}
		for _, m := range missing {
			t.Errorf("%s: %s", role, m)
		}
	}
}

// unborn says which samples of a counter are not there.
func unborn(name string, f *dto.MetricFamily, sparse bool) []string {
	if f == nil {
		return []string{name + " has no sample"}
	}
	values := map[string]map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if values[l.GetName()] == nil {
				values[l.GetName()] = map[string]bool{}
			}
			values[l.GetName()][l.GetValue()] = true
		}
	}
	combinations := 1
	for _, v := range values {
		combinations *= len(v)
	}
	if n := len(f.GetMetric()); n != combinations && !sparse {
		return []string{fmt.Sprintf("%s has %d samples of %d: %v", name, n, combinations, values)}
	}
	return nil
}
