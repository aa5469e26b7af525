package roster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
)

// kept is how long announcements are kept, in milliseconds, and rolled how long a segment may grow: only what is closed
// is removed.
const (
	kept   = "86400000"
	rolled = "3600000"
)

// Announcer announces a process until it stops.
type Announcer struct {
	// Fixed after NewAnnouncer.
	cfg     kafka.Config
	every   time.Duration
	current func() Role
	log     *slog.Logger

	// Run's goroutine only.
	made   bool // the topic is there
	silent bool // the last announcement failed
}

// NewAnnouncer returns an announcer that does nothing until Run. current tells of the process as it is; it is called by
// Run's goroutine alone.
func NewAnnouncer(cfg kafka.Config, current func() Role, log *slog.Logger) *Announcer {
	cfg.Registerer, cfg.Budget = nil, nil // a client on the side, with nothing to bound
	run.Default(&log, slog.New(slog.DiscardHandler))
	return &Announcer{cfg: cfg, every: Every, current: current, log: log}
}

// Run announces the process now, every Every and when it owns other slots, and at the end of ctx that it was stopped.
// It fails only on a configuration that no client can be made of.
func (a *Announcer) Run(ctx context.Context) error {
	t := time.NewTicker(a.every / 5)
	defer t.Stop()
	return a.run(ctx, t.C)
}

// run looks at every tick whether there is something to say.
func (a *Announcer) run(ctx context.Context, ticks <-chan time.Time) error {
	cl, err := kafka.Dial(a.cfg,
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		// One that is lost is made up for by the next: no producer id is asked for, no replica waited for.
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()),
		kgo.RecordDeliveryTimeout(max(time.Second, a.every/2)), kgo.MaxBufferedRecords(2),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	var said Role
	var next time.Time
	for {
		role := a.current()
		if now := time.Now(); !now.Before(next) || !maps.Equal(role.Slots, said.Slots) {
			limited, cancel := context.WithTimeout(ctx, max(time.Second, a.every/2))
			a.judge(ctx, a.announce(limited, cl, role))
			cancel()
			said, next = role, now.Add(a.every)
		}
		select {
		case <-ticks:
			continue
		case <-ctx.Done():
		}
		role = a.current()
		role.Left = true
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := a.announce(last, cl, role); err != nil {
			a.log.Debug("the roster was not told of the stop", "err", err)
		}
		return nil
	}
}

// judge says once that the roster is not told, and once that it is again.
func (a *Announcer) judge(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !a.silent:
		a.silent = true
		a.log.Warn("the roster is not told of this process: helio status does not show it", "err", err)
	case err == nil && a.silent:
		a.silent = false
		a.log.Info("the roster is told of this process again")
	}
}

func (a *Announcer) announce(ctx context.Context, cl *kgo.Client, r Role) error {
	if !a.made {
		if err := Make(ctx, cl, a.cfg); err != nil {
			return err
		}
		a.made = true
	}
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("roster: encode: %w", err)
	}
	err = cl.ProduceSync(ctx, a.cfg.NewRecord(Topic, 0, []byte(r.Instance), value)).FirstErr()
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		a.made = false // somebody removed it
	}
	if err != nil {
		return fmt.Errorf("roster: announce: %w", err)
	}
	return nil
}

// Make creates the topic where it is missing.
func Make(ctx context.Context, cl *kgo.Client, cfg kafka.Config) error {
	adm, name := kadm.NewClient(cl), cfg.Name(Topic)
	cluster, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("roster: ask for the brokers: %w", err)
	}
	conf := map[string]*string{
		"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr(kept),
		"segment.ms": kadm.StringPtr(rolled), "message.timestamp.type": kadm.StringPtr("LogAppendTime"),
	}
	resp, err := adm.CreateTopics(ctx, 1, int16(min(3, max(1, len(cluster.Brokers)))), conf, name)
	if err == nil {
		err = resp[name].Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("roster: create topic %s: %w", name, err)
	}
	return nil
}
