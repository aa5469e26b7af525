package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// PartitionsError says that a topic's partition count is not P: positions and slots would lose their meaning, so
// nothing may start.
type PartitionsError struct {
	Topic string // as named on the cluster
	Have  int
	Want  int
}

// Error names the topic, both counts and what mends it.
func (e *PartitionsError) Error() string {
	return fmt.Sprintf(
		"kafka: topic %s has %d partitions, not %d: partitions are never added to a live topic; "+
			"set the partition count that the log has, or reshard",
		e.Topic, e.Have, e.Want,
	)
}

// MissingTopicsError says that the log is not there, or not all of it.
type MissingTopicsError struct {
	Brokers []string
	Missing []string // as named on the cluster
	Present int      // how many of ours are there
}

// Error names the command that makes the log.
func (e *MissingTopicsError) Error() string {
	if e.Present == 0 {
		return fmt.Sprintf("kafka: there is no log at %s (no topic %s): make it, once, with "+
			"'helio init --partitions 1024 --replicas 3'", strings.Join(e.Brokers, ","), e.Missing[0])
	}
	return fmt.Sprintf("kafka: the log at %s lacks %s, whose records nobody can bring back if it was deleted: "+
		"'helio init' makes what is missing", strings.Join(e.Brokers, ","), strings.Join(e.Missing, ", "))
}

// Unfit says that the log is reached and not as it must be: waiting does not mend it.
func Unfit(err error) bool {
	var (
		count   *PartitionsError
		missing *MissingTopicsError
		setting *SettingError
	)
	return errors.As(err, &count) || errors.As(err, &missing) || errors.As(err, &setting)
}

// Plan is what a log has and what it lacks.
type Plan struct {
	Partitions int // P
	Replicas   int // of topics that are made
	Brokers    int
	Topics     []TopicPlan // in the order of topic.All

	cfg   Config
	found []finding
}

// TopicPlan is what is to be done for one topic.
type TopicPlan struct {
	Topic    topic.Topic
	Name     string // on the cluster
	Exists   bool
	Replicas int               // that it has, or will have
	Settings map[string]string // what it is made with; nil where it exists
	Changes  []Change          // what is wrong where it exists
}

// Change is a setting of a topic that is there and not as it must be.
type Change struct {
	Setting string `json:"setting"`
	Have    string `json:"have"`
	Want    string `json:"want"`
	Mended  bool   `json:"mended"` // we set it; else it is an operator's to set
}

// PlanTopics looks at the log and changes nothing. A topic that is missing gets as many replicas as replicas says; 0:
// as many as there are brokers at this moment, at most three. Topics with another partition count than cfg.Partitions,
// or than each other, are a *PartitionsError.
func PlanTopics(ctx context.Context, cl *kgo.Client, cfg Config, replicas int) (*Plan, error) {
	names := make([]string, len(topic.All))
	for i, t := range topic.All {
		names[i] = cfg.Name(t)
	}
	have, brokers, err := look(ctx, cl, names...)
	if err != nil {
		return nil, fmt.Errorf("kafka: read topics from %s: %w", strings.Join(cfg.Brokers, ","), err)
	}
	if replicas == 0 {
		replicas = min(safeReplicas, max(1, brokers))
	}
	p := &Plan{Partitions: cfg.Partitions, Replicas: replicas, Brokers: brokers, cfg: cfg}
	for i, t := range topic.All {
		h, ok := have[names[i]]
		tp := TopicPlan{Topic: t, Name: names[i], Exists: ok, Replicas: replicas}
		if ok {
			tp.Replicas = h.replicas
			if p.Partitions == 0 {
				p.Partitions = h.partitions
			}
			if h.partitions != p.Partitions {
				return nil, &PartitionsError{Topic: names[i], Have: h.partitions, Want: p.Partitions}
			}
		} else {
			tp.Settings = created(t, replicas)
		}
		p.Topics = append(p.Topics, tp)
	}
	if p.Partitions == 0 {
		p.Partitions = topic.DefaultPartitions
	}
	if p.found, err = inspect(ctx, kadm.NewClient(cl), cfg, p.present(), have, brokers); err != nil {
		return nil, err
	}
	for _, f := range p.found {
		i := slices.IndexFunc(p.Topics, func(tp TopicPlan) bool { return tp.Topic == f.topic })
		mended := f.rule == mendOrRefuse || f.rule == mendOrWarn
		p.Topics[i].Changes = append(p.Topics[i].Changes, Change{f.setting, f.have, f.want, mended})
	}
	return p, nil
}

// Missing returns the topics that are not there.
func (p *Plan) Missing() []string {
	var names []string
	for _, tp := range p.Topics {
		if !tp.Exists {
			names = append(names, tp.Name)
		}
	}
	return names
}

func (p *Plan) present() []topic.Topic {
	var ts []topic.Topic
	for _, tp := range p.Topics {
		if tp.Exists {
			ts = append(ts, tp.Topic)
		}
	}
	return ts
}

// Apply makes the topics that are missing and mends the settings of those that are there (a broker that created a topic
// by itself would forget messages after a week). What may not be so, and cannot be mended, is a *SettingError.
func (p *Plan) Apply(ctx context.Context, cl *kgo.Client) error {
	for _, tp := range p.Topics {
		if tp.Exists {
			continue
		}
		if err := createTopic(ctx, cl, tp, p.Partitions); err != nil {
			return err
		}
		p.cfg.logger().Info("topic created", "topic", tp.Name, "partitions", p.Partitions, "replicas", tp.Replicas)
	}
	left, refused, err := mend(ctx, kadm.NewClient(cl), p.cfg, p.found)
	if err != nil {
		return err
	}
	for _, f := range left {
		f.tell(p.cfg)
	}
	return refused
}

// EnsureTopics creates the topics that are missing, mends the settings of those that are there and returns P: what the
// embedded log's users and tests call at every start. Topics that are made get as many replicas as PlanTopics says of
// 0; what was made while some brokers were not there yet stays so, and is warned of at each start.
func EnsureTopics(ctx context.Context, cl *kgo.Client, cfg Config) (int, error) {
	p, err := PlanTopics(ctx, cl, cfg, 0)
	if err != nil {
		return 0, err
	}
	return p.Partitions, p.Apply(ctx, cl)
}

// OpenTopics is EnsureTopics for a log that somebody made on purpose: what is missing is a *MissingTopicsError.
func OpenTopics(ctx context.Context, cl *kgo.Client, cfg Config) (int, error) {
	p, err := PlanTopics(ctx, cl, cfg, 0)
	if err != nil {
		return 0, err
	}
	if missing := p.Missing(); len(missing) > 0 {
		return 0, &MissingTopicsError{Brokers: cfg.Brokers, Missing: missing, Present: len(p.Topics) - len(missing)}
	}
	return p.Partitions, p.Apply(ctx, cl)
}

func createTopic(ctx context.Context, cl *kgo.Client, tp TopicPlan, p int) error {
	name := tp.Name
	conf := make(map[string]*string)
	for k, v := range tp.Settings {
		conf[k] = kadm.StringPtr(v)
	}
	resp, err := kadm.NewClient(cl).CreateTopics(ctx, int32(p), int16(tp.Replicas), conf, name)
	if err != nil {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	}
	// Another process may have created it between our look and now; its count is checked by the next look.
	if err := resp[name].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("kafka: create topic %s: %w", name, err)
	} else if err == nil {
		return nil
	}
	// A topic that exists is not yet known everywhere: a broker that is asked in that moment knows nothing of it.
	var wait run.Backoff
	for {
		have, _, err := look(ctx, cl, name)
		switch {
		case err != nil:
			return fmt.Errorf("kafka: read topic %s: %w", name, err)
		case have[name].partitions == p:
			return nil
		case have[name].partitions != 0:
			return &PartitionsError{Topic: name, Have: have[name].partitions, Want: p}
		}
		if err := wait.Wait(ctx); err != nil {
			return fmt.Errorf("kafka: topic %s exists, but no broker tells of it: %w", name, err)
		}
	}
}

// shape is how a topic is laid out.
type shape struct {
	partitions int
	replicas   int // of the partition that has the fewest
}

// look returns the shapes of the topics that are there, and how many brokers there are. It asks the cluster itself:
// kadm would answer from the client's cache, which does not know a topic that another process has just created.
func look(ctx context.Context, cl *kgo.Client, names ...string) (have map[string]shape, brokers int, err error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, 0, err
	}
	have = make(map[string]shape)
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if t.Topic == nil || errors.Is(err, kerr.UnknownTopicOrPartition) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
		s := shape{partitions: len(t.Partitions)}
		for k, p := range t.Partitions {
			if n := len(p.Replicas); k == 0 || n < s.replicas {
				s.replicas = n
			}
		}
		have[*t.Topic] = s
	}
	return have, len(resp.Brokers), nil
}

// listAnswered is listOffsets for those who can do without the partitions that have no leader now: those have an error.
func listAnswered(ctx context.Context, cl *kgo.Client, ends bool, names []string) (kadm.ListedOffsets, error) {
	adm := kadm.NewClient(cl)
	list := adm.ListStartOffsets
	if ends {
		list = adm.ListEndOffsets
	}
	back := run.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}
	for deadline := time.Now().Add(time.Second); ; {
		listed, err := list(ctx, names...)
		if err == nil && listed.Error() == nil {
			return listed, nil
		}
		if time.Now().Before(deadline) && back.Wait(ctx) == nil {
			continue
		}
		some := false
		listed.Each(func(o kadm.ListedOffset) { some = some || o.Err == nil })
		if some {
			return listed, nil
		}
		return nil, fmt.Errorf("kafka: list offsets: %w", errors.Join(err, listed.Error()))
	}
}

// listOffsets asks for the start or end offsets of topics that are known to exist. A client that asked before they did
// may have cached that they do not, so a retriable refusal is asked again for a while.
func listOffsets(ctx context.Context, cl *kgo.Client, ends bool, names []string) (kadm.ListedOffsets, error) {
	adm := kadm.NewClient(cl)
	back := run.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}
	what, list := "start", adm.ListStartOffsets
	if ends {
		what, list = "end", adm.ListEndOffsets
	}
	for deadline := time.Now().Add(3 * time.Second); ; {
		listed, err := list(ctx, names...)
		if err == nil {
			err = listed.Error()
		}
		if err == nil {
			return listed, nil
		}
		if !kerr.IsRetriable(err) || time.Now().After(deadline) || back.Wait(ctx) != nil {
			return nil, fmt.Errorf("kafka: list %s offsets: %w", what, err)
		}
	}
}
