package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"heliograph/delivery"
	"heliograph/infra/lag"
	"heliograph/infra/link"
	"heliograph/schemas/topic"
)

// topicsOfLog are those whose bases a role learns at its start.
var topicsOfLog = topic.Folded

// deliveryCmd is the process:
//
//	log ──slots by group──▶ delivery ──rings, interest──▶ links (QUIC, mutual TLS) ──▶ edges
type deliveryCmd struct {
	kafkaFlags
	adminFlags
	secretsFlags
	Name           string        `help:"Name of this instance, unique and stable over restarts; default: the host's." env:"HELIO_NAME"`
	Listen         string        `help:"UDP address that edges' links come to." placeholder:"HOST:PORT" default:"127.0.0.1:7450" env:"HELIO_DELIVERY_LISTEN"`
	Advertise      string        `help:"Address that edges are told; default: the one listened on." placeholder:"HOST:PORT" env:"HELIO_DELIVERY_ADVERTISE"`
	SessionTimeout time.Duration `help:"How long after its last sign of life its slots go to others." default:"10s" env:"HELIO_SESSION_TIMEOUT"`
	MaxSubjects    int           `help:"Most threads and users of one edge's link; each costs some 250 bytes here and 300 in the edge." default:"1000000" env:"HELIO_MAX_SUBJECTS"`
	DeliveryGroup  string        `help:"Consumer group of the delivery instances, the same as the edges'; default: after --topic-prefix." placeholder:"GROUP" env:"HELIO_DELIVERY_GROUP"`
	Check          bool          `help:"Build everything, then stop."`
}

// Help shows how it is used.
func (deliveryCmd) Help() string {
	return `Examples:
  helio delivery --name d1 --listen 127.0.0.1:7450
  helio delivery --name d2 --listen 0.0.0.0:7450 --advertise d2.internal:7450 --kafka k1:9092 --kafka k2:9092`
}

// Run runs an instance until a signal comes.
func (c *deliveryCmd) Run(ctx context.Context, log *slog.Logger) error {
	name, err := orHost(c.Name)
	if err != nil {
		return err
	}
	log = log.With("role", "delivery", "name", name)
	if err := probeUDP(c.Listen); err != nil {
		return err
	}
	p, err := newProcess(log, c.adminFlags)
	if err != nil {
		return err
	}
	conf, err := p.links(c.secretsFlags)
	if err != nil {
		p.close()
		return err
	}
	listener, err := link.Listen(c.Listen, conf)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	listener.Budget = p.budget
	advertise := c.Advertise
	if advertise == "" {
		advertise = listener.Addr().String()
	}
	cfg := c.config(log, p.reg, "helio-delivery")
	if _, err := p.openLog(ctx, &cfg); err != nil {
		return err
	}
	svc, err := addDelivery(p, delivery.Config{
		Kafka: cfg, Group: c.DeliveryGroup, Name: name, Addr: advertise,
		SessionTimeout: c.SessionTimeout, MaxSubjects: c.MaxSubjects,
	})
	if err != nil {
		return err
	}
	p.group.Go("links", func(ctx context.Context) error { return listener.Serve(ctx, svc.ServeLink) })
	if c.Check {
		return listener.Close()
	}
	p.announce(cfg, "delivery", name)
	log.Info("delivery started", "links", advertise, "admin", "http://"+p.Admin)
	return p.run(ctx)
}

// addDelivery adds a delivery instance to a process.
func addDelivery(p *process, cfg delivery.Config) (*delivery.Service, error) {
	svc, err := delivery.New(cfg, p.log, p.reg)
	if err != nil {
		return nil, err
	}
	p.group.Go("delivery", svc.Run)
	p.admin.Check("delivery", func(context.Context) error { return svc.Ready() })
	p.watchLag(lag.Delivery, "delivery", svc, 5)
	return svc, nil
}

func orHost(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("no --name and no host name: %w", err)
	}
	return host, nil
}
