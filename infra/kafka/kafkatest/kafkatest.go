// Package kafkatest has brokers for tests whose log has accidents.
package kafkatest

import (
	"net"
	"os"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker is a broker with data on disk, which can be set back to what they were at a moment before. Its address stays.
type Broker struct {
	t    testing.TB
	dir  string
	port int
	fake *kfake.Cluster
}

// Start starts a broker without topics; it ends with the test.
func Start(t testing.TB) *Broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// Addr is host and port.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

func (b *Broker) start() {
	b.t.Helper()
	var err error
	b.fake, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(b.dir), kfake.Ports(b.port))
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *Broker) stop() {
	if b.fake != nil {
		b.fake.Close()
		b.fake = nil
	}
}

// Keep restarts the broker, and returns a copy of the data that it had in between.
func (b *Broker) Keep() (dir string) {
	b.t.Helper()
	b.stop()
	dir = b.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	b.start()
	return dir
}

// SetBack restarts the broker with data that were kept.
func (b *Broker) SetBack(kept string) {
	b.t.Helper()
	b.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Fatal(err)
	}
	if err := os.CopyFS(b.dir, os.DirFS(kept)); err != nil {
		b.t.Fatal(err)
	}
	b.start()
}
