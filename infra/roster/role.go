package roster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"heliograph/schemas/topic"
)

// Topic is where announcements lie. It is not among topic.All: it has one partition, and no events.
const Topic topic.Topic = "helio.roles"

// Every is how often a process announces itself.
const Every = 10 * time.Second

// Gone is how long after it was heard last a process is taken for dead.
const Gone = 3*Every + 5*time.Second

// Role is a process as it announces itself.
type Role struct {
	Instance string         `json:"instance"` // of this run alone
	Role     string         `json:"role"`     // edge, delivery, projector or dev
	Name     string         `json:"name"`
	Version  string         `json:"version"`
	Commit   string         `json:"commit,omitempty"`
	Go       string         `json:"go"`
	Reader   int            `json:"reader"` // of events
	Types    []string       `json:"types"`  // of events, that it reads
	Started  time.Time      `json:"started"`
	Admin    string         `json:"admin"`           // host:port of its admin server
	Slots    map[string]int `json:"slots,omitempty"` // owned, by view
	Left     bool           `json:"left,omitempty"`  // it was stopped

	Seen time.Time `json:"seen"` // when it was heard last; of the record, not of what it says
}

// Alive tells whether it is to be taken for running.
func (r *Role) Alive(now time.Time) bool { return !r.Left && now.Sub(r.Seen) < Gone }

// maxAnnouncement bounds what is decoded.
const maxAnnouncement = 64 << 10

func decode(b []byte) (Role, error) {
	var r Role
	if len(b) > maxAnnouncement {
		return r, fmt.Errorf("roster: an announcement of %d bytes", len(b))
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("roster: %w", err)
	}
	if r.Instance == "" {
		return r, fmt.Errorf("roster: an announcement without an instance")
	}
	return r, nil
}

// Reachable is the address under which others reach what is bound to addr: the address itself, or where it is bound to
// all interfaces that of the one which leads to one of the brokers. No packet is sent to find out.
func Reachable(addr string, brokers []string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return addr
	}
	for _, b := range brokers {
		c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", b) // asks nobody: it picks an address
		if err != nil {
			continue
		}
		local, ok := c.LocalAddr().(*net.UDPAddr)
		_ = c.Close() // nothing was sent
		if ok {
			return net.JoinHostPort(local.IP.String(), port)
		}
	}
	return addr
}
