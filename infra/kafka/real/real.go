package realkafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// startTimeout bounds a start, generously for a busy machine with cold disks.
const startTimeout = 90 * time.Second

// Start starts a broker that ends with the test and returns its address.
func Start(tb testing.TB) (addr string) {
	tb.Helper()
	return StartBroker(tb).Addr()
}

// Secure is what a broker of StartSecure shows its clients and wants of them.
type Secure struct {
	// Server is the broker's PKCS #8 key and its certificate, in PEM.
	Server []byte
	// CA is the PEM file of the authority of the clients' certificates; without one of those nobody is let in.
	CA string
	// User and Password are known under PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. Neither may hold spaces, quotes or
	// commas.
	User, Password string
	// Client is how Start itself connects.
	Client *tls.Config
}

// A Broker is one running Apache Kafka. Its methods are called from the goroutine of
// the test that started it.
type Broker struct {
	script, dir      string
	port, controller int
	clients          []kgo.Opt // how it is spoken to
	process          *process  // nil while it is down
}

// StartBroker starts a broker that the test may kill and restart. It ends with the test.
func StartBroker(tb testing.TB) *Broker {
	tb.Helper()
	return start(tb, nil)
}

// StartSecure starts a broker that speaks TLS and SASL only. It ends with the test.
func StartSecure(tb testing.TB, s Secure) *Broker {
	tb.Helper()
	return start(tb, &s)
}

func start(tb testing.TB, s *Secure) *Broker {
	tb.Helper()
	script := find(tb)
	// Not tb.TempDir: its name has the test's, which may hold characters that a
	// properties file gives a meaning to.
	dir, err := os.MkdirTemp("", "helio-kafka-")
	if err != nil {
		tb.Fatalf("real kafka: %v", err)
	}
	ports, err := freePorts(2)
	if err != nil {
		_ = os.RemoveAll(dir)
		tb.Fatalf("real kafka: %v", err)
	}
	b := &Broker{script: script, dir: dir, port: ports[0], controller: ports[1]}
	tb.Cleanup(func() {
		b.Kill()
		if err := os.RemoveAll(b.dir); err != nil {
			tb.Errorf("real kafka: %v", err)
		}
	})
	if s != nil {
		if err := s.write(filepath.Join(dir, "secure")); err != nil {
			tb.Fatalf("real kafka: %v", err)
		}
		b.clients = []kgo.Opt{
			kgo.DialTLSConfig(s.Client),
			kgo.SASL(plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()),
		}
	}
	b.Restart(tb)
	return b
}

// write lays the files out as kafka.sh wants them.
func (s *Secure) write(dir string) error {
	ca, err := os.ReadFile(s.CA)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	for name, b := range map[string][]byte{
		"server.pem": s.Server,
		"ca.pem":     ca,
		"user":       fmt.Appendf(nil, "%s %s\n", s.User, s.Password),
	} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
	}
	return err
}

// Addr is the broker's address for clients; it stays the same over restarts.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// Kill ends the broker with SIGKILL and waits until it is gone. It does nothing when
// the broker is down.
func (b *Broker) Kill() {
	if b.process != nil {
		b.process.kill()
		b.process = nil
	}
}

// Restart starts the broker on its data and address, and waits until it answers. It
// does nothing when the broker is up.
func (b *Broker) Restart(tb testing.TB) {
	tb.Helper()
	if b.process != nil {
		return
	}
	logName := filepath.Join(b.dir, "kafka.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatalf("real kafka: %v", err)
	}
	defer log.Close()
	cmd := exec.Command(b.script, "run", b.dir, strconv.Itoa(b.port), strconv.Itoa(b.controller))
	cmd.Stdout, cmd.Stderr = log, log
	p, err := spawn(cmd)
	if err != nil {
		tb.Fatalf("real kafka: %v", err)
	}
	b.process = p
	if err := b.wait(); err != nil {
		b.Kill()
		text, _ := os.ReadFile(logName)
		tb.Fatalf("real kafka at %s: %v\n%s", b.Addr(), err, text[max(0, len(text)-4096):])
	}
}

// wait returns when the broker answers.
func (b *Broker) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	client, err := kgo.NewClient(append(b.clients, kgo.SeedBrokers(b.Addr()))...)
	if err != nil {
		return err
	}
	defer client.Close()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		err := client.Ping(ctx)
		if err == nil {
			tick.Stop()
			return nil
		}
		select {
		case <-b.process.done:
			return fmt.Errorf("it ended at once: %w", b.process.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer in %v: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}

// find returns the script that starts Kafka, or skips or fails the test when the jars
// or Java are not there.
func find(tb testing.TB) string {
	tb.Helper()
	_, file, _, _ := runtime.Caller(0)
	here := filepath.Dir(file)
	script := filepath.Join(here, "kafka.sh")
	if os.Getenv("HELIO_NO_REAL_KAFKA") != "" {
		tb.Skip("real kafka: HELIO_NO_REAL_KAFKA is set")
	}
	missing := func(format string, args ...any) {
		tb.Helper()
		if os.Getenv("CI") == "true" {
			tb.Fatalf("real kafka: "+format, args...)
		}
		tb.Skipf("real kafka: "+format, args...)
	}
	if _, err := os.Stat(script); err != nil {
		missing("%v (was the test built with -trimpath?)", err)
	}
	if _, err := exec.LookPath("java"); err != nil {
		missing("%v: install a Java 17 runtime", err)
	}
	jars := os.Getenv("HELIO_KAFKA_JARS")
	if jars == "" {
		jars = filepath.Join(here, "..", "..", "..", ".helio", "kafka")
	}
	// kafka.sh leaves this copy when the jars of this pom are complete. It would also
	// fetch them, but a test is no place for a download.
	got, err := os.ReadFile(filepath.Join(jars, "pom.xml"))
	if err != nil {
		missing("no jars in %s: run make kafka", jars)
	}
	want, err := os.ReadFile(filepath.Join(here, "pom.xml"))
	if err != nil {
		tb.Fatalf("real kafka: %v", err)
	}
	if !bytes.Equal(got, want) {
		missing("the jars in %s are of another version: run make kafka", jars)
	}
	return script
}

// freePorts asks the kernel for n different free ports.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		// All stay open until the end, so that none is given twice.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
