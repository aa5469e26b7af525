package lag

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/infra/roster"
	"heliograph/infra/run"
)

// watchEvery is how often the process that watches asks.
const watchEvery = 5 * time.Second

// Watch exports the lags of the views, from one of the processes that run one. The others stand by: so what it costs
// the stores does not grow with the deployment.
type Watch struct {
	// Fixed after NewWatch.
	cfg     kafka.Config
	meter   *Meter
	views   []string
	log     *slog.Logger
	metrics metrics
	every   time.Duration
	session time.Duration

	chosen atomic.Bool // by the group
}

// NewWatch returns a watch that does nothing until Run, which alone asks, and loads the bases of the configuration.
func NewWatch(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Watch {
	run.Default(&log, slog.New(slog.DiscardHandler))
	run.Default(&cfg.askTime, watchEvery)
	w := &Watch{
		cfg: cfg.Kafka, meter: NewMeter(cfg), log: log, metrics: newMetrics(reg),
		every: watchEvery, session: 15 * time.Second,
	}
	w.meter.stale = true // nothing has loaded the bases
	w.cfg.Registerer, w.cfg.Budget = nil, nil
	for _, s := range cfg.Sources {
		w.views = append(w.views, s.View)
	}
	return w
}

// Run watches while the group has chosen this process, until ctx ends. It fails only on a configuration that no client
// can be made of.
func (w *Watch) Run(ctx context.Context) error {
	member, err := w.join()
	if err != nil {
		return err
	}
	defer member.Close()
	polled := make(chan struct{})
	go func() { defer close(polled); w.poll(ctx, member) }()
	defer func() { <-polled }()
	t := time.NewTicker(w.every)
	defer t.Stop()
	made := false
	var untold map[string]time.Time // since when; nil while others watch
	for {
		if !made {
			made = w.make(ctx, member)
		}
		if w.chosen.Load() {
			untold = w.look(ctx, untold)
		} else if untold != nil {
			untold = nil
			w.standBy()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			w.standBy()
			return nil
		}
	}
}

// make sees to it that there is what the group shares out.
func (w *Watch) make(ctx context.Context, cl *kgo.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, w.every)
	defer cancel()
	err := roster.Make(ctx, cl, w.cfg)
	if err == nil {
		cl.ForceMetadataRefresh()
	} else if ctx.Err() == nil {
		w.log.Debug("no process can be chosen to watch the views yet", "err", err)
	}
	return err == nil
}

// join makes this process a member of the group of those that can watch.
func (w *Watch) join() (*kgo.Client, error) {
	choose := func(yes bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			if len(parts) > 0 {
				w.chosen.Store(yes)
			}
		}
	}
	name := w.cfg.Name(roster.Topic)
	cl, err := kafka.Dial(
		w.cfg,
		kgo.ConsumerGroup(w.cfg.Group("watch")), kgo.ConsumeTopics(name), kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(w.session), kgo.HeartbeatInterval(w.session/6), kgo.RebalanceTimeout(w.session),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.OnPartitionsAssigned(choose(true)), kgo.OnPartitionsRevoked(choose(false)),
		kgo.OnPartitionsLost(choose(false)),
	)
	if err != nil {
		return nil, err
	}
	cl.PauseFetchTopics(name) // to own it is all that is wanted
	return cl, nil
}

// poll keeps the membership going and tells of its failures.
func (w *Watch) poll(ctx context.Context, member *kgo.Client) {
	for ctx.Err() == nil {
		fs := member.PollFetches(ctx)
		if fs.IsClientClosed() {
			return
		}
		fs.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.Canceled) && ctx.Err() == nil {
				w.log.Debug("not counted among those that can watch the views", "err", err)
			}
		})
	}
}

// look asks once. A view that cannot be told of is hidden, and for how long is shown.
func (w *Watch) look(ctx context.Context, untold map[string]time.Time) map[string]time.Time {
	now := time.Now()
	if untold == nil {
		w.log.Info("this process watches how far the views are behind the log")
		w.metrics.watching.Set(1)
		untold = map[string]time.Time{}
	}
	all, err := w.meter.Ask(ctx)
	if err != nil {
		all = nil
		for _, v := range w.views {
			all = append(all, View{View: v, Error: err.Error()})
		}
	}
	if ctx.Err() != nil {
		return untold
	}
	for _, v := range all {
		since, silent := untold[v.View]
		if v.Error == "" {
			if silent {
				w.log.Info("how far a view is behind is known again", "view", v.View)
			}
			delete(untold, v.View)
			w.metrics.untold.WithLabelValues(v.View).Set(0)
			w.metrics.set(v)
			continue
		}
		if !silent {
			w.log.Warn("how far a view is behind is not known", "view", v.View, "err", v.Error)
			since = now
			untold[v.View] = now
		}
		w.metrics.hide(v.View)
		w.metrics.owned(v)
		w.metrics.untold.WithLabelValues(v.View).Set(max(w.every, now.Sub(since)).Seconds())
	}
	return untold
}

// standBy leaves the telling to another process.
func (w *Watch) standBy() {
	w.metrics.watching.Set(0)
	for _, v := range w.views {
		w.metrics.hide(v)
		w.metrics.untold.DeleteLabelValues(v)
	}
	w.meter.Forget()
}
