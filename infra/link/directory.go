package link

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
)

const clientIDPrefix = "helio-delivery/"

// ClientID returns the Kafka client id under which a delivery instance joins its group, so that edges can find it.
func ClientID(i Instance) string { return clientIDPrefix + i.Name + "@" + i.Addr }

// ParseClientID is the inverse of ClientID; false for the id of anything else.
func ParseClientID(id string) (Instance, bool) {
	rest, ok := strings.CutPrefix(id, clientIDPrefix)
	if !ok {
		return Instance{}, false
	}
	at := strings.LastIndexByte(rest, '@')
	if at <= 0 {
		return Instance{}, false
	}
	i := Instance{Name: rest[:at], Addr: rest[at+1:]}
	if i.Addr == "" {
		return i, true // in one process
	}
	if host, port, err := net.SplitHostPort(i.Addr); err != nil || host == "" || port == "" {
		return Instance{}, false
	}
	return i, true
}

// GroupDirectory finds instances as members of the Kafka consumer group that shares out the slots.
type GroupDirectory struct {
	cl    *kgo.Client
	cfg   kafka.Config
	group string
}

// NewGroupDirectory returns a directory that asks through cl, which stays the caller's.
func NewGroupDirectory(cl *kgo.Client, cfg kafka.Config, group string) *GroupDirectory {
	return &GroupDirectory{cl: cl, cfg: cfg, group: group}
}

// Instances asks Kafka for the group's members. It is a request to the broker: poll it, every second or so.
func (d *GroupDirectory) Instances(ctx context.Context) ([]Instance, error) {
	members, err := kafka.DescribeGroup(ctx, d.cl, d.cfg, d.group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil // nobody has ever joined
	}
	if err != nil {
		return nil, err
	}
	var out []Instance
	seen := make(map[string]bool)
	for _, m := range members {
		if i, ok := ParseClientID(m.ClientID); ok && !seen[m.ClientID] {
			seen[m.ClientID] = true
			out = append(out, i)
		}
	}
	return out, nil
}
