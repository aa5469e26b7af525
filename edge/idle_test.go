package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/quic-go/quic-go"

	"heliograph/schemas/wire"
)

// idleConnections is how many connections the benchmark holds.
const idleConnections = 2000

const crowdEnv = "HELIO_TEST_CROWD"

// TestCrowd is the other process of BenchmarkIdleConnection: devices that register and then keep still until their
// standard input ends.
func TestCrowd(t *testing.T) {
	addr := os.Getenv(crowdEnv)
	if addr == "" {
		t.Skip("runs as a child of BenchmarkIdleConnection")
	}
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: socket}
	defer socket.Close()
	defer tr.Close()
	// The certificate is checked by every other test.
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.Protocol}} //nolint:gosec // see above
	for k := range idleConnections {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, err := tr.Dial(
			ctx, udp, conf,
			&quic.Config{MaxIncomingUniStreams: 8, KeepAlivePeriod: 20 * time.Second, MaxIdleTimeout: time.Minute},
		)
		if err != nil {
			t.Fatal(err)
		}
		str, err := conn.OpenStreamSync(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		d := &device{t: t, conn: conn, str: str, in: bufio.NewReaderSize(str, 256)}
		d.register(fmt.Sprint("+49", k))
		d.sync()
	}
	fmt.Println("settled")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it
}

func rss(b *testing.B) float64 {
	for range 3 { // stacks shrink by half each time
		runtime.GC()
	}
	debug.FreeOSMemory()
	p, err := procfs.Self()
	if err != nil {
		b.Skip(err)
	}
	s, err := p.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return float64(s.ResidentMemory()) / 1024
}

// BenchmarkIdleConnection measures the resident memory of an idle authenticated connection, quic-go's share included
// and the replica's not. The devices are another process.
func BenchmarkIdleConnection(b *testing.B) {
	f := start(b, nil)
	f.dial(b).register("+1").sync() // what is made once is made
	before := rss(b)
	crowd := exec.Command(os.Args[0], "-test.run=^TestCrowd$", "-test.v")
	crowd.Env = append(os.Environ(), crowdEnv+"="+f.Addr().String())
	in, err := crowd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := crowd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := crowd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	settled := false
	for !settled && lines.Scan() {
		settled = strings.HasSuffix(lines.Text(), "settled")
	}
	if !settled {
		b.Fatal("the crowd did not settle")
	}
	for b.Loop() {
		b.ReportMetric((rss(b)-before)/idleConnections, "KiB/conn")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.StackInuse)/1024/idleConnections, "KiB-stack/conn")
	b.ReportMetric(float64(m.HeapInuse)/1024/idleConnections, "KiB-heap/conn")
	in.Close()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if err := crowd.Wait(); err != nil {
		b.Error(err)
	}
}
