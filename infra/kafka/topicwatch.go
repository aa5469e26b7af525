package kafka

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

const (
	// topicsEvery is how often the topics are looked at while a role runs, and topicsFor how long a look may take.
	topicsEvery = 5 * time.Minute
	topicsFor   = 30 * time.Second
)

// TopicWatch looks at the topics every few minutes while a role runs: it mends what the rules let it and shows the rest
// in a metric and, when it changes, in the log. It never ends the role.
type TopicWatch struct {
	// fixed after NewTopicWatch
	cfg   Config
	every time.Duration
	wrong *prometheus.GaugeVec

	told map[wrongSetting]string // Run's: what the log was told of, and what the topic had then
}

type wrongSetting struct {
	topic   topic.Topic
	setting string
}

// watched are the settings that the metric shows.
var watched = append(slices.Sorted(maps.Keys(rules)), minInSync, hasReplicas, hasParts, isThere)

// NewTopicWatch returns a watch over the topics of cfg, whose Partitions is P.
func NewTopicWatch(cfg Config) *TopicWatch {
	w := &TopicWatch{cfg: cfg, every: topicsEvery, told: make(map[wrongSetting]string)}
	w.wrong = run.Register(cfg.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "helio_kafka_topic_setting_wrong",
		Help: "1 while a topic's setting is not as it must be and was not mended.",
	}, []string{"topic", "setting"}))
	for _, t := range topic.All {
		for _, s := range watched {
			w.wrong.WithLabelValues(string(t), s)
		}
	}
	return w
}

// Run looks at once and then every few minutes, until ctx ends, which is no error. Its client lives as long as a look.
func (w *TopicWatch) Run(ctx context.Context) error {
	next := time.NewTicker(w.every)
	defer next.Stop()
	for {
		if err := w.once(ctx); err != nil && ctx.Err() == nil {
			w.cfg.logger().Warn("topic settings cannot be looked at", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
	}
}

func (w *TopicWatch) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, topicsFor)
	defer cancel()
	quiet := w.cfg
	quiet.Registerer = nil // its connections are no part of the role's
	cl, err := Dial(quiet)
	if err != nil {
		return err
	}
	defer cl.Close()
	return w.look(ctx, cl)
}

func (w *TopicWatch) look(ctx context.Context, cl *kgo.Client) error {
	names := make([]string, len(topic.All))
	for i, t := range topic.All {
		names[i] = w.cfg.Name(t)
	}
	have, brokers, err := look(ctx, cl, names...)
	if err != nil {
		return err
	}
	var left []finding
	var present []topic.Topic
	for i, t := range topic.All {
		switch h, ok := have[names[i]]; {
		case !ok:
			left = append(left, finding{topic: t, setting: isThere, have: "missing", want: "there"})
			continue
		case h.partitions != w.cfg.Partitions:
			left = append(left, finding{
				topic: t, setting: hasParts,
				have: strconv.Itoa(h.partitions), want: strconv.Itoa(w.cfg.Partitions),
			})
		}
		present = append(present, t)
	}
	adm := kadm.NewClient(cl)
	all, err := inspect(ctx, adm, w.cfg, present, have, brokers)
	if err != nil {
		return err
	}
	more, _, err := mend(ctx, adm, w.cfg, all)
	w.show(append(left, more...))
	return err
}

// show sets the metric and tells what is new.
func (w *TopicWatch) show(left []finding) {
	now := make(map[wrongSetting]string)
	for _, f := range left {
		at := wrongSetting{f.topic, f.setting}
		now[at] = f.have
		if was, ok := w.told[at]; !ok || was != f.have {
			f.tell(w.cfg)
		}
	}
	for at := range w.told {
		if _, ok := now[at]; !ok {
			w.cfg.logger().Info("topic setting is right again", "topic", w.cfg.Name(at.topic), "setting", at.setting)
		}
	}
	for _, t := range topic.All {
		for _, s := range watched {
			v := 0.0
			if _, bad := now[wrongSetting{t, s}]; bad {
				v = 1
			}
			w.wrong.WithLabelValues(string(t), s).Set(v)
		}
	}
	w.told = now
}
