package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	realkafka "heliograph/infra/kafka/real"
	"heliograph/schemas/topic"
)

// anyLog are the tests that hold on every log.
var anyLog = []struct {
	name string
	run  func(*testing.T, Config, *kgo.Client)
}{
	{"EachSinkCallFailsOnce", eachSinkCallFailsOnce},
	{"RebalanceMovesSlots", rebalanceMovesSlots},
	{"StaticMembershipMovesNothing", staticMembershipMovesNothing},
	{"ReplayEndsAtThePinnedEnd", replayEndsAtThePinnedEnd},
	{"Base", base},
	{"Lag", lag},
}

func TestFake(t *testing.T) {
	for _, c := range anyLog {
		t.Run(c.name, func(t *testing.T) {
			_, cfg, cl := cluster(t)
			c.run(t, cfg, cl)
		})
	}
}

func TestReal(t *testing.T) {
	addr := realkafka.Start(t)
	for _, c := range append(anyLog, struct {
		name string
		run  func(*testing.T, Config, *kgo.Client)
	}{"Topics", realTopics}) {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Brokers: []string{addr}, ClientID: "test", TopicPrefix: c.name + ".", Partitions: testSlots}
			cl, err := Dial(cfg, ProducerOpts(ProducerConfig{})...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if _, err := EnsureTopics(t.Context(), cl, cfg); err != nil {
				t.Fatal(err)
			}
			c.run(t, cfg, cl)
		})
	}
}

// realTopics checks what kfake ignores: the settings, and that mending them is accepted.
func realTopics(t *testing.T, cfg Config, cl *kgo.Client) {
	adm := kadm.NewClient(cl)
	ruin := []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("604800000")},
		{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: kadm.StringPtr("CreateTime")},
		{Op: kadm.SetConfig, Name: unclean, Value: kadm.StringPtr("true")},
	}
	if _, err := adm.AlterTopicConfigs(t.Context(), ruin, cfg.Name(topic.Threads)); err != nil {
		t.Fatal(err)
	}
	eventually(
		t, "the topic is ruined",
		func() bool { return setting(t, adm, cfg.Name(topic.Threads), "retention.ms") == "604800000" },
	)
	if p, err := OpenTopics(t.Context(), cl, cfg); err != nil || p != testSlots {
		t.Fatalf("OpenTopics = %d, %v", p, err)
	}
	eventually(t, unclean+" is mended", func() bool {
		return setting(t, adm, cfg.Name(topic.Threads), unclean) == "false"
	})
	tooMany := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: minInSync, Value: kadm.StringPtr("2")}}
	if _, err := adm.AlterTopicConfigs(t.Context(), tooMany, cfg.Name(topic.Users)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one replica of two", func() bool {
		return setting(t, adm, cfg.Name(topic.Users), minInSync) == "2"
	})
	var wrong *SettingError
	if _, err := OpenTopics(t.Context(), cl, cfg); !errors.As(err, &wrong) || wrong.Setting != minInSync {
		t.Errorf("more replicas asked for than there are: %v", err)
	}
	for _, tp := range topic.All {
		for k, want := range settings(tp) {
			eventually(
				t, cfg.Name(tp)+" "+k+" = "+want,
				func() bool { return sameSetting(setting(t, adm, cfg.Name(tp), k), want) },
			)
		}
	}
}

func setting(t *testing.T, adm *kadm.Client, name, key string) string {
	t.Helper()
	rcs, err := adm.DescribeTopicConfigs(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, rc := range rcs {
		for _, c := range rc.Configs {
			if c.Key == key {
				return c.MaybeValue()
			}
		}
	}
	return ""
}
