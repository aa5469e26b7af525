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
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/quic-go/quic-go"

	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
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
	settle(t, addr, idleConnections, 20*time.Second)
	fmt.Println("settled")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it
}

// settle registers devices at an edge, on one socket.
func settle(t *testing.T, addr string, n int, keepAlive time.Duration) (all []*device) {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: socket}
	t.Cleanup(func() { _, _ = tr.Close(), socket.Close() })
	// The certificate is checked by every other test.
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.Protocol}} //nolint:gosec // see above
	for k := range n {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, err := tr.Dial(
			ctx, udp, conf,
			&quic.Config{
				MaxIncomingUniStreams: 8, KeepAlivePeriod: keepAlive, MaxIdleTimeout: time.Minute,
				InitialPacketSize: wire.PacketSize,
			},
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
		all = append(all, d)
	}
	return all
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
	in, out, end := other(b, "^TestCrowd$", crowdEnv+"="+f.Addr().String())
	out.until("settled")
	for b.Loop() {
		b.ReportMetric((rss(b)-before)/idleConnections, "KiB/conn")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.StackInuse)/1024/idleConnections, "KiB-stack/conn")
	b.ReportMetric(float64(m.HeapInuse)/1024/idleConnections, "KiB-heap/conn")
	in.Close()
	end()
}

// words are what another process says.
type words struct {
	b     *testing.B
	lines *bufio.Scanner
}

// until returns the line with a word, from there on.
func (s words) until(word string) string {
	for s.lines.Scan() {
		if _, after, ok := strings.Cut(s.lines.Text(), word); ok {
			return after
		}
	}
	s.b.Fatalf("the other process did not say %q", word)
	return ""
}

// other runs a test of this package in a process of its own; end waits until it has passed.
func other(b *testing.B, name, env string) (in io.WriteCloser, out words, end func()) {
	crowd := exec.Command(os.Args[0], "-test.run="+name, "-test.v")
	crowd.Env = append(os.Environ(), env)
	in, err := crowd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	pipe, err := crowd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := crowd.Start(); err != nil {
		b.Fatal(err)
	}
	return in, words{b, bufio.NewScanner(pipe)}, func() {
		_, _ = io.Copy(io.Discard, pipe)
		if err := crowd.Wait(); err != nil {
			b.Error(err)
		}
	}
}

const (
	keepersEnv = "HELIO_TEST_KEEPERS"
	keepers    = 400
	// keeping is how often each of them says something: far more often than devices do, so that there is something to
	// be measured, and seldom enough that each keep-alive is acknowledged by a packet of its own.
	keeping = 100 * time.Millisecond
	kept    = 50 // times
)

// TestKeepers is the other process of BenchmarkKeepAlive: devices that keep their connections alive, as the SDK does in
// the foreground or by QUIC's own means.
func TestKeepers(t *testing.T) {
	how, addr, ok := strings.Cut(os.Getenv(keepersEnv), "@")
	if !ok {
		t.Skip("runs as a child of BenchmarkKeepAlive")
	}
	every := time.Duration(0)
	if how == "quic" {
		every = keeping
	}
	all := settle(t, addr, keepers, every)
	nothing := wirev1.ClientFrame_builder{Watermarks: &wirev1.Watermarks{}, Padding: make([]byte, 48)}
	count := func() (s quic.ConnectionStats) {
		for _, d := range all {
			one := d.conn.ConnectionStats()
			s.PacketsSent, s.BytesSent = s.PacketsSent+one.PacketsSent, s.BytesSent+one.BytesSent
			s.PacketsReceived += one.PacketsReceived
			s.BytesReceived += one.BytesReceived
		}
		return s
	}
	fmt.Println("settled")
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		before := count()
		for range kept {
			for _, d := range all {
				if how == "frame" {
					d.tell(nothing)
				}
				time.Sleep(keeping / keepers)
			}
		}
		s := count()
		fmt.Println("kept", s.PacketsSent-before.PacketsSent, s.BytesSent-before.BytesSent,
			s.PacketsReceived-before.PacketsReceived, s.BytesReceived-before.BytesReceived)
	}
}

// BenchmarkKeepAlive measures what one keep-alive costs an edge, in CPU time (of which the process has nothing else to
// spend it on) and in bytes with their headers of UDP and IP: the SDK's in the foreground, a frame, and QUIC's own.
func BenchmarkKeepAlive(b *testing.B) {
	for _, how := range []string{"frame", "quic"} {
		b.Run(how, func(b *testing.B) {
			f := start(b, nil)
			in, out, end := other(b, "^TestKeepers$", keepersEnv+"="+how+"@"+f.Addr().String())
			out.until("settled")
			for b.Loop() {
				before := cpu(b)
				fmt.Fprintln(in, "go")
				var sent, sentBytes, got, gotBytes float64
				if _, err := fmt.Sscan(out.until("kept"), &sent, &sentBytes, &got, &gotBytes); err != nil {
					b.Fatal(err)
				}
				const headers = 28
				b.ReportMetric((cpu(b)-before).Seconds()/sent*1e6, "us-CPU")
				b.ReportMetric(sentBytes/sent+headers, "B-in")
				b.ReportMetric(gotBytes/sent+headers*got/sent, "B-out")
			}
			in.Close()
			end()
		})
	}
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
