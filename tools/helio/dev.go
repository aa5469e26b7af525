package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"heliograph/delivery"
	"heliograph/edge"
	"heliograph/edge/auth"
	"heliograph/edge/client"
	"heliograph/infra/embedded"
	"heliograph/infra/embedded/engine"
	"heliograph/infra/link"
	"heliograph/infra/run"
	pgschema "heliograph/schemas/postgres"
	"heliograph/tools/canary"
	"heliograph/tools/secrets"
)

// devCmd is the process:
//
//	helio engine kafka ─────────────┐ children of this process,
//	helio engine postgres ──────┐   │ each restarted when it ends by itself
//	helio engine clickhouse ─┐  │   │
//	                         │  │   log
//	devices ──QUIC──▶ edge ──┼──┼──▶ │ ──▶ delivery ──links are calls──▶ edge ──▶ devices
//	                         │  └────┼──── projector threads
//	                         └───────┴──── projector history
type devCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	Data             string        `help:"Directory of data, secrets and the file of SMS." default:".helio" type:"path" env:"HELIO_DATA"`
	Engines          string        `help:"Where 'make engines' put the engines." default:".helio/engines" type:"path" env:"HELIO_ENGINES"`
	Without          []string      `help:"Engines not to start because --kafka, --postgres or --clickhouse names a server." enum:"kafka,postgres,clickhouse" placeholder:"ENGINE"`
	Listen           string        `help:"UDP address that devices connect to." placeholder:"HOST:PORT" default:"127.0.0.1:7443" env:"HELIO_LISTEN"`
	Admin            string        `help:"Address of health checks and metrics." placeholder:"HOST:PORT" default:"127.0.0.1:7480" env:"HELIO_ADMIN"`
	Pprof            string        `help:"Address of profiles (/debug/pprof); default: none." placeholder:"HOST:PORT" env:"HELIO_PPROF"`
	KafkaListen      string        `help:"Address of the embedded log." placeholder:"HOST:PORT" default:"${kafka}" env:"HELIO_KAFKA_LISTEN"`
	PostgresListen   string        `help:"Address of the embedded Postgres." placeholder:"HOST:PORT" default:"127.0.0.1:7432" env:"HELIO_POSTGRES_LISTEN"`
	ClickhouseListen string        `help:"Address of the embedded ClickHouse." placeholder:"HOST:PORT" default:"${clickhouse}" env:"HELIO_CLICKHOUSE_LISTEN"`
	SyncWrites       bool          `help:"Postgres and ClickHouse, too, wait for the disk before they acknowledge, as the log does; a power cut then leaves them less to catch up on." env:"HELIO_SYNC_WRITES"`
	NoSync           bool          `help:"The log acknowledges before the disk has it: faster, and a power cut takes back what was acknowledged in the last seconds." env:"HELIO_NO_SYNC"`
	Retention        time.Duration `help:"How long messages stay in Postgres; older ones are read from ClickHouse." default:"720h" env:"HELIO_RETENTION"`
	Generation       uint32        `name:"history-generation" help:"Generation of the history; a higher one than it has rebuilds it in place from the log's start." default:"1" env:"HELIO_HISTORY_GENERATION"`
	NoCanary         bool          `help:"Do not send a message round at the start."`

	reader string // the password of the embedded ClickHouse's user reader; empty where it is not embedded
}

// Help shows how it is used.
func (devCmd) Help() string {
	return `Examples:
  helio dev
  helio dev --data /srv/helio --listen 0.0.0.0:7443
  helio dev --without postgres --postgres postgres://helio:secret@db/helio
  helio chat --as ann        (in another terminal)`
}

// devState is the file <data>/dev.json, by which other commands find a deployment on this machine.
type devState struct {
	Pid        int    `json:"pid"`
	Edge       string `json:"edge"`
	Admin      string `json:"admin"`
	Pprof      string `json:"pprof,omitempty"`
	Kafka      string `json:"kafka"`
	Postgres   string `json:"postgres"`
	ClickHouse string `json:"clickhouse"`
	// ClickHousePassword is that of the user default.
	ClickHousePassword string         `json:"clickhouse_password,omitempty"`
	CA                 string         `json:"ca"`
	SMS                string         `json:"sms"`
	Engines            map[string]int `json:"engines"`
	// Canary is how the message that is sent round at the start fared; empty while it is under way.
	Canary string `json:"canary,omitempty"`
}

// readDevState finds the deployment that runs with this data directory.
func readDevState(data string) (devState, error) {
	var s devState
	b, err := os.ReadFile(filepath.Join(data, "dev.json"))
	if errors.Is(err, os.ErrNotExist) {
		return s, fmt.Errorf("'helio dev' does not run with --data %s (no dev.json there)", data)
	}
	if err != nil {
		return s, fmt.Errorf("read dev.json: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read dev.json: %w", err)
	}
	if err := syscall.Kill(s.Pid, 0); errors.Is(err, syscall.ESRCH) {
		return s, fmt.Errorf("'helio dev' does not run with --data %s (process %d, which did, has ended)", data, s.Pid)
	}
	return s, nil
}

// Run starts everything and runs until a signal comes.
func (c *devCmd) Run(ctx context.Context, log *slog.Logger) error {
	began := time.Now()
	if err := checkRetention(c.Retention); err != nil {
		return err
	}
	if err := engine.MakeDir(c.Data); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	secretsDir := filepath.Join(c.Data, "secrets")
	if err := secrets.Ensure(secretsDir); err != nil {
		return err
	}
	if err := probeUDP(c.Listen); err != nil {
		return err
	}
	p, err := newProcess(log, adminFlags{Admin: c.Admin, Pprof: c.Pprof})
	if err != nil {
		return err
	}
	engines, err := c.startEngines(ctx, p)
	if err != nil {
		return err
	}
	stopEngines := func() {
		if engines != nil {
			if err := engines.Stop(); err != nil {
				log.Warn("stopping an engine failed", "err", err)
			}
		}
	}
	p.onClose(stopEngines)
	e, err := c.build(ctx, p, secretsDir)
	if err != nil {
		p.close()
		return err
	}
	file := &devFile{path: filepath.Join(c.Data, "dev.json"), engines: engines}
	if engines != nil {
		p.group.Go(
			"engines", func(ctx context.Context) error { return superviseEngines(ctx, log, engines, file.again) },
		)
	}
	p.group.Go("welcome", func(ctx context.Context) error {
		if err := c.welcome(ctx, log, p, e.Addr().String(), file, secretsDir, began); err != nil && ctx.Err() == nil {
			return err
		}
		<-ctx.Done()
		return file.forget()
	})
	return p.run(ctx)
}

// build adds delivery, projectors and edge, joined by calls instead of links.
func (c *devCmd) build(ctx context.Context, p *process, secretsDir string) (*edge.Edge, error) {
	kcfg := c.kafkaFlags.config(p.log, p.reg, "helio-dev")
	p.makesLog = !slices.Contains(c.Without, string(embedded.Kafka))
	bases, err := p.openLog(ctx, &kcfg)
	if err != nil {
		return nil, err
	}
	p.watchTopics(kcfg)
	if len(c.Without) == 0 {
		if err := bringBack(ctx, p, kcfg, bases, c.postgresFlags, c.clickhouseFlags); err != nil {
			return nil, err
		}
	}
	if err := addThreads(ctx, p, kcfg, c.postgresFlags, "dev", c.Retention, 0); err != nil {
		return nil, err
	}
	if err := addHistory(ctx, p, kcfg, c.clickhouseFlags, c.Generation, "dev", 0); err != nil {
		return nil, err
	}
	p.announce(kcfg, "dev", "dev")
	svc, err := addDelivery(p, delivery.Config{Kafka: kcfg, Name: "dev"})
	if err != nil {
		return nil, err
	}
	local := link.NewLocal(0)
	p.group.Go("links", func(ctx context.Context) error { return local.Serve(ctx, "dev", svc.ServeLink) })
	return addEdge(ctx, p, edgeParts{
		name: "dev", kafka: kcfg, bases: bases, postgres: c.postgresFlags, clickhouse: c.clickhouseFlags,
		secrets: secretsFlags{Secrets: secretsDir},
		listen:  c.Listen, deliveryGroup: delivery.Group(kcfg), directory: local, dialer: local,
		sender: auth.NewFileSender(filepath.Join(c.Data, "sms.jsonl"), p.log),
		// A laptop's users all come from one address.
		auth: auth.Config{
			PinInterval:   time.Second,
			PerPhone:      devRate,
			PerNumber:     devRate,
			PerAddress:    devRate,
			WrongPins:     devRate,
			PerRange:      devRate,
			PerCountry:    devRate,
			PerDeployment: devRate,
			Lookups:       devRate,

			GroupsPerUser: devRate, AdditionsPerUser: devRate, ChangesPerUser: devRate, ProfilesPerUser: devRate,
			SettingsPerUser: devRate,
		},
		sendsPerDay: 10_000_000, pushesPerDay: 2_000_000_000, // for measurements with few senders
	})
}

// devRate is as good as no limit.
var devRate = auth.Rate{Burst: 1_000_000, Per: time.Hour}

// startEngines starts the engines that are not replaced by servers, and points the flags to them.
func (c *devCmd) startEngines(ctx context.Context, p *process) (*embedded.Engines, error) {
	var kinds []embedded.Kind
	for _, k := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
		if !slices.Contains(c.Without, string(k)) {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		return nil, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	engines, err := embedded.Start(ctx, embedded.Options{
		Dir: filepath.Join(c.Data, "data"), EnginesDir: c.Engines, Executable: exe, Kinds: kinds,
		KafkaListen: c.KafkaListen, PostgresListen: c.PostgresListen, ClickHouseListen: c.ClickhouseListen,
		SyncWrites: c.SyncWrites, NoSync: c.NoSync, Logger: p.log, Registerer: p.reg,
	})
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		switch k {
		case embedded.Kafka:
			c.Kafka = []string{engines.KafkaAddr}
		case embedded.Postgres:
			c.Postgres = engines.PostgresURL
		case embedded.ClickHouse:
			c.Clickhouse = []string{engines.ClickHouseAddr}
			c.ClickhouseProtocol, c.ClickhouseUser = "http", "default"
			c.ClickhousePassword, c.reader = run.Secret(engines.ClickHousePassword), engines.ClickHouseReader
		}
	}
	return engines, nil
}

// engineSet is what superviseEngines uses of *embedded.Engines.
type engineSet interface {
	Wait(ctx context.Context) error
	Restart(ctx context.Context, k embedded.Kind) error
}

// restPause is the longest pause before an engine that keeps ending, or does not start, is started again.
const restPause = 10 * time.Second

// superviseEngines starts an engine again that ended by itself; the roles meanwhile wait for it as they would for a
// server. It never gives up: a disk that was full has room again some time. restarted is called after each start.
func superviseEngines(ctx context.Context, log *slog.Logger, engines engineSet, restarted func() error) error {
	var ended time.Time
	pause := time.Duration(0)
	for {
		err := engines.Wait(ctx)
		if err == nil {
			return nil
		}
		var ee *embedded.Error
		if !errors.As(err, &ee) {
			return err
		}
		if time.Since(ended) > time.Minute {
			pause = 0
		}
		for {
			log.Error("engine exited, restarting it", "engine", ee.Engine, "after", pause, "err", err)
			if !run.Sleep(ctx, pause) {
				return nil
			}
			pause = min(restPause, max(time.Second, 2*pause))
			if err = engines.Restart(ctx, ee.Engine); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err := restarted(); err != nil {
			log.Warn("dev.json still names the engine that ended", "err", err)
		}
		ended = time.Now()
	}
}

// The outcomes of the canary in dev.json, beside what went wrong; empty while it is under way.
const (
	canaryRound = "went round"
	canaryOff   = "off"
)

// welcome says where everything is, in dev.json and to the person, and then sends the canary round. That the canary
// does not come round stops nothing: whoever wants to know why needs what runs.
func (c *devCmd) welcome(
	ctx context.Context, log *slog.Logger, p *process, edge string, file *devFile, secretsDir string, began time.Time,
) error {
	state := devState{
		Pid: os.Getpid(), Edge: edge, Admin: p.Admin, Pprof: p.admin.Profiles(),
		Kafka: c.Kafka[0], Postgres: c.Postgres,
		ClickHouse: c.Clickhouse[0],
		CA:         filepath.Join(secretsDir, secrets.EdgeCert), SMS: filepath.Join(c.Data, "sms.jsonl"),
	}
	curl := "curl"
	if c.reader != "" {
		state.ClickHousePassword = c.ClickhousePassword.Reveal()
		netrc, err := c.writeNetrc()
		if err != nil {
			return err
		}
		curl += " --netrc-file " + shorten(netrc)
	}
	if c.NoCanary {
		state.Canary = canaryOff
	}
	if err := file.write(state); err != nil {
		return err
	}
	fmt.Printf("\nHeliograph is up after %.1f s.\n\n", time.Since(began).Seconds())
	fmt.Printf("  devices     %-28s helio chat --as ann\n", edge)
	fmt.Printf("  operators   %-28s curl http://%s/readyz\n", "http://"+p.Admin, p.Admin)
	fmt.Printf("  log         %-28s helio log tail --follow\n", state.Kafka)
	fmt.Printf("  views       %-28s psql '%s'\n", "Postgres", withSchema(state.Postgres, c.PostgresSchema))
	fmt.Printf(
		"  history     %-28s %s '%s/?database=%s' -d 'SELECT * FROM messages_per_minute'\n",
		"ClickHouse", curl, state.ClickHouse, c.ClickhouseDatabase,
	)
	fmt.Printf("  SMS         %s\n", state.SMS)
	if as := embedded.PostgresUser(); as != "" && !slices.Contains(c.Without, string(embedded.Postgres)) {
		fmt.Printf("\nYou are root: everything here runs as root, save Postgres, which refuses to and runs as %s.\n"+
			"For its sake others may pass through %s, and read nothing in it.\n"+
			"An ordinary user is enough for all of it.\n", as, c.Data)
	}
	if !c.NoCanary {
		legs, err := sendCanary(ctx, log, state, secretsDir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if state.Canary = canaryRound; err != nil {
			state.Canary = err.Error()
			fmt.Printf("\nThe canary message did not come round: %v\n"+
				"Everything runs on. 'curl http://%s/readyz' tells what is not well.\n", err, p.Admin)
			log.Error("canary failed", "err", err)
		} else {
			fmt.Printf("\nA canary message went round, %.1f s after the start:\n", time.Since(began).Seconds())
		}
		for _, l := range legs {
			fmt.Printf("  %-26s %8.1f ms\n", l.Name, float64(l.Took.Microseconds())/1000)
		}
		if err := file.write(state); err != nil {
			return err
		}
	}
	fmt.Println("\nCtrl-C stops everything; the data stays in", c.Data)
	return nil
}

// writeNetrc writes the file by which curl shows itself to the embedded ClickHouse as the reader.
func (c *devCmd) writeNetrc() (string, error) {
	var b strings.Builder
	for _, host := range []string{"127.0.0.1", "localhost"} {
		fmt.Fprintf(&b, "machine %s login reader password %s\n", host, c.reader)
	}
	name := filepath.Join(c.Data, "netrc")
	if err := engine.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		return "", fmt.Errorf("write netrc: %w", err)
	}
	return name, nil
}

// shorten is a path as one would type it here.
func shorten(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// withSchema is a connection URL that finds a schema's tables without naming it, with any client: libpq takes the
// search path only among the options.
func withSchema(postgres, schema string) string {
	u, err := url.Parse(postgres)
	if err != nil || u.Query().Has("options") || u.Query().Has("search_path") {
		return postgres
	}
	q := u.Query()
	q.Set("options", "-csearch_path="+schema+","+pgschema.RegistrationSchema)
	u.RawQuery = q.Encode()
	return u.String()
}

// sendCanary sends a message round and returns the legs of its way.
func sendCanary(ctx context.Context, log *slog.Logger, state devState, dir string) ([]canary.Leg, error) {
	tlsConf, err := trust(state.CA)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return canary.Run(ctx, canary.Config{
		Client: client.Config{Addrs: []string{state.Edge}, TLS: tlsConf, Logger: log}, Dir: dir,
		Phones: [2]string{"+12025550101", "+12025550102"},
		Pin: func(ctx context.Context, phone string, since time.Time) (string, error) {
			return waitPin(ctx, state.SMS, phone, since)
		},
	})
}

// devFile is dev.json while the deployment runs.
type devFile struct {
	path    string
	engines *embedded.Engines // nil: all are servers

	mu    sync.Mutex
	state *devState // as it was written last; nil: not yet
}

// write writes it anew, with the engines' process ids of now.
func (f *devFile) write(state devState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	state.Engines = map[string]int{}
	if f.engines != nil {
		for _, k := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
			if pid := f.engines.Pid(k); pid != 0 {
				state.Engines[string(k)] = pid
			}
		}
	}
	f.state = &state
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode dev.json: %w", err)
	}
	if err := os.WriteFile(f.path+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	return nil
}

// again writes what was written last, if anything was.
func (f *devFile) again() error {
	f.mu.Lock()
	state := f.state
	f.mu.Unlock()
	if state == nil {
		return nil
	}
	return f.write(*state)
}

// forget removes dev.json at a clean stop.
func (f *devFile) forget() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove dev.json: %w", err)
	}
	return nil
}
