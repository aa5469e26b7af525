package kafka

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"heliograph/schemas/topic"
)

// TestUnsafeTopics: topics that were made while brokers were missing, or that acknowledge too soon, are warned of at
// each start; ours are not.
func TestUnsafeTopics(t *testing.T) {
	_, cfg, cl := cluster(t, kfake.NumBrokers(3))
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ensure := func() string {
		t.Helper()
		log.Reset()
		if _, err := EnsureTopics(t.Context(), cl, cfg); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	if got := ensure(); got != "" {
		t.Errorf("topics of our own making: %s", got)
	}
	cfg.TopicPrefix = "poor."
	for tp, rf := range map[topic.Topic]int16{topic.Threads: 1, topic.Users: 3} {
		conf := map[string]*string{minInSync: kadm.StringPtr("1")}
		for k, v := range settings(tp) {
			conf[k] = kadm.StringPtr(v)
		}
		if resp, err := kadm.NewClient(cl).CreateTopic(t.Context(), testSlots, rf, conf, cfg.Name(tp)); err != nil ||
			resp.Err != nil {
			t.Fatal(err, resp.Err)
		}
	}
	for range 2 { // the others are made by the first
		lines := strings.Split(strings.TrimSpace(ensure()), "\n")
		var replicas, inSync bool
		for _, l := range lines {
			replicas = replicas ||
				strings.Contains(l, "topic="+cfg.Name(topic.Threads)+" setting=replicas have=1 want=3")
			inSync = inSync ||
				strings.Contains(l, "topic="+cfg.Name(topic.Users)+" setting="+minInSync+" have=1")
		}
		if !replicas || !inSync || len(lines) != 2 {
			t.Errorf("got %q, want a warning of one replica of threads and one of min.insync.replicas of users", lines)
		}
	}
}
