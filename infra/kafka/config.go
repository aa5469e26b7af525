package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"heliograph/infra/budget"
	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// DefaultTopicPrefix is what the topics' names begin with, unless Config says otherwise.
const DefaultTopicPrefix = "helio."

// Mechanism names a SASL mechanism.
type Mechanism string

// The mechanisms that are supported.
const (
	MechanismNone        Mechanism = ""
	MechanismPlain       Mechanism = "plain"
	MechanismScramSHA256 Mechanism = "scram-sha-256"
	MechanismScramSHA512 Mechanism = "scram-sha-512"
)

// SASL is how a client authenticates itself; the zero value means not at all.
type SASL struct {
	Mechanism Mechanism
	User      string
	Password  run.Secret
}

// Config says where the log is and how it is spoken to.
type Config struct {
	Brokers  []string // host:port; at least one
	ClientID string   // default "helio"
	TLS      run.ClientTLS
	SASL     SASL

	Partitions int // P; 0 adopts what the topics have, or topic.DefaultPartitions when there are none
	// default "helio."; another one keeps deployments and tests apart on one cluster: topics, and the groups named by
	// Group
	TopicPrefix string

	// Dial replaces the network dial of tests; nil means the net package's. With TLS it must return the TLS connection
	// itself.
	Dial func(ctx context.Context, network, host string) (net.Conn, error)

	// Budget is the memory that fetched records and events in flight count against; nil: they have bounds of their own
	// alone.
	Budget *budget.Budget

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka: no broker address"))
	}
	for _, b := range c.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("kafka: broker address %q is not host:port", b))
		}
	}
	if c.Partitions < 0 || c.Partitions > topic.MaxPartitions {
		errs = append(errs, fmt.Errorf("kafka: %d partitions is not in 0..%d", c.Partitions, topic.MaxPartitions))
	}
	if c.TopicPrefix != "" &&
		strings.Trim(c.TopicPrefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		errs = append(errs,
			fmt.Errorf("kafka: topic prefix %q has characters that Kafka does not allow", c.TopicPrefix))
	}
	switch c.SASL.Mechanism {
	case MechanismNone:
		if c.SASL.User != "" || c.SASL.Password != "" {
			errs = append(errs, errors.New("kafka: a SASL user or password is set without a mechanism"))
		}
	case MechanismPlain, MechanismScramSHA256, MechanismScramSHA512:
		if c.SASL.User == "" || c.SASL.Password == "" {
			errs = append(errs, fmt.Errorf("kafka: SASL mechanism %s needs a user and a password", c.SASL.Mechanism))
		}
	default:
		errs = append(errs, fmt.Errorf("kafka: unknown SASL mechanism %q", c.SASL.Mechanism))
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("kafka: %w", err))
	}
	return errors.Join(errs...)
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

func (c Config) prefix() string {
	if c.TopicPrefix == "" {
		return DefaultTopicPrefix
	}
	return c.TopicPrefix
}

// Name returns the name that a topic has on this cluster: the prefix and the topic's own word.
func (c Config) Name(t topic.Topic) string {
	if c.prefix() == DefaultTopicPrefix {
		return string(t)
	}
	return c.prefix() + strings.TrimPrefix(string(t), DefaultTopicPrefix)
}

// Topic is the inverse of Name; false when the name is not one of ours.
func (c Config) Topic(name string) (topic.Topic, bool) {
	rest, ok := strings.CutPrefix(name, c.prefix())
	if !ok {
		return "", false
	}
	t := topic.Topic(DefaultTopicPrefix + rest)
	return t, t.Number() != 0
}

// Group returns the name of the deployment's consumer group for a role: "helio-" and the role, and with a prefix of its
// own that too, so that deployments that share a cluster share no group.
func (c Config) Group(role string) string { return "helio-" + role + c.own() }

// Instance returns a member's static id in a group of the deployment. It keeps members of one name apart even in a
// group that two deployments were told to share.
func (c Config) Instance(name string) string { return name + c.own() }

// own is what the names of a deployment with another prefix than the default end with. Its letters are those of a
// topic's name, which is all that Java's clients allow an instance id.
func (c Config) own() string {
	if c.prefix() == DefaultTopicPrefix {
		return ""
	}
	return "-" + c.prefix()
}

// Opts returns the options that every client of this deployment has in common, with logs and metrics hooked in.
func (c Config) Opts() ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	id := c.ClientID
	if id == "" {
		id = "helio"
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.WithLogger(kslog.New(slog.New(quiet{c.logger().Handler()}).With("component", "kgo"))),
		// A moved partition or a broker that came back is found within a quarter of a second and not within the default
		// five.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.DialTimeout(5 * time.Second),
		kgo.DisableClientMetrics(),
	}
	if c.Registerer != nil {
		reg := prometheus.WrapRegistererWith(prometheus.Labels{"client": id}, c.Registerer)
		opts = append(opts,
			kgo.WithHooks(kprom.NewMetrics("helio_kafka_client", kprom.Registerer(&firstRegisterer{reg: reg}))))
	}
	switch {
	case c.Dial != nil:
		opts = append(opts, kgo.Dialer(c.Dial))
	case c.TLS.Enable:
		conf, err := c.TLS.Load()
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if m := c.SASL.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func (s SASL) mechanism() sasl.Mechanism {
	switch s.Mechanism {
	case MechanismPlain:
		return plain.Auth{User: s.User, Pass: s.Password.Reveal()}.AsMechanism()
	case MechanismScramSHA256:
		return scram.Auth{User: s.User, Pass: s.Password.Reveal()}.AsSha256Mechanism()
	case MechanismScramSHA512:
		return scram.Auth{User: s.User, Pass: s.Password.Reveal()}.AsSha512Mechanism()
	}
	return nil
}

// Dial returns a client with the common options and more; it connects when it is first used. The caller closes it.
func Dial(c Config, more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := c.Opts()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: new client: %w", err)
	}
	return cl, nil
}

// firstRegisterer lets several clients of one name share a registry: the first one's metrics are shown, the others' are
// not, and a client that closes takes away only what it registered itself. kprom alone would panic on the second.
type firstRegisterer struct {
	reg prometheus.Registerer

	mu  sync.Mutex // guards own
	own []prometheus.Collector
}

func (f *firstRegisterer) Register(c prometheus.Collector) error {
	err := f.reg.Register(c)
	var dup prometheus.AlreadyRegisteredError
	if errors.As(err, &dup) {
		return nil
	}
	if err == nil {
		f.mu.Lock()
		f.own = append(f.own, c)
		f.mu.Unlock()
	}
	return err
}

func (f *firstRegisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := f.Register(c); err != nil {
			panic(err)
		}
	}
}

func (f *firstRegisterer) Unregister(c prometheus.Collector) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.own {
		if o == c {
			return f.reg.Unregister(c)
		}
	}
	return false
}
