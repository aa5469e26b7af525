package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/delivery"
	"heliograph/edge"
	"heliograph/edge/auth"
	"heliograph/edge/fanout"
	"heliograph/edge/query"
	"heliograph/edge/replica"
	"heliograph/edge/session"
	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/link"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	"heliograph/infra/views"
	"heliograph/ingest"
	"heliograph/tools/operator"
	"heliograph/tools/secrets"
)

// edgeCmd is the process:
//
//	devices ──QUIC──▶ edge ──▶ session ──▶ ingest ──▶ log
//	                             │  ▲
//	               auth, query ──┘  └── fanout ◀── replica ◀──links (QUIC, mutual TLS)── delivery
//	                    │                  │          │
//	        Postgres, ClickHouse      ClickHouse   Postgres (snapshots, tails)
type edgeCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	adminFlags
	secretsFlags
	Name           string        `help:"Name of this edge, for logs and for devices; default: the host's." env:"HELIO_NAME"`
	Listen         string        `help:"UDP address that devices connect to." placeholder:"HOST:PORT" default:"127.0.0.1:7443" env:"HELIO_LISTEN"`
	Cert           string        `help:"PEM file of the edge's certificate; default: edge.pem of the secrets." placeholder:"FILE" type:"path" env:"HELIO_CERT"`
	CertKey        string        `help:"PEM file of its key; default: edge.key of the secrets." placeholder:"FILE" type:"path" env:"HELIO_CERT_KEY"`
	SMS            string        `help:"How PINs are sent: the URL of an HTTP gateway, which gets {\"to\", \"text\"}, or file:PATH for tests." placeholder:"URL" required:"" env:"HELIO_SMS"`
	SMSHeader      []string      `help:"Header for the gateway, as 'Name: value'; better given in the environment." env:"HELIO_SMS_HEADER" sep:"none"`
	PinInterval    time.Duration `help:"Least time between two PINs for one number and device." default:"30s" env:"HELIO_PIN_INTERVAL"`
	PinsPerPhone   int           `help:"Most PINs for one number in an hour, from one network (IPv4 /24, IPv6 /48)." default:"5" env:"HELIO_PINS_PER_PHONE"`
	PinsPerNumber  int           `help:"Most PINs for one number in a day, from all networks but those it was registered from." default:"20" env:"HELIO_PINS_PER_NUMBER"`
	PinsPerAddress int           `help:"Most PINs for one address in an hour; an IPv6 /48 has four times as many." default:"20" env:"HELIO_PINS_PER_ADDRESS"`
	PinsPerRange   int           `help:"Most PINs for one range of 10,000 numbers in an hour." default:"100" env:"HELIO_PINS_PER_RANGE"`
	WrongPins      int           `help:"Most wrong PINs from one address in an hour; an IPv6 /48 has four times as many." default:"20" env:"HELIO_WRONG_PINS"`
	SMSPerCountry  int           `help:"Most SMS to one country, which come back evenly over a day." default:"5000" env:"HELIO_SMS_PER_COUNTRY"`
	SMSPerDay      int           `help:"Most SMS of the deployment, which come back evenly over a day." default:"20000" env:"HELIO_SMS_PER_DAY"`
	LookupsPerUser int           `help:"Most phone numbers that one user may look up in a day." default:"5000" env:"HELIO_LOOKUPS_PER_USER"`
	GroupsPerDay   int           `help:"Groups that one user may create in a day." default:"200" env:"HELIO_GROUPS_PER_DAY"`
	AddsPerDay     int           `help:"Users whom one user may put into groups or invite in a day." default:"10000" env:"HELIO_ADDS_PER_DAY"`
	ChangesPerDay  int           `help:"Other changes of groups that one user may make in a day: removals, leavings, roles, titles, answers to invitations." default:"2000" env:"HELIO_CHANGES_PER_DAY"`
	ProfilesPerDay int           `help:"Changes of his profile that one user may make, and devices he may link, in a day." default:"100" env:"HELIO_PROFILES_PER_DAY"`
	SettingsPerDay int           `help:"Changes of his settings, and of whom he blocks, that one user may make in a day." default:"500" env:"HELIO_SETTINGS_PER_DAY"`
	PushesPerDay   int           `help:"Deliveries to members that one user's messages may cost at once on one edge, which come back evenly over a day: one to a group of 1,000 costs 1,000." default:"5000000" env:"HELIO_PUSHES_PER_DAY"`
	SendsPerDay    int           `help:"Messages that one user may send at once, which come back evenly over a day." default:"100000" env:"HELIO_SENDS_PER_DAY"`
	MaxConnections int           `help:"Most connections; no more than fit into half of the memory." default:"100000" env:"HELIO_MAX_CONNECTIONS"`
	DeliveryGroup  string        `help:"Consumer group of the delivery instances, the same as theirs; default: after --topic-prefix." placeholder:"GROUP" env:"HELIO_DELIVERY_GROUP"`
	Check          bool          `help:"Build everything, then stop."`
}

// Help shows how it is used.
func (edgeCmd) Help() string {
	return `Examples:
  helio edge --listen 0.0.0.0:7443 --sms https://sms.example/send
  helio edge --listen 127.0.0.1:7444 --sms file:.helio/sms.jsonl --name e2

The secrets' directory holds user.key (32 random bytes; it never changes, and every edge has the same), token.key (32
random bytes, the same on every edge, so that clients survive an edge's restart), edge.pem and edge.key (or --cert), and
ca.pem, link.pem, link.key for the links to delivery.`
}

// Run runs an edge until a signal comes.
func (c *edgeCmd) Run(ctx context.Context, log *slog.Logger) error {
	name, err := orHost(c.Name)
	if err != nil {
		return err
	}
	log = log.With("role", "edge", "name", name)
	sender, err := c.sender(log)
	if err != nil {
		return err
	}
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
	cfg := c.kafkaFlags.config(log, p.reg, "helio-edge")
	bases, err := p.openLog(ctx, &cfg)
	if err != nil {
		return err
	}
	cl, err := kafka.Dial(cfg, kgo.MetadataMaxAge(30*time.Second))
	if err != nil {
		return err
	}
	p.onClose(cl.Close)
	group := c.DeliveryGroup
	if group == "" {
		group = delivery.Group(cfg)
	}
	e, err := addEdge(ctx, p, edgeParts{
		name: name, listen: c.Listen, cert: c.Cert, certKey: c.CertKey, maxConnections: c.MaxConnections,
		sendsPerDay: c.SendsPerDay, pushesPerDay: c.PushesPerDay, kafka: cfg, bases: bases,
		postgres: c.postgresFlags, clickhouse: c.clickhouseFlags, secrets: c.secretsFlags,
		directory: link.NewGroupDirectory(cl, cfg, group), deliveryGroup: group,
		dialer: link.QUICDialer{TLS: conf, Budget: p.budget}, sender: sender,
		auth: auth.Config{
			PinInterval:   c.PinInterval,
			PerPhone:      auth.Rate{Burst: c.PinsPerPhone, Per: time.Hour},
			PerNumber:     daily(c.PinsPerNumber),
			PerAddress:    auth.Rate{Burst: c.PinsPerAddress, Per: time.Hour},
			WrongPins:     auth.Rate{Burst: c.WrongPins, Per: time.Hour},
			PerRange:      auth.Rate{Burst: c.PinsPerRange, Per: time.Hour},
			PerCountry:    daily(c.SMSPerCountry),
			PerDeployment: daily(c.SMSPerDay),
			Lookups:       daily(c.LookupsPerUser),

			GroupsPerUser: daily(c.GroupsPerDay), AdditionsPerUser: daily(c.AddsPerDay),
			ChangesPerUser: daily(c.ChangesPerDay), ProfilesPerUser: daily(c.ProfilesPerDay),
			SettingsPerUser: daily(c.SettingsPerDay),
		},
	})
	if err != nil {
		p.close()
		return err
	}
	if c.Check {
		p.close()
		return nil
	}
	p.announce(cfg, "edge", name)
	log.Info("edge started", "listen", e.Addr().String(), "admin", "http://"+p.Admin)
	return p.run(ctx)
}

// daily is a rate of n a day.
func daily(n int) auth.Rate { return auth.Rate{Burst: n, Per: 24 * time.Hour} }

// links loads the certificates of the links and exports when they expire.
func (p *process) links(f secretsFlags) (*tls.Config, error) {
	files := secrets.LinkTLS(f.Secrets)
	files.Logger = p.log
	conf, err := files.Load()
	if err != nil {
		return nil, linkSecrets(f.Secrets, err)
	}
	p.certificates.Watch("link", files.CertFile)
	p.certificates.Watch("authority", files.CAFile)
	return conf, nil
}

// linkSecrets says what mends missing certificates.
func linkSecrets(dir string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("certificates of the links: %w; 'helio secrets' makes them, once for all edges and delivery "+
			"instances: put ca.pem, link.pem and link.key into %s or name another --secrets", err, dir)
	}
	return fmt.Errorf("certificates of the links (--secrets): %w", err)
}

// sender makes the sender of PINs.
func (c *edgeCmd) sender(log *slog.Logger) (auth.Sender, error) {
	if path, ok := strings.CutPrefix(c.SMS, "file:"); ok {
		return auth.NewFileSender(path, log), nil
	}
	header := http.Header{}
	for _, h := range c.SMSHeader {
		k, v, ok := strings.Cut(h, ":")
		if !ok {
			return nil, errors.New("--sms-header is not 'Name: value'")
		}
		header.Add(strings.TrimSpace(k), strings.TrimSpace(v))
	}
	sender, err := auth.NewGatewaySender(c.SMS, header)
	if err != nil {
		return nil, fmt.Errorf("--sms is neither file:PATH nor a gateway: %w", err)
	}
	return sender, nil
}

// probeUDP tells early that an address cannot be had.
func probeUDP(addr string) error {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", addr, err)
	}
	s, err := net.ListenUDP("udp", udp)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("UDP address %s is in use: stop what uses it, or choose another with --listen", addr)
	}
	if err != nil {
		return fmt.Errorf("--listen %s: %w", addr, err)
	}
	return s.Close()
}

// edgeParts is what an edge is built from, in a process of its own or in helio dev.
type edgeParts struct {
	name, listen   string
	cert, certKey  string // empty: those of the secrets
	maxConnections int
	sendsPerDay    int
	pushesPerDay   int
	kafka          kafka.Config
	bases          *kafka.Bases
	postgres       postgresFlags
	clickhouse     clickhouseFlags
	secrets        secretsFlags
	deliveryGroup  string
	directory      link.Directory
	dialer         link.Dialer
	sender         auth.Sender
	auth           auth.Config
}

// clockOf asks for the time of Postgres, which all edges have in common.
func clockOf(pool *pgxpool.Pool) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (at time.Time, err error) {
		return at, pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&at)
	}
}

// standingOf asks both stores where their views stand in the log. The history may be down.
func standingOf(
	pool *pgxpool.Pool, ch driver.Conn, log *slog.Logger,
) func(context.Context) ([]kafka.Standing, error) {
	return func(ctx context.Context) ([]kafka.Standing, error) {
		at, err := operator.Standing(ctx, views.New(pool))
		if err != nil {
			return nil, err
		}
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		more, err := operator.StandingOfHistory(short, history.New(ch))
		if err != nil {
			log.Warn("the log is held against the thread views alone", "err", err)
		}
		return append(at, more...), nil
	}
}

// addEdge adds an edge to a process, bound to its address.
func addEdge(ctx context.Context, p *process, parts edgeParts) (*edge.Edge, error) {
	userKey, err := parts.secrets.read(secrets.UserKey, 32)
	if err != nil {
		return nil, err
	}
	tokenKey, err := parts.secrets.read(secrets.TokenKey, 32)
	if err != nil {
		return nil, err
	}
	if parts.cert == "" {
		parts.cert = filepath.Join(parts.secrets.Secrets, secrets.EdgeCert)
		parts.certKey = filepath.Join(parts.secrets.Secrets, secrets.EdgeKey)
	}
	p.certificates.Watch("edge", parts.cert)
	if err := p.migratePostgres(ctx, parts.postgres.Postgres, "registration", "registration"); err != nil {
		return nil, err
	}
	pcfg := parts.postgres.config(p.log, p.reg, "edge", 0)
	// Every read of an edge finds its rows by keys, one by one: one plan serves each statement for good. Planning anew,
	// as Postgres does while a plan for the given keys looks cheaper, costs more than the reads.
	pcfg.Params["plan_cache_mode"] = "force_generic_plan"
	// A pool for each purpose: neither a storm of catch-ups nor whoever asks for list after list keeps others from
	// logging in.
	open := func(name string, conns int32) (*pgxpool.Pool, error) {
		mine := pcfg
		mine.Name, mine.MaxConns = name, conns
		pool, err := postgres.Open(ctx, mine)
		if err == nil {
			p.onClose(pool.Close)
		}
		return pool, err
	}
	doors, err := open("edge-auth", 4)
	if err != nil {
		return nil, err
	}
	catchUps, err := open("edge-catchup", 6)
	if err != nil {
		return nil, err
	}
	lists, err := open("edge-query", 6)
	if err != nil {
		return nil, err
	}
	ch, err := clickhouse.Open(parts.clickhouse.config(p.log, p.reg, "edge"))
	if err != nil {
		return nil, err
	}
	p.onClose(func() {
		if err := ch.Close(); err != nil {
			p.log.Warn("closing ClickHouse failed", "err", err)
		}
	})
	in, err := ingest.New(
		ingest.Config{
			Kafka: parts.kafka, Partitions: parts.kafka.Partitions, Producer: producer(parts.name),
			Clock: clockOf(doors), Standing: standingOf(doors, ch, p.log),
		},
		parts.bases, p.log, p.reg,
	)
	if err != nil {
		return nil, err
	}
	past := history.New(ch)
	var rep *replica.Replica
	decisions := kafka.NewDecisions(
		parts.kafka, parts.kafka.Partitions, func(d kafka.Release) { rep.Released(d) },
	)
	rep, err = replica.New(
		replica.Config{
			Partitions: parts.kafka.Partitions, Name: parts.name, Log: in, Decisions: decisions, Budget: p.budget,
		},
		replica.NewPostgres(catchUps, doors, parts.kafka.Partitions), parts.directory, parts.dialer, p.log, p.reg,
	)
	if err != nil {
		return nil, err
	}
	fan := fanout.New(rep, query.NewArchive(past, parts.kafka.Partitions), p.log, p.reg)
	parts.auth.UserKey = userKey
	a, err := auth.New(parts.auth, doors, parts.sender, in, rep, p.log, p.reg)
	if err != nil {
		return nil, err
	}
	q := query.New(query.Config{
		UserKey: userKey, Partitions: parts.kafka.Partitions, Lookups: a.Lookups(),
	}, views.New(lists), past, auth.NewLimiter(lists), p.log)
	e, err := edge.New(edge.Config{
		Listen: parts.listen, CertFile: parts.cert, KeyFile: parts.certKey,
		Secret: run.Secret(hex.EncodeToString(tokenKey)), MaxConnections: parts.maxConnections,
		Budget: p.budget,
		Session: session.Config{
			Edge: parts.name, Partitions: parts.kafka.Partitions, SendsPerDay: parts.sendsPerDay,
			PushesPerDay: parts.pushesPerDay,
		},
	}, fan, edge.Replica(rep), a, q, in, p.log, p.reg)
	if err != nil {
		return nil, err
	}
	if err := e.Listen(); err != nil {
		return nil, err
	}
	if err := p.watchViews(parts, views.New(lists), past); err != nil {
		return nil, err
	}
	p.group.Go("ingest", in.Run)
	p.group.Go("decisions", decisions.Run)
	p.group.Go("replica", rep.Run)
	p.group.Go("fanout", fan.Run)
	p.group.Go("auth", a.Run)
	p.group.Add(run.Service{Name: "edge", Run: e.Run, Drain: e.Drain})
	p.dog.Watch("outbox frames", 50_000, count(e.Waiting))
	p.dog.Watch("outbox receipts", 200_000, count(e.WaitingReceipts))
	p.dog.Watch("produce buffer records", 5_000, count(in.Buffered))
	p.dog.Watch("watermarks waiting for the log", 50_000, count(in.WatermarksPending))
	p.dog.Watch("oldest undelivered seconds", 5, seconds(rep.OldestUndelivered))
	p.dog.Watch("oldest held back seconds", 5, seconds(fan.OldestUndelivered))
	// a device that reads nothing is cut before
	p.dog.Watch("oldest in an outbox seconds", 40, seconds(e.OldestWaiting))
	// What a delivery that is dead does not send shows in no queue: only in its silence.
	p.dog.Watch("oldest subject not live seconds", 15, seconds(rep.OldestPending))
	p.dog.Watch("slots without delivery", 0, count(rep.WithoutOwner))
	p.dog.Watch("delivery silent seconds", 5, seconds(rep.CursorLag))
	// Nor does a log that is down fill the produce buffer: it is known to be down, and events are refused at once.
	up := time.Now()
	p.dog.Watch("log down seconds", 5, func() float64 {
		if in.Up() {
			up = time.Now()
		}
		return time.Since(up).Seconds()
	})
	p.admin.Check("log", func(context.Context) error {
		if !in.Up() {
			return errors.New("the log does not take events")
		}
		return in.Fault()
	})
	p.admin.Check("postgres", doors.Ping)
	p.admin.Check("clickhouse", ch.Ping)
	p.admin.Check("delivery", rep.Ready)
	p.admin.Check("edge", e.Ready)
	return e, nil
}
