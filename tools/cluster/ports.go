package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"

	"github.com/prometheus/procfs"
)

// firstPort of those that are given to roles.
const firstPort = 12_000

// given are ports that a cluster of this process has.
var given = struct {
	mu    sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freePort returns a loopback address whose port is free for TCP and UDP, and which the kernel gives to no outgoing
// connection, so that it stays free while the process that has it is down.
func freePort() (string, error) {
	limit := 32_768 // Linux's default
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if r, err := proc.SysctlInts("net.ipv4.ip_local_port_range"); err == nil && len(r) == 2 {
			limit = r[0]
		}
	}
	if limit < firstPort+1000 {
		limit = 65_536 // the kernel gives out everything: a free port is the best there is
	}
	given.mu.Lock()
	defer given.mu.Unlock()
	var last error
	for range 200 {
		port := firstPort + rand.IntN(limit-firstPort)
		if given.ports[port] {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if last = free(addr); last == nil {
			given.ports[port] = true
			return addr, nil
		}
	}
	return "", fmt.Errorf("find a free port: %w", last)
}

func free(addr string) error {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		_ = tcp.Close() // only tried
		return err
	}
	if err := udp.Close(); err != nil {
		return err
	}
	return tcp.Close()
}
