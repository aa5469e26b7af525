package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"heliograph/edge/client"
	"heliograph/schemas/id"
)

const (
	herd      = 10  // devices of one group, which also talk in pairs
	perSocket = 500 // devices that share a UDP socket
	perCut    = 10  // messages that each thread gets while everybody comes back
	// tooLate is how long a device that is on line may lack what is in the log without anybody saying so.
	tooLate = 5 * time.Second
)

// testStampede: all devices lose their connections at once and come back at once while their threads get messages. Each
// has everything; one that is on line and lacks something of a thread for long is told of by a metric. By default there
// are few of them; HELIO_E2E_STAMPEDE=1500 is a stampede, and says how long the last one took.
func testStampede(t *testing.T, e *env) {
	s := newStampede(t, e, number(t, "HELIO_E2E_STAMPEDE", 100)/herd*herd)
	for _, c := range []struct {
		name string
		cut  func()
	}{
		{"every device connects anew", s.reconnect},
		{"one edge is killed and comes back", func() {
			must(t, e.Edge(0).Kill())
			must(t, e.Edge(0).Launch(e.context(t)))
		}},
		{"both edges are killed and come back", func() {
			for i := range 2 {
				must(t, e.Edge(i).Kill())
			}
			for i := range 2 {
				must(t, e.Edge(i).Launch(e.context(t)))
			}
		}},
	} {
		s.round(c.name, c.cut)
	}
	tr := e.readLog(t)
	for _, r := range s.runners {
		if c := tr.complaint(r.device); c != "" {
			t.Error(c)
		}
	}
}

// stampede is devices of groups of herd, of which the first writes to its group, and each second of the others to the
// one after it.
type stampede struct {
	t       *testing.T
	e       *env
	runners []*runner
	writes  []write
}

// write is a thread and who writes to it.
type write struct {
	from    *runner
	to      client.To
	members []*runner
}

// runner is a device that notes how late it gets what.
type runner struct {
	*device

	mu     sync.Mutex // guards what follows; taken inside the device's
	has    int        // messages
	wants  int
	since  time.Time     // when it came on line; zero: it is not
	online time.Duration // from the cut until it was
	slow   time.Duration // from then on, or from the log time, until the last message
	cut    time.Time
	done   time.Time // when it had everything
	lost   []string  // why connections ended
}

func newStampede(t *testing.T, e *env, size int) *stampede {
	t.Helper()
	s := &stampede{t: t, e: e}
	who := e.enrolDevices(t, size)
	e.caughtUp(t)
	sockets := make([]*quic.Transport, (size+perSocket-1)/perSocket)
	for i := range sockets {
		c, err := net.ListenUDP("udp", nil)
		must(t, err)
		sockets[i] = &quic.Transport{Conn: c}
		t.Cleanup(func() { _, _ = sockets[i].Close(), c.Close() }) // nobody uses them any more
	}
	for i, me := range who {
		r := &runner{device: e.newDevice(t, fmt.Sprintf("device %d", i))}
		r.me, r.cfg.Transport, r.heard = me, sockets[i/perSocket], r.note
		must(t, r.store.SetIdentity(me))
		s.runners = append(s.runners, r)
	}
	s.come()
	settled(t, "every device is on line", s.away)
	groups := slices.Collect(slices.Chunk(s.runners, herd))
	made, errs := make([]id.ThreadID, len(groups)), make([]error, len(groups))
	ctx := e.context(t)
	var wg sync.WaitGroup
	for i, group := range groups {
		wg.Go(func() { made[i], errs[i] = group[0].gather(ctx, group[1:]) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	for i, group := range groups {
		s.writes = append(s.writes, write{group[0], client.To{Thread: made[i]}, group})
		for i := 1; i+1 < herd; i += 2 {
			s.writes = append(s.writes, write{group[i], group[i].to(group[i+1].device), group[i : i+2]})
		}
	}
	s.round("before", func() {})
	return s
}

// gather makes a group with others.
func (r *runner) gather(ctx context.Context, others []*runner) (id.ThreadID, error) {
	members := make([]id.UserID, 0, len(others))
	for _, o := range others {
		members = append(members, o.me.User)
	}
	return r.u.CreateGroup(ctx, "stampede", members...)
}

// come has all of them connect at once.
func (s *stampede) come() {
	for _, r := range s.runners {
		r.gone()
		r.come()
	}
}

// reconnect has all of them end their connections, and when none is left open new ones.
func (s *stampede) reconnect() {
	var wg sync.WaitGroup
	for _, r := range s.runners {
		wg.Go(r.leave)
	}
	wg.Wait()
	s.come()
}

// round has something happen, writes to every thread meanwhile, and waits until every device has everything.
func (s *stampede) round(name string, cut func()) {
	t := s.t
	t.Helper()
	before := s.late()
	began := time.Now()
	for _, r := range s.runners {
		r.begin(began)
	}
	cut()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for n := range perCut {
		for _, w := range s.writes {
			for _, r := range w.members {
				r.expect()
			}
			w.from.say(w.to, fmt.Sprintf("%s %d", name, n))
		}
		<-ticker.C
	}
	settled(t, name+": every device has everything", s.missing)
	var online, slow, all []time.Duration
	lost := map[string]int{}
	for _, r := range s.runners {
		r.mu.Lock()
		online, slow, all = append(online, r.online), append(slow, r.slow), append(all, r.done.Sub(began))
		count(lost, r.lost)
		r.mu.Unlock()
	}
	counted := 0.0
	for i, n := range s.late() {
		if n < before[i] { // it counts from 0 again
			before[i] = 0
		}
		counted += n - before[i]
	}
	t.Logf("%s, %d devices, %d threads: on line after %s; a message late on line by %s; everything after %s; "+
		"%.0f subjects and devices were late; connections ended by %v", name, len(s.runners), len(s.writes),
		spread(online), spread(slow), spread(all), counted, lost)
	if most := slices.Max(slow); most > tooLate && counted == 0 {
		t.Errorf("%s: a device on line lacked a message for %v, and no metric tells of it", name, most)
	}
}

// spread is the median, the 99th percentile and the greatest.
func spread(all []time.Duration) string {
	slices.Sort(all)
	n := len(all)
	return fmt.Sprintf("%.1f/%.1f/%.1f s", all[n/2].Seconds(), all[n*99/100].Seconds(), all[n-1].Seconds())
}

// late is how many subjects and devices each edge has counted as late.
func (s *stampede) late() (n [2]float64) {
	for i := range n {
		n[i] = metric(s.t, s.e, i, "helio_replica_subjects_late_total") +
			metric(s.t, s.e, i, "helio_fanout_catchups_late_total")
	}
	return n
}

// away says how many devices have not come on line, and why.
func (s *stampede) away() string {
	n, lost := 0, map[string]int{}
	for _, r := range s.runners {
		r.mu.Lock()
		if r.since.IsZero() {
			n++
			count(lost, r.lost)
		}
		r.mu.Unlock()
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d devices are not on line; their connections ended by %v", n, lost)
}

func count(n map[string]int, what []string) {
	for _, w := range what {
		n[w]++
	}
}

// missing says what a device lacks.
func (s *stampede) missing() string {
	var found []string
	for _, r := range s.runners {
		r.mu.Lock()
		if r.has != r.wants {
			found = append(found, fmt.Sprintf("%s has %d messages of %d, on line since %v (%v)",
				r.name, r.has, r.wants, r.since.Format(time.TimeOnly), r.u.Online()))
		}
		r.mu.Unlock()
	}
	if len(found) == 0 {
		return ""
	}
	return fmt.Sprintf("%d devices lack something; %s; %s", len(found), found[0], s.away())
}

// begin begins a round.
func (r *runner) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut, r.online, r.slow, r.done, r.lost = now, 0, 0, now, nil
}

// gone notes that it is not on line.
func (r *runner) gone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since = time.Time{}
}

// expect notes that it is to get one more message.
func (r *runner) expect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wants++
}

// note takes an event.
func (r *runner) note(ev client.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch ev := ev.(type) {
	case client.Disconnected:
		r.since = time.Time{}
		why := ev.Err.Error()
		for _, addr := range r.cfg.Addrs {
			why = strings.ReplaceAll(why, addr, "an edge")
		}
		r.lost = append(r.lost, why)
	case client.Synced:
		if r.since.IsZero() {
			r.since, r.online = now, now.Sub(r.cut)
		}
	case client.Message:
		r.has++
		r.done = now
		if from := later(r.since, ev.Time); !r.since.IsZero() {
			r.slow = max(r.slow, now.Sub(from))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
