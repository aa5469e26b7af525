package kafka

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"heliograph/infra/embedded/certtest"
	realkafka "heliograph/infra/kafka/real"
	"heliograph/infra/run"
)

const (
	secureUser     = "helio"
	securePassword = run.Secret("heliotrope")
)

// TestSecureFake and TestSecureReal show that the TLS and SASL settings let the right ones in, and tell the others why
// not.
func TestSecureFake(t *testing.T) {
	ca := certtest.New(t, "the log's authority")
	fake, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.TLS(&tls.Config{
			Certificates: []tls.Certificate{ca.Server(t, "127.0.0.1").Certificate},
			ClientCAs:    ca.Pool(),
			ClientAuth:   tls.RequireAndVerifyClientCert,
		}),
		kfake.EnableSASL(),
		// A password for each mechanism, so that none passes for another.
		kfake.Superuser("PLAIN", secureUser, securePassword.Reveal()+"-plain"),
		kfake.Superuser("SCRAM-SHA-256", secureUser, securePassword.Reveal()+"-scram-sha-256"),
		kfake.Superuser("SCRAM-SHA-512", secureUser, securePassword.Reveal()+"-scram-sha-512"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	testSecure(
		t, ca, fake.ListenAddrs()[0], "during SASL authentication",
		func(m Mechanism) run.Secret { return securePassword + "-" + run.Secret(m) },
	)
}

func TestSecureReal(t *testing.T) {
	ca := certtest.New(t, "the log's authority")
	broker := realkafka.StartSecure(t, realkafka.Secure{
		Server: ca.Server(t, "127.0.0.1").PEM, CA: ca.File, User: secureUser, Password: securePassword.Reveal(),
		Client: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client(t, "starter").Certificate}},
	})
	testSecure(t, ca, broker.Addr(), "SASL_AUTHENTICATION_FAILED", func(Mechanism) run.Secret { return securePassword })
}

// testSecure knocks with right and wrong settings. wrongPassword is what the log's refusal of a password must hold.
func testSecure(t *testing.T, ca *certtest.Authority, addr, wrongPassword string, password func(Mechanism) run.Secret) {
	other := certtest.New(t, "another authority")
	pair, foreign := ca.Client(t, "a role"), other.Client(t, "a role")
	config := func(change func(*Config)) Config {
		c := Config{
			Brokers: []string{addr}, ClientID: "test", TopicPrefix: "secure.", Partitions: testSlots,
			TLS:  run.ClientTLS{Enable: true, CAFile: ca.File, CertFile: pair.CertFile, KeyFile: pair.KeyFile},
			SASL: SASL{Mechanism: MechanismScramSHA512, User: secureUser},
		}
		change(&c)
		if c.SASL.Password == "" {
			c.SASL.Password = password(c.SASL.Mechanism)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // in the refusal; empty: let in
	}{
		{"plain", func(c *Config) { c.SASL.Mechanism = MechanismPlain }, ""},
		{"scram-sha-256", func(c *Config) { c.SASL.Mechanism = MechanismScramSHA256 }, ""},
		{"scram-sha-512", func(*Config) {}, ""},
		{"plain, wrong password", func(c *Config) {
			c.SASL.Mechanism, c.SASL.Password = MechanismPlain, "wrong"
		}, wrongPassword},
		{"scram-sha-256, wrong password", func(c *Config) {
			c.SASL.Mechanism, c.SASL.Password = MechanismScramSHA256, "wrong"
		}, wrongPassword},
		{"scram-sha-512, wrong password", func(c *Config) { c.SASL.Password = "wrong" }, wrongPassword},
		{"unknown user", func(c *Config) { c.SASL.User = "nobody" }, wrongPassword},
		{"wrong authority", func(c *Config) { c.TLS.CAFile = other.File }, "certificate signed by unknown authority"},
		{"the system's authorities", func(c *Config) { c.TLS.CAFile = "" }, "certificate signed by unknown authority"},
		{"wrong name", func(c *Config) { c.TLS.ServerName = "log.example" }, "log.example"},
		{"no certificate", func(c *Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, "remote error: tls: "},
		{"another authority's certificate", func(c *Config) {
			c.TLS.CertFile, c.TLS.KeyFile = foreign.CertFile, foreign.KeyFile
		}, "remote error: tls: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Far less than the client's own patience with a connection that is cut.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := Knock(ctx, config(c.change))
			if c.want == "" {
				if err != nil {
					t.Errorf("Knock = %v", err)
				}
				return
			}
			for tries := 1; tries < 10 && err != nil && !Refused(err); tries++ {
				err = Knock(ctx, config(c.change)) // a TLS alert may lose its race with the end of the connection
			}
			if !Refused(err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), addr) {
				t.Errorf("Knock = %v (refused %v), want a refusal that tells of %q", err, Refused(err), c.want)
			}
			if err != nil &&
				(strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), securePassword.Reveal())) {
				t.Errorf("not one line, or with the password: %q", err)
			}
		})
	}

	// What let in is what works: topics, producer, group and readers.
	cfg := config(func(*Config) {})
	cl, err := Dial(cfg, ProducerOpts(ProducerConfig{})...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if p, err := EnsureTopics(t.Context(), cl, cfg); err != nil || p != testSlots {
		t.Fatalf("EnsureTopics = %d, %v", p, err)
	}
	n := produce(t, cl, cfg, 0, 20)
	s := &sink{store: newStore()}
	_, stop := start(t, consumerConfig(cfg), s)
	eventually(t, "all applied", func() bool { return s.count() >= n })
	stop()
	s.check(t, 20)
}

// A log that is only down, or that asks for nothing, refuses nobody.
func TestKnock(t *testing.T) {
	fake, cfg, _ := cluster(t)
	if err := Knock(t.Context(), cfg); err != nil {
		t.Errorf("an open log: %v", err)
	}
	fake.Close()
	if err := Knock(t.Context(), cfg); err == nil || Refused(err) {
		t.Errorf("a log that is down: %v (refused %v)", err, Refused(err))
	}
	if err := Knock(t.Context(), Config{}); err == nil {
		t.Error("no address is taken")
	}
}
