//go:build linux

package edge

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// namespace is a network of its own, which a thread has; it is gone with the thread.
type namespace struct {
	thread int
	do     chan func()
}

// unable skips a test of namespaces with its reason where they cannot be had. Where HELIO_REQUIRE
// names namespace it must be able to have them.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if strings.Contains(os.Getenv("HELIO_REQUIRE"), "namespace") {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// newNamespace makes a network of its own.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{do: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		n.thread = syscall.Gettid()
		made <- syscall.Unshare(syscall.CLONE_NEWNET)
		for fn := range n.do {
			fn()
		}
	}()
	t.Cleanup(func() { close(n.do) })
	if err := <-made; err != nil {
		unable(t, "no network namespaces: %v", err)
	}
	return n
}

// in runs fn with the namespace's network, and waits for it.
func (n *namespace) in(fn func() error) error {
	done := make(chan error)
	n.do <- func() { done <- fn() }
	return <-done
}

// ip runs commands of ip(8) in the namespace.
func (n *namespace) ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		err := n.in(func() error {
			out, err := exec.Command("sh", "-c", "exec ip "+c).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			unable(t, "ip %s: %v", c, err)
		}
	}
}

// set changes a setting of IPv6.
func (n *namespace) set(t *testing.T, name, value string) {
	t.Helper()
	if err := n.in(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+name, []byte(value), 0o600)
	}); err != nil {
		unable(t, "no setting: %v", err)
	}
}

// TestTunnel: device and edge have a hop between them whose MTU is 1,280, as of a VPN; neither knows of it when it
// begins.
func TestTunnel(t *testing.T) {
	device, hop, far := newNamespace(t), newNamespace(t), newNamespace(t)
	for _, n := range []*namespace{device, hop, far} {
		n.set(t, "default/accept_dad", "0") // which would take a second
		n.set(t, "all/forwarding", "1")
	}
	hop.ip(t,
		"link add near mtu 1500 type veth peer name wan mtu 1500",
		"link add far mtu 1280 type veth peer name wan0 mtu 1280",
		fmt.Sprintf("link set wan netns %d", device.thread),
		fmt.Sprintf("link set wan0 netns %d name wan", far.thread),
		"addr add fd00:1::1/64 dev near nodad", "addr add fd00:2::1/64 dev far nodad",
		"link set near up", "link set far up",
	)
	for at, n := range map[string]*namespace{"1": device, "2": far} {
		n.ip(t,
			"addr add fd00:"+at+"::2/64 dev wan nodad", "link set wan up", "route add default via fd00:"+at+"::1")
	}

	cfg := Config{Listen: "[fd00:2::2]:0", drainWindow: 1}
	authority := identify(t, &cfg)
	cfg.Session.Partitions = partitions
	w := newWorld()
	e, err := New(cfg, readSide{w}, readSide{w}, gate{w}, reads{w}, w, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := far.in(e.Listen); err != nil {
		t.Fatal(err)
	}
	var socket net.PacketConn
	if err := device.in(func() (err error) {
		socket, err = net.ListenPacket("udp6", "[fd00:1::2]:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	converse(t, serve(t, e, w, authority), socket)
}
