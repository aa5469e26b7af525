package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/lag"
	"heliograph/infra/roster"
	"heliograph/infra/views"
	projectedhistory "heliograph/projector/history"
	"heliograph/projector/threads"
	chschema "heliograph/schemas/clickhouse"
	logevent "heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

// historyRole names the projectors of the history in a database, likewise.
func historyRole(database string) string {
	if database == chschema.Database {
		return "history"
	}
	return "history-" + database
}

// threadsRole names the projectors of the thread views in a schema. Views in two schemas are two views, and neither
// takes partitions from the other.
func threadsRole(schema string) string {
	if schema == pgschema.ViewsSchema {
		return "threads"
	}
	return "threads-" + schema
}

// announce adds the announcer, which tells the roster of this process, to the services: by it 'helio status' and 'helio
// top' find the process.
func (p *process) announce(cfg kafka.Config, role, name string) {
	b := built()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	r := roster.Role{
		Instance: fmt.Sprintf("%s/%s/%s:%d/%s", role, name, host, os.Getpid(), uuid.NewString()[:8]),
		Role:     role, Name: name, Version: b.Version, Commit: b.Commit, Go: b.Go, Reader: b.Reader,
		Types: eventTypes(), Started: time.Now().UTC().Truncate(time.Second),
		Admin: roster.Reachable(p.Admin, cfg.Brokers),
	}
	p.group.Go("roster", roster.NewAnnouncer(cfg, func() roster.Role {
		now := r
		now.Slots = map[string]int{}
		for view, c := range p.views {
			slots := map[topic.Slot]bool{}
			for _, l := range c.Lags() {
				slots[l.Slot] = true
			}
			now.Slots[view] = len(slots)
		}
		return now
	}, p.log).Run)
}

// eventTypes are the names of the event types that this program reads.
func eventTypes() (names []string) {
	bodies := (*eventv1.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		if t := logevent.Type(bodies.Get(i).Number()); logevent.Known(t) {
			names = append(names, t.String())
		}
	}
	slices.Sort(names)
	return names
}

// viewSources are the views of a deployment, for who asks how far they are.
func viewSources(
	cl *kgo.Client, cfg kafka.Config, bases *kafka.Bases, v *views.Views, h *history.History,
	schema, database, deliveryGroup string,
) []lag.Source {
	return []lag.Source{
		lag.OfThreads(v, schema, cfg.Group("projector-"+threadsRole(schema)), threads.Topics),
		lag.OfHistory(h, cfg.Group("projector-"+historyRole(database)), projectedhistory.Topics),
		lag.OfDelivery(cl, cfg, bases, deliveryGroup, topic.Folded),
	}
}

// watchViews adds the watch over the views' lags to the services of an edge, which knows both stores and the log.
func (p *process) watchViews(parts edgeParts, v *views.Views, h *history.History) error {
	quiet := parts.kafka
	quiet.Registerer, quiet.Budget = nil, nil
	cl, err := kafka.Dial(quiet)
	if err != nil {
		return err
	}
	p.onClose(cl.Close)
	watch := lag.NewWatch(lag.Config{
		Kafka: quiet, Client: cl, Bases: parts.bases,
		Sources: viewSources(
			cl, quiet, parts.bases, v, h,
			parts.postgres.PostgresSchema, parts.clickhouse.ClickhouseDatabase, parts.deliveryGroup,
		),
	}, p.log, p.reg)
	p.group.Go("view watch", watch.Run)
	return nil
}
