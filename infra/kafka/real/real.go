package realkafka

import (
	"bytes"
	"context"
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
)

// startTimeout bounds a start, generously for a busy machine with cold disks.
const startTimeout = 90 * time.Second

// Start starts a broker that ends with the test and returns its address.
func Start(tb testing.TB) (addr string) {
	tb.Helper()
	return StartBroker(tb).Addr()
}

// A Broker is one running Apache Kafka. Its methods are called from the goroutine of
// the test that started it.
type Broker struct {
	script, dir      string
	port, controller int
	process          *process // nil while it is down
}

// StartBroker starts a broker that the test may kill and restart. It ends with the test.
func StartBroker(tb testing.TB) *Broker {
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
	b.Restart(tb)
	return b
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
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
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
