package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

var projectors = []cluster.Role{cluster.Threads, cluster.History}

func slotOf(e *env, th id.ThreadID) topic.Slot {
	return topic.SlotOf(topic.Subject(th), e.Partitions())
}

// unreadable is a record that cannot be decoded.
func unreadable(e *env, th id.ThreadID) *kgo.Record {
	return &kgo.Record{
		Topic:     string(topic.Threads),
		Partition: int32(slotOf(e, th)),
		Key:       th[:],
		Value:     []byte{0xff, 0xff, 0xff},
	}
}

// metric sums a metric of an edge over what follows the given beginning of its line.
func metric(t *testing.T, e *env, edge int, name string) float64 {
	t.Helper()
	text, err := e.Edge(edge).Metrics(e.context(t))
	must(t, err)
	sum := 0.0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		must(t, err)
		sum += v
	}
	return sum
}
