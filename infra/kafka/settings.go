package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"heliograph/schemas/topic"
)

// The settings of topics that have a rule, and what else of a topic is looked at.
const (
	cleanupPolicy  = "cleanup.policy"
	retentionMs    = "retention.ms"
	retentionBytes = "retention.bytes"
	stampType      = "message.timestamp.type"
	segmentMs      = "segment.ms"
	unclean        = "unclean.leader.election.enable"
	minInSync      = "min.insync.replicas" // how many replicas must have a record before it is acknowledged
	maxMessage     = "max.message.bytes"   // the longest batch that a topic takes

	isThere      = "topic"
	hasParts     = "partitions"
	hasReplicas  = "replicas"
	stampsOfOurs = "LogAppendTime"
)

const (
	// lowestMax is what max.message.bytes must be at least: Kafka's own default, which MaxBatch fits. An operator may
	// set more.
	lowestMax = 1_048_588
	// presenceRetention is how long a presence record outlives the minute in which it means something.
	presenceRetention = "3600000"
	// safeReplicas is how many replicas a topic has where there are brokers enough, and safeInSync how many of so many
	// must have a record before it is acknowledged.
	safeReplicas = 3
	safeInSync   = 2
)

// settings returns what a topic is made with, but for what depends on its replicas.
func settings(t topic.Topic) map[string]string {
	m := map[string]string{
		cleanupPolicy:  "delete",
		retentionMs:    "-1",
		retentionBytes: "-1",
		stampType:      stampsOfOurs,
	}
	switch t {
	case topic.Receipts:
		m[cleanupPolicy] = "compact"
	case topic.Presence:
		m[cleanupPolicy] = "compact,delete"
		m[retentionMs] = presenceRetention
		m[segmentMs] = "600000"
	}
	return m
}

// created returns all that a topic is made with.
func created(t topic.Topic, replicas int) map[string]string {
	m := settings(t)
	m[maxMessage] = strconv.Itoa(lowestMax)
	m[minInSync] = "1"
	if replicas >= safeReplicas {
		m[minInSync] = strconv.Itoa(safeInSync)
	}
	return m
}

// rule says what is done about a setting that is not as it must be.
type rule int

// The rules; the package's documentation has the table.
const (
	mendOrRefuse rule = iota // set; where the cluster does not let us, nothing may start
	mendOrWarn               // set; where the cluster does not let us, an operator is told
	refuse                   // nothing may start
	warn                     // the operators' own choice, which they are told of
)

// rules are those of the settings that a topic is made with.
var rules = map[string]rule{
	cleanupPolicy: mendOrRefuse, retentionMs: mendOrRefuse, retentionBytes: mendOrRefuse, maxMessage: mendOrRefuse,
	stampType: mendOrWarn, segmentMs: mendOrWarn, unclean: mendOrWarn,
}

// why is what a wrong setting does.
var why = map[string]string{
	cleanupPolicy:  "the log forgets what views are built from",
	retentionMs:    "the log forgets what views are built from",
	retentionBytes: "the log forgets what views are built from",
	maxMessage:     "large events are refused",
	stampType:      "events bear the clocks of those who sent them",
	segmentMs:      "presence is kept longer than it means anything",
	unclean:        "a broker that is behind may become the leader, and acknowledged events are lost",
	minInSync:      "what is acknowledged may stand on a single broker",
	hasReplicas:    "what its brokers lose is lost; give it more with kafka-reassign-partitions",
	hasParts:       "positions and slots lose their meaning",
	isThere:        "nobody can send or read",
}

// SettingError says that a topic has a setting with which nothing may start, and that it could not be mended.
type SettingError struct {
	Topic   string // as named on the cluster
	Setting string
	Have    string
	Want    string
	Err     error // why the cluster did not let us set it; nil: it is not ours to set
}

// Error names the topic, the setting, what it does and what mends it, in one line.
func (e *SettingError) Error() string {
	what := why[e.Setting]
	if e.Err == nil {
		what = "no record can be acknowledged"
	}
	s := fmt.Sprintf("kafka: topic %s has %s=%s, not %s: %s; set it with kafka-configs.sh --alter --add-config %s=%s",
		e.Topic, e.Setting, e.Have, e.Want, what, e.Setting, e.Want)
	if e.Err != nil {
		s += fmt.Sprintf(" (helio may not: %v)", e.Err)
	}
	return s
}

// Unwrap returns the cluster's own error.
func (e *SettingError) Unwrap() error { return e.Err }

// finding is a setting that is not as it must be.
type finding struct {
	topic      topic.Topic
	setting    string
	have, want string
	rule       rule
}

// inspect compares the topics' settings with what they must be. A setting that the cluster does not know is none.
func inspect(
	ctx context.Context, adm *kadm.Client, cfg Config, ts []topic.Topic, shapes map[string]shape, brokers int,
) ([]finding, error) {
	if len(ts) == 0 {
		return nil, nil
	}
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = cfg.Name(t)
	}
	have, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("kafka: read topic settings: %w", err)
	}
	var all []finding
	for i, t := range ts {
		rc, err := have.On(names[i], nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return nil, fmt.Errorf("kafka: read settings of topic %s: %w", names[i], err)
		}
		is := make(map[string]string)
		for _, c := range rc.Configs {
			is[c.Key] = c.MaybeValue()
		}
		all = append(all, judge(t, is, shapes[names[i]].replicas, brokers)...)
	}
	return all, nil
}

// judge holds one topic's settings against the rules, in the order of their names.
func judge(t topic.Topic, is map[string]string, replicas, brokers int) []finding {
	var all []finding
	wrong := func(setting, have, want string, r rule) {
		all = append(all, finding{topic: t, setting: setting, have: have, want: want, rule: r})
	}
	for k, v := range settings(t) {
		if have := is[k]; !sameSetting(have, v) {
			wrong(k, have, v, rules[k])
		}
	}
	if have, known := is[unclean]; known && have != "false" {
		wrong(unclean, have, "false", rules[unclean])
	}
	if n, err := strconv.Atoi(is[maxMessage]); err != nil || n < lowestMax {
		wrong(maxMessage, is[maxMessage], strconv.Itoa(lowestMax), rules[maxMessage])
	}
	if n, err := strconv.Atoi(is[minInSync]); err == nil && replicas > 0 {
		switch {
		case n > replicas:
			wrong(minInSync, is[minInSync], strconv.Itoa(max(1, replicas-1)), refuse)
		case n < safeInSync && replicas >= safeReplicas:
			wrong(minInSync, is[minInSync], strconv.Itoa(safeInSync), warn)
		}
	}
	if want := min(safeReplicas, brokers); replicas < want {
		wrong(hasReplicas, strconv.Itoa(replicas), strconv.Itoa(want), warn)
	}
	slices.SortFunc(all, func(a, b finding) int { return strings.Compare(a.setting, b.setting) })
	return all
}

// mend sets what the rules let it, says what it did, and returns what is left. Settings that the cluster refuses to
// set are left; any other failure is an error.
func mend(ctx context.Context, adm *kadm.Client, cfg Config, all []finding) (left []finding, refused error, err error) {
	for _, f := range all {
		name := cfg.Name(f.topic)
		if f.rule == refuse {
			left = append(left, f)
			refused = errors.Join(refused, &SettingError{Topic: name, Setting: f.setting, Have: f.have, Want: f.want})
			continue
		}
		if f.rule == warn {
			left = append(left, f)
			continue
		}
		alter := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: f.setting, Value: kadm.StringPtr(f.want)}}
		resp, err := adm.AlterTopicConfigs(ctx, alter, name)
		for _, r := range resp {
			if err == nil {
				err = r.Err
			}
		}
		switch {
		case err == nil:
			cfg.logger().Warn("topic config corrected",
				"topic", name, "setting", f.setting, "was", f.have, "now", f.want)
		case !mayNot(err):
			return left, refused, fmt.Errorf("kafka: mend settings of topic %s: %w", name, err)
		default:
			left = append(left, f)
			if f.rule == mendOrRefuse {
				refused = errors.Join(refused,
					&SettingError{Topic: name, Setting: f.setting, Have: f.have, Want: f.want, Err: err})
			}
		}
	}
	return left, refused, nil
}

// mayNot tells a cluster that does not let us from one that cannot at the moment.
func mayNot(err error) bool {
	for _, e := range []error{
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.PolicyViolation, kerr.InvalidConfig,
		kerr.InvalidRequest, kerr.UnsupportedVersion,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tell logs a setting that stays wrong.
func (f finding) tell(cfg Config) {
	cfg.logger().Warn("topic setting is wrong: "+why[f.setting],
		"topic", cfg.Name(f.topic), "setting", f.setting, "have", f.have, "want", f.want)
}

// sameSetting compares list settings without regard to their order.
func sameSetting(a, b string) bool {
	split := func(s string) []string {
		parts := strings.Split(strings.ReplaceAll(s, " ", ""), ",")
		slices.Sort(parts)
		return parts
	}
	return slices.Equal(split(a), split(b))
}
