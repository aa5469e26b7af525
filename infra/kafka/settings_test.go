package kafka

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/schemas/topic"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name              string
		topic             topic.Topic
		set               map[string]string
		replicas, brokers int
		want              []finding
	}{
		{"as made", topic.Threads, nil, 3, 3, nil},
		{"more than must be", topic.Users, map[string]string{maxMessage: "2000000", minInSync: "3"}, 3, 5, nil},
		{"in another order", topic.Presence, map[string]string{cleanupPolicy: "delete, compact"}, 3, 3, nil},
		{"everything", topic.Threads, map[string]string{
			cleanupPolicy: "compact", retentionMs: "604800000", retentionBytes: "1", stampType: "CreateTime",
			maxMessage: "1000", unclean: "true", minInSync: "1",
		}, 3, 3, []finding{
			{topic.Threads, cleanupPolicy, "compact", "delete", mendOrRefuse},
			{topic.Threads, maxMessage, "1000", "1048588", mendOrRefuse},
			{topic.Threads, stampType, "CreateTime", "LogAppendTime", mendOrWarn},
			{topic.Threads, minInSync, "1", "2", warn},
			{topic.Threads, retentionBytes, "1", "-1", mendOrRefuse},
			{topic.Threads, retentionMs, "604800000", "-1", mendOrRefuse},
			{topic.Threads, unclean, "true", "false", mendOrWarn},
		}},
		{"more than replicas", topic.Users, map[string]string{minInSync: "3"}, 2, 2, []finding{
			{topic.Users, minInSync, "3", "1", refuse},
		}},
		{"one replica of three", topic.Users, map[string]string{minInSync: "1"}, 1, 4, []finding{
			{topic.Users, hasReplicas, "1", "3", warn},
		}},
	} {
		is := created(c.topic, c.replicas)
		is[unclean] = "false"
		maps.Copy(is, c.set)
		if d := cmp.Diff(c.want, judge(c.topic, is, c.replicas, c.brokers), cmp.AllowUnexported(finding{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// TestOpenTopics: a role makes no topic, and says what does.
func TestOpenTopics(t *testing.T) {
	fake, cfg, cl := cluster(t)
	if p, err := OpenTopics(t.Context(), cl, cfg); err != nil || p != testSlots {
		t.Fatalf("a log that is there: %d, %v", p, err)
	}
	other := cfg
	other.TopicPrefix = "other."
	var none *MissingTopicsError
	if _, err := OpenTopics(t.Context(), cl, other); !errors.As(err, &none) || none.Present != 0 ||
		!strings.Contains(none.Error(), "helio init --partitions") {
		t.Errorf("no log: %v", err)
	}
	if fake.TopicInfo("other.threads") != nil {
		t.Error("a role has made a topic")
	}
	if err := fake.DeleteTopic(cfg.Name(topic.Users)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTopics(t.Context(), cl, cfg); !errors.As(err, &none) ||
		!cmp.Equal(none.Missing, []string{cfg.Name(topic.Users)}) || strings.Contains(none.Error(), "\n") {
		t.Errorf("a topic that was deleted: %v", err)
	}
}

// TestPlanTopics: what is planned is what is made, and planning makes nothing.
func TestPlanTopics(t *testing.T) {
	fake, cfg, cl := cluster(t, kfake.NumBrokers(3))
	cfg.TopicPrefix, cfg.Partitions = "plan.", 8
	if err := fake.CreateTopic("plan.users", 8, map[string]string{retentionMs: "604800000"}); err != nil {
		t.Fatal(err)
	}
	p, err := PlanTopics(t.Context(), cl, cfg, 2)
	if err != nil {
		t.Fatal(err)
	}
	if fake.TopicInfo("plan.threads") != nil || p.Partitions != 8 || p.Replicas != 2 || p.Brokers != 3 {
		t.Errorf("plan %+v", p)
	}
	for _, tp := range p.Topics {
		if tp.Topic != topic.Users {
			if tp.Exists || tp.Settings[retentionMs] == "" || tp.Replicas != 2 {
				t.Errorf("plan of %s: %+v", tp.Name, tp)
			}
			continue
		}
		found := false
		for _, c := range tp.Changes {
			found = found || c == Change{retentionMs, "604800000", "-1", true}
		}
		if !tp.Exists || !found {
			t.Errorf("plan of %s: %+v", tp.Name, tp)
		}
	}
	if err := p.Apply(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	if info := fake.TopicInfo("plan.threads"); info == nil || info.NumReplicas != 2 {
		t.Errorf("made: %+v", info)
	}
	again, err := PlanTopics(t.Context(), cl, cfg, 2)
	if err != nil || len(again.Missing()) != 0 {
		t.Fatalf("made, and missing %v, %v", again.Missing(), err)
	}
	for _, tp := range again.Topics {
		for _, c := range tp.Changes {
			if c.Mended {
				t.Errorf("%s: %+v is still to be done", tp.Name, c)
			}
		}
	}
}

// forbid makes the cluster refuse changes of settings until the returned function is called.
func forbid(fake *kfake.Cluster) (allow func()) {
	h := fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Count: -1, Err: kerr.TopicAuthorizationFailed,
	})
	return h.Remove
}

func ruin(t *testing.T, cl *kgo.Client, name, setting, value string) {
	t.Helper()
	alter := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: setting, Value: &value}}
	resp, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), alter, name)
	for _, r := range resp {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestForbiddenSettings: where the cluster does not let us mend, a start fails by rule, in one line that says what to
// do.
func TestForbiddenSettings(t *testing.T) {
	fake, cfg, cl := cluster(t)
	name := cfg.Name(topic.Threads)
	ruin(t, cl, name, stampType, "CreateTime")
	allow := forbid(fake)
	if _, err := OpenTopics(t.Context(), cl, cfg); err != nil {
		t.Errorf("%s is warned of: %v", stampType, err)
	}
	allow()
	ruin(t, cl, name, retentionMs, "1000000")
	allow = forbid(fake)
	var wrong *SettingError
	_, err := OpenTopics(t.Context(), cl, cfg)
	if !errors.As(err, &wrong) || wrong.Topic != name || wrong.Setting != retentionMs || wrong.Have != "1000000" ||
		!errors.Is(err, kerr.TopicAuthorizationFailed) || !strings.Contains(err.Error(), "kafka-configs.sh") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	allow()
	if _, err := OpenTopics(t.Context(), cl, cfg); err != nil {
		t.Error(err)
	}
}

// TestTopicWatch: what is changed while a role runs is mended, or shown, and told once.
func TestTopicWatch(t *testing.T) {
	fake, cfg, cl := cluster(t)
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	cfg.Logger, cfg.Registerer = slog.New(slog.NewTextHandler(&log, nil)), reg
	w := NewTopicWatch(cfg)
	shown := func(tp topic.Topic, s string) float64 {
		var m dto.Metric
		if err := w.wrong.WithLabelValues(string(tp), s).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetGauge().GetValue()
	}
	if fams, err := reg.Gather(); err != nil || len(fams) != 1 ||
		len(fams[0].GetMetric()) != len(topic.All)*len(watched) {
		t.Errorf("born with %v, %v", fams, err)
	}
	look := func() {
		t.Helper()
		log.Reset()
		if err := w.look(t.Context(), cl); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if log.Len() > 0 {
		t.Errorf("all is well: %s", log.String())
	}
	name := cfg.Name(topic.Threads)
	ruin(t, cl, name, retentionMs, "1000000")
	look()
	v := fake.TopicInfo(name).Configs[retentionMs]
	if v == nil || *v != "-1" || shown(topic.Threads, retentionMs) != 0 {
		t.Errorf("not mended: %s", log.String())
	}
	ruin(t, cl, name, retentionMs, "1000000")
	allow := forbid(fake)
	look()
	if shown(topic.Threads, retentionMs) != 1 || !strings.Contains(log.String(), why[retentionMs]) {
		t.Errorf("not shown: %s", log.String())
	}
	look()
	if log.Len() > 0 {
		t.Errorf("told twice: %s", log.String())
	}
	allow()
	look()
	if shown(topic.Threads, retentionMs) != 0 || !strings.Contains(log.String(), "right again") {
		t.Errorf("still shown: %s", log.String())
	}
	if err := fake.DeleteTopic(cfg.Name(topic.Users)); err != nil {
		t.Fatal(err)
	}
	w.cfg.Partitions++
	look()
	if shown(topic.Users, isThere) != 1 || shown(topic.Threads, hasParts) != 1 || shown(topic.Threads, isThere) != 0 {
		t.Errorf("a topic was deleted, and P is another: %s", log.String())
	}
}

// TestTopicWatchRuns: the first look comes at once, the next ones by the clock, and one that fails ends nothing.
func TestTopicWatchRuns(t *testing.T) {
	fake, cfg, cl := cluster(t)
	cfg.Registerer = prometheus.NewRegistry()
	w := NewTopicWatch(cfg)
	w.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for range 2 {
		ruin(t, cl, cfg.Name(topic.Threads), retentionMs, "1000000")
		eventually(t, "mended", func() bool {
			v := fake.TopicInfo(cfg.Name(topic.Threads)).Configs[retentionMs]
			return v != nil && *v == "-1"
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
