package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	pgschema "heliograph/schemas/postgres"
)

// Where a helio dev without flags has its engines.
const (
	defaultKafka      = "127.0.0.1:7492"
	defaultPostgres   = "postgres://helio@127.0.0.1:7432/helio?sslmode=disable"
	defaultClickHouse = "127.0.0.1:7423"
	defaultData       = ".helio" // as the flags say it
)

// localFlags make a command that only reads find the helio dev of this machine.
type localFlags struct {
	Data string `help:"Directory of the 'helio dev' to look into, where no address says otherwise." placeholder:"DIR" default:".helio" type:"path" env:"HELIO_DATA"`
}

// fill puts the addresses of the helio dev that runs, if one does, in the place of those that nobody has chosen. Its
// Postgres has a password of its own making, so a default cannot name it. Where no log was named, none runs at the
// usual address and none in the directory, that is said.
func (f localFlags) fill(ctx context.Context, k *kafkaFlags, p *postgresFlags, c *clickhouseFlags) error {
	state, err := readDevState(f.Data)
	if err != nil {
		if !slices.Equal(k.Kafka, []string{defaultKafka}) {
			return nil
		}
		if usual, e := filepath.Abs(defaultData); e != nil || f.Data != usual {
			return err
		}
		c, e := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", defaultKafka)
		if e != nil {
			return err
		}
		return c.Close()
	}
	if slices.Equal(k.Kafka, []string{defaultKafka}) {
		k.Kafka = []string{state.Kafka}
	}
	if p != nil && p.Postgres == defaultPostgres {
		p.Postgres = state.Postgres
	}
	if c != nil && slices.Equal(c.Clickhouse, []string{defaultClickHouse}) {
		c.Clickhouse = []string{state.ClickHouse}
		if c.ClickhousePassword == "" {
			c.ClickhousePassword = run.Secret(state.ClickHousePassword)
		}
	}
	return nil
}

// tlsFlags say how a client checks a server.
type tlsFlags struct {
	TLS        bool   `help:"Connect with TLS." env:"TLS"`
	CA         string `help:"PEM file of the authority that signed the server's certificate; default: the system's." placeholder:"FILE" type:"path" env:"CA"`
	Cert       string `help:"PEM file of the client's certificate." placeholder:"FILE" type:"path" env:"CERT"`
	Key        string `help:"PEM file of the client certificate's key." placeholder:"FILE" type:"path" env:"KEY"`
	ServerName string `help:"Name that the server's certificate must bear; default: the host." placeholder:"NAME" env:"SERVER_NAME"`
}

func (f tlsFlags) config() run.ClientTLS {
	return run.ClientTLS{Enable: f.TLS, CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key, ServerName: f.ServerName}
}

// kafkaFlags say where the log is.
type kafkaFlags struct {
	Kafka         []string   `help:"Brokers of the log." placeholder:"HOST:PORT" env:"HELIO_KAFKA" default:"${kafka}"`
	KafkaTLS      tlsFlags   `embed:"" prefix:"kafka-" envprefix:"HELIO_KAFKA_"`
	KafkaSASL     string     `help:"SASL mechanism: plain, scram-sha-256 or scram-sha-512." enum:",plain,scram-sha-256,scram-sha-512" default:"" placeholder:"MECHANISM" env:"HELIO_KAFKA_SASL"`
	KafkaUser     string     `help:"SASL user." env:"HELIO_KAFKA_USER"`
	KafkaPassword run.Secret `help:"SASL password; better given in the environment." env:"HELIO_KAFKA_PASSWORD"`
	Partitions    int        `help:"Slots that the log has, chosen once for a deployment when it is made (0: what the log has; 16 for the embedded one)." default:"0" env:"HELIO_PARTITIONS"`
	TopicPrefix   string     `help:"What the topics' names begin with; the consumer groups are named after it too, so deployments may share a cluster." default:"helio." env:"HELIO_TOPIC_PREFIX"`
}

func (f kafkaFlags) config(log *slog.Logger, reg prometheus.Registerer, client string) kafka.Config {
	return kafka.Config{
		Brokers: f.Kafka, ClientID: client, TLS: f.KafkaTLS.config(),
		SASL:       kafka.SASL{Mechanism: kafka.Mechanism(f.KafkaSASL), User: f.KafkaUser, Password: f.KafkaPassword},
		Partitions: f.Partitions, TopicPrefix: f.TopicPrefix, Logger: log, Registerer: reg,
	}
}

// postgresFlags say where the thread views are.
type postgresFlags struct {
	Postgres       string `help:"Database of the thread views." placeholder:"URL" env:"HELIO_POSTGRES" default:"${postgres}"`
	PostgresSchema string `help:"Schema of the thread views." default:"views" env:"HELIO_POSTGRES_SCHEMA"`
}

func (f postgresFlags) config(log *slog.Logger, reg prometheus.Registerer, name string, conns int32) postgres.Config {
	return postgres.Config{
		URL: f.Postgres, Name: name, MaxConns: conns, Logger: log, Registerer: reg,
		Params: map[string]string{"search_path": f.PostgresSchema + "," + pgschema.RegistrationSchema},
	}
}

// clickhouseFlags say where the history is.
type clickhouseFlags struct {
	Clickhouse         []string   `help:"ClickHouse servers." placeholder:"HOST:PORT" env:"HELIO_CLICKHOUSE" default:"${clickhouse}"`
	ClickhouseProtocol string     `help:"http or native." enum:"http,native" default:"http" env:"HELIO_CLICKHOUSE_PROTOCOL"`
	ClickhouseDatabase string     `help:"Database of the history." default:"heliograph" env:"HELIO_CLICKHOUSE_DATABASE"`
	ClickhouseUser     string     `help:"User." default:"default" env:"HELIO_CLICKHOUSE_USER"`
	ClickhousePassword run.Secret `help:"Password; better given in the environment." env:"HELIO_CLICKHOUSE_PASSWORD"`
	ClickhouseTLS      tlsFlags   `embed:"" prefix:"clickhouse-" envprefix:"HELIO_CLICKHOUSE_"`
}

func (f clickhouseFlags) config(log *slog.Logger, reg prometheus.Registerer, name string) clickhouse.Config {
	return clickhouse.Config{
		Addr: f.Clickhouse, Protocol: clickhouse.Protocol(f.ClickhouseProtocol), Database: f.ClickhouseDatabase,
		User: f.ClickhouseUser, Password: f.ClickhousePassword, TLS: f.ClickhouseTLS.config(),
		Name: name, Logger: log, Registerer: reg,
	}
}

// adminFlags say where the admin server is.
type adminFlags struct {
	Admin string `help:"Address of health checks and metrics." placeholder:"HOST:PORT" default:"127.0.0.1:0" env:"HELIO_ADMIN"`
	Pprof string `help:"Address of profiles (/debug/pprof), which show the memory of the process; default: none." placeholder:"HOST:PORT" env:"HELIO_PPROF"`
}

// secretsFlags say where the secrets of a deployment lie.
type secretsFlags struct {
	Secrets string `help:"Directory of the deployment's secrets (user.key, edge.pem, edge.key, token.key; ca.pem, link.pem and link.key for the links). Every edge has the same." placeholder:"DIR" default:".helio/secrets" type:"path" env:"HELIO_SECRETS"`
}

// readSecret reads a file of the secrets' directory that must be there.
func (f secretsFlags) read(name string, least int) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(f.Secrets, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf(
			"%s is missing in %s; 'helio secrets' makes it, once for all edges: put it there or name another --secrets",
			name, f.Secrets,
		)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if len(b) < least {
		return nil, fmt.Errorf("%s in %s has %d bytes, needs at least %d", name, f.Secrets, len(b), least)
	}
	return b, nil
}
