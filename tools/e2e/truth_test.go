package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// truth is what the log says.
type truth struct {
	threads map[id.ThreadID]*chronicle
	users   map[id.UserID]*user.State
	records map[topic.Topic]map[int32][]*kgo.Record
}

// chronicle is a thread's events and the state that they fold to.
type chronicle struct {
	state    *thread.State
	accepted []seen
	raw      [][]byte // of the accepted, as they stand in the log
	refused  map[id.MessageID][]thread.Verdict
	copies   map[id.MessageID][]topic.Position // of every message, however they are judged
}

var folded = []topic.Topic{topic.Threads, topic.Receipts, topic.Users}

// plain is a client of the log that nothing of ours has configured.
func (e *env) plain(t *testing.T, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(e.KafkaAddr())}, more...)...)
	must(t, err)
	return cl
}

// ends asks for the log's ends.
func (e *env) ends(ctx context.Context) (map[topic.Topic]map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(e.KafkaAddr()), kgo.RequestRetries(3))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	names := make([]string, len(folded))
	for i, tp := range folded {
		names[i] = string(tp)
	}
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, err
	}
	if err := listed.Error(); err != nil {
		return nil, err
	}
	out := map[topic.Topic]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if out[topic.Topic(o.Topic)] == nil {
			out[topic.Topic(o.Topic)] = map[int32]int64{}
		}
		out[topic.Topic(o.Topic)][o.Partition] = o.Offset
	})
	return out, nil
}

// records reads topics from the first record to the end.
func (e *env) records(t *testing.T, topics ...topic.Topic) map[topic.Topic]map[int32][]*kgo.Record {
	t.Helper()
	ctx := e.context(t)
	ends, err := e.ends(ctx)
	must(t, err)
	want, out := map[string]map[int32]kgo.Offset{}, map[topic.Topic]map[int32][]*kgo.Record{}
	left := 0
	for _, tp := range topics {
		want[string(tp)], out[tp] = map[int32]kgo.Offset{}, map[int32][]*kgo.Record{}
		for p, end := range ends[tp] {
			if end > 0 {
				want[string(tp)][p] = kgo.NewOffset().AtStart()
				left++
			}
		}
	}
	if left == 0 {
		return out
	}
	cl := e.plain(t, kgo.ConsumePartitions(want))
	defer cl.Close()
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read the log: %v", err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			tp := topic.Topic(r.Topic)
			end := ends[tp][r.Partition]
			if r.Offset >= end {
				return
			}
			out[tp][r.Partition] = append(out[tp][r.Partition], r)
			if r.Offset == end-1 {
				left--
			}
		})
	}
	return out
}

// readLog reads threads and users from the first record to the end and folds them.
func (e *env) readLog(t *testing.T) *truth {
	t.Helper()
	tr := &truth{
		threads: map[id.ThreadID]*chronicle{},
		users:   map[id.UserID]*user.State{},
		records: e.records(t, topic.Threads, topic.Users),
	}
	for _, recs := range tr.records[topic.Users] {
		for _, r := range recs {
			tr.foldUser(r)
		}
	}
	for _, recs := range tr.records[topic.Threads] {
		for _, r := range recs {
			tr.foldThread(r)
		}
	}
	return tr
}

func (tr *truth) foldUser(r *kgo.Record) {
	u, err := id.From[id.UserID](r.Key)
	if err != nil {
		return
	}
	ev, err := event.Decode(r.Value)
	if err != nil {
		return
	}
	if tr.users[u] == nil {
		tr.users[u] = user.New(u)
	}
	tr.users[u].Apply(ev, topic.Position(r.Offset), r.Timestamp.UnixMilli())
}

func (tr *truth) foldThread(r *kgo.Record) {
	t, err := id.From[id.ThreadID](r.Key)
	if err != nil {
		return
	}
	ev, err := event.Decode(r.Value)
	if err != nil {
		return
	}
	c := tr.threads[t]
	if c == nil {
		c = &chronicle{
			state:   thread.New(t),
			refused: map[id.MessageID][]thread.Verdict{},
			copies:  map[id.MessageID][]topic.Position{},
		}
		tr.threads[t] = c
	}
	at := topic.Position(r.Offset)
	v := c.state.Apply(ev, at, r.Timestamp.UnixMilli())
	s := seen{
		At:      at,
		Ordinal: v.Ordinal,
		Kind:    int(ev.WhichBody()),
		Sender:  ev.User,
		Text:    titleOf(ev.Event),
		TimeMS:  r.Timestamp.UnixMilli(),
	}
	if s.Kind == 10 {
		s.Message, s.Reply, s.Text = ev.About.ID, ev.Reply, ev.Content.Text
		c.copies[s.Message] = append(c.copies[s.Message], at)
	}
	if v.Outcome == thread.Accepted {
		c.accepted = append(c.accepted, s)
		c.raw = append(c.raw, r.Value)
		return
	}
	c.refused[s.Message] = append(c.refused[s.Message], v)
}

// expected is what a device must have of a thread.
func (tr *truth) expected(d *device, t id.ThreadID) []seen {
	c := tr.threads[t]
	if c == nil {
		return nil
	}
	m := c.state.Member(d.me.User)
	floor := int64(0)
	if u := tr.users[d.me.User]; u != nil && u.Devices[d.me.Device] != nil {
		floor = u.Devices[d.me.Device].SinceMS
	}
	var out []seen
	for _, s := range c.accepted {
		if m.Sees(s.At) && s.TimeMS >= floor {
			out = append(out, s)
		}
	}
	return out
}

// threadsOf are the threads in which a user is or was.
func (tr *truth) threadsOf(u id.UserID) []id.ThreadID {
	var out []id.ThreadID
	for t, c := range tr.threads {
		if c.state.Member(u) != nil {
			out = append(out, t)
		}
	}
	return out
}

// complaint says how a device differs from the log; empty when it does not.
func (tr *truth) complaint(d *device) string {
	d.mu.Lock()
	faults := slices.Clone(d.faults)
	known := slices.Collect(maps.Keys(d.got))
	d.mu.Unlock()
	if len(faults) > 0 {
		return strings.Join(faults, "\n")
	}
	threads := tr.threadsOf(d.me.User)
	for _, t := range known {
		if !slices.Contains(threads, t) {
			return fmt.Sprintf("%s has thread %s, of which its user was never a member", d.name, t)
		}
	}
	for _, t := range threads {
		want, got := tr.expected(d, t), d.copyOf(t)
		if slices.Equal(want, got) {
			continue
		}
		for i := range max(len(want), len(got)) {
			if i < len(want) && i < len(got) && want[i] == got[i] {
				continue
			}
			var w, g seen
			if i < len(want) {
				w = want[i]
			}
			if i < len(got) {
				g = got[i]
			}
			return fmt.Sprintf(
				"%s, thread %s: it has %d events, the log %d; the first that differs, number %d (-log +device):\n%s",
				d.name, t, len(got), len(want), i+1, cmp.Diff(w, g),
			)
		}
	}
	return ""
}

// agree waits until devices that are connected have exactly what the log says.
func (e *env) agree(t *testing.T, ds ...*device) *truth {
	t.Helper()
	tr := e.readLog(t)
	for _, d := range ds {
		settled(t, d.name+" has what the log has", func() string { return tr.complaint(d) })
	}
	// Nothing more may come, and nothing twice: what came meanwhile is in the log too.
	tr = e.readLog(t)
	for _, d := range ds {
		settled(t, d.name+" has what the log has", func() string { return tr.complaint(d) })
	}
	return tr
}
