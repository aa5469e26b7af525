package fanout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/infra/link"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// bench is a world with two edges, to be used inside a synctest bubble.
type bench struct {
	t       *testing.T
	world   *replicatest.World
	cluster *replicatest.Cluster
	edges   []*edge
	stop    func()
}

// edge is what an edge has of package replica and of this one.
type edge struct {
	*replica.Replica
	*Fanout
	reg *prometheus.Registry
}

// config is what bounds both.
type config struct {
	replica replica.Config
	fanout  bounds
}

func testConfig() config {
	return config{
		replica.Config{
			Partitions: replicatest.Slots, Linger: 2 * time.Second, Wait: 3 * time.Second, Batch: 4,
		},
		bounds{wait: 3 * time.Second, page: 3, pageBytes: 150, pending: defaultBounds().pending, pendingBytes: 1 << 20},
	}
}

func newEdge(
	tb testing.TB, cfg config, st replica.Store, past History, dir link.Directory, dialer link.Dialer,
) *edge {
	reg := prometheus.NewRegistry()
	r, err := replica.New(cfg.replica, st, dir, dialer, nil, reg)
	if err != nil {
		tb.Fatal(err)
	}
	f := New(r, past, nil, reg)
	f.bounds = cfg.fanout
	return &edge{r, f, reg}
}

func (e *edge) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.Replica.Run(ctx) })
	g.Go(func() error { return e.Fanout.Run(ctx) })
	return g.Wait()
}

// gauge returns what a metric shows.
func (e *edge) gauge(tb testing.TB, name string) float64 {
	tb.Helper()
	all, err := e.reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	tb.Fatalf("no metric %s", name)
	return 0
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func mustBe(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func newBench(t *testing.T, seed uint64, edges int, cfg config) *bench {
	b := &bench{t: t, world: replicatest.NewWorld(seed)}
	b.cluster = replicatest.NewCluster(b.world, "a", "b")
	for s := range topic.Slot(replicatest.Slots) {
		b.cluster.Give(s, []string{"a", "b"}[s%2], 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { b.cluster.Run(ctx) })
	wg.Go(func() { // the projector
		for {
			b.world.Mu.Lock()
			n, d := 1+b.world.Rnd.IntN(5), time.Duration(1+b.world.Rnd.IntN(40))*time.Millisecond
			b.world.Mu.Unlock()
			if !sleep(ctx, d) {
				return
			}
			b.world.Views.Fold(n)
		}
	})
	for range edges {
		cfg.replica.Log = b.world
		e := newEdge(t, cfg, &b.world.Views, &b.world.Past, b.cluster, b.cluster)
		b.edges = append(b.edges, e)
		wg.Go(func() {
			if err := e.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	b.stop = func() { cancel(); wg.Wait() }
	return b
}

// store switches the views on and off.
func (b *bench) store(down bool) {
	b.world.Mu.Lock()
	b.world.Views.Down = down
	b.world.Mu.Unlock()
}

// pair is a device and its session.
type pair struct {
	d       *phone
	s       *testSession
	backup  *backup
	revoked bool
}

// model is one random schedule.
type model struct {
	*bench
	rnd     *rand.Rand
	users   []id.UserID
	devices []*pair
	threads []id.ThreadID
	peers   map[id.ThreadID][2]id.UserID // of direct threads
	sent    []func()                     // repeats a message
	trace   []string
	// generation of the last registration.
	generation uint32
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) any() id.UserID { return m.users[m.rnd.IntN(len(m.users))] }

func (m *model) deviceOf(u id.UserID) id.DeviceID {
	for _, p := range m.devices {
		if p.d.user == u && !p.revoked {
			return p.d.id
		}
	}
	return id.DeviceID{}
}

func (m *model) connect(p *pair) {
	if p.revoked || p.s != nil {
		return
	}
	h := m.edges[m.rnd.IntN(len(m.edges))]
	capacity := []int{2, 5, 1000, 1000}[m.rnd.IntN(4)]
	slow := []time.Duration{0, 0, time.Millisecond, 30 * time.Millisecond}[m.rnd.IntN(4)]
	s, err := p.d.connect(h, capacity, slow, m.rnd)
	m.note("connect %v capacity %d slow %v: %v", p.d.id, capacity, slow, err)
	if err == nil {
		p.s = s
	}
}

func (m *model) leave(p *pair) {
	if p.s != nil {
		m.note("leave %v", p.d.id)
		p.s.leave()
		p.s = nil
	}
}

func (m *model) step() {
	w := m.world
	switch n := m.rnd.IntN(104); {
	case n == 102: // links have less room
		m.cluster.Bound(1 + m.rnd.IntN(12))
	case n == 103:
		m.cluster.Bound(0)
	case n == 100: // from now on it takes a window at a time
		m.devices[m.rnd.IntN(len(m.devices))].d.page(m.rnd.IntN(3))
	case n == 101:
		if p := m.devices[m.rnd.IntN(len(m.devices))]; p.s != nil {
			rest, err := p.s.next(m.rnd.IntN(3))
			m.note("more of %v: %d, %v", p.d.id, rest, err)
		}
	case n < 38 && len(m.threads) > 0: // a message, perhaps by someone who may not
		t := m.threads[m.rnd.IntN(len(m.threads))]
		u, mid := m.any(), id.NewMessage()
		var peer id.UserID
		if p, direct := m.peers[t]; direct {
			k := m.rnd.IntN(2)
			u, peer = p[k], p[1-k]
		}
		d := m.deviceOf(u)
		send := func() { w.Send(t, u, d, mid, peer) }
		m.note("send by %v in %v", u, t)
		send()
		m.sent = append(m.sent, send)
	case n < 42 && len(m.sent) > 0: // a retry
		m.sent[m.rnd.IntN(len(m.sent))]()
	case n < 47: // a group
		t := id.NewGroup()
		by, other := m.any(), m.any()
		m.note("group %v of %v and %v", t, by, other)
		w.Join(t, w.Next(t), by, other)
		m.pause(10)
		w.Create(t, by, other)
		m.threads = append(m.threads, t)
	case n < 50: // a direct thread
		a, b := m.any(), m.any()
		t := id.DirectThread(a, b)
		if _, known := m.peers[t]; known {
			return
		}
		m.note("direct %v of %v and %v", t, a, b)
		m.peers[t] = [2]id.UserID{a, b}
		m.threads = append(m.threads, t)
		w.Join(t, w.Next(t), a, b)
		m.pause(10)
		w.Send(t, a, m.deviceOf(a), id.NewMessage(), b)
	case n < 57 && len(m.threads) > 0: // members come and go
		t := m.threads[m.rnd.IntN(len(m.threads))]
		if _, direct := m.peers[t]; direct {
			return
		}
		w.Mu.Lock()
		var admin id.UserID
		for u, mem := range w.Oracles[t].State.Members {
			if mem.Active() && mem.Role == thread.RoleAdmin {
				admin = u
			}
		}
		u := m.any()
		in := w.Oracles[t].State.IsMember(u)
		w.Mu.Unlock()
		if in {
			m.note("remove %v from %v", u, t)
			w.RemoveMember(t, admin, u)
			return
		}
		m.note("add %v to %v", u, t)
		w.Join(t, -1, u)
		m.pause(30)
		w.AddMember(t, admin, u)
	case n < 66:
		m.connect(m.devices[m.rnd.IntN(len(m.devices))])
	case n < 69:
		m.leave(m.devices[m.rnd.IntN(len(m.devices))])
	case n < 70: // a backup is made of a device that says what it has, or restored
		p := m.devices[m.rnd.IntN(len(m.devices))]
		if m.leave(p); p.backup == nil {
			b := p.d.backup()
			p.backup, p.d.own = &b, true
			return
		}
		m.note("restore %v", p.d.id)
		p.d.restore(*p.backup)
		p.backup = nil
	case n < 80 && len(m.threads) > 0:
		m.devices[m.rnd.IntN(len(m.devices))].d.acknowledge(
			w, m.threads[m.rnd.IntN(len(m.threads))], m.rnd.IntN(2) == 0,
		)
	case n < 83:
		m.note("break")
		m.cluster.BreakLinks([]string{"a", "b"}[m.rnd.IntN(2)])
	case n < 86:
		s, to, back := topic.Slot(m.rnd.IntN(replicatest.Slots)), []string{"a", "b", ""}[m.rnd.IntN(3)], m.rnd.IntN(12)
		m.note("slot %d to %q, ring of %d", s, to, back)
		m.cluster.Give(s, to, back)
	case n < 88:
		m.note("trim")
		m.cluster.Trim(m.rnd.IntN(6))
	case n < 90:
		down := m.rnd.IntN(2) == 0
		m.note("store down: %v", down)
		m.store(down)
	case n < 91 && len(m.devices) < 12: // a further device
		u := m.any()
		by := m.deviceOf(u)
		var floor int64
		for _, p := range m.devices {
			if p.d.id == by {
				floor = p.d.floor
			}
		}
		if by == (id.DeviceID{}) {
			return
		}
		d := newPhone(u, id.NewDevice(), floor)
		w.LinkDevice(u, by, d.id)
		m.devices = append(m.devices, &pair{d: d})
	case n < 92 && len(m.devices) < 12 && m.rnd.IntN(2) == 0: // the phone is registered again
		u := m.any()
		m.note("register %v again", u)
		m.generation++
		d := newPhone(u, id.NewDevice(), 0)
		d.floor = w.Register(u, d.id, m.generation)
		for _, p := range m.devices {
			p.revoked = p.revoked || p.d.user == u
		}
		m.devices = append(m.devices, &pair{d: d})
	case n < 92 && len(m.devices) > 4: // a device is revoked, unless it is the user's last
		p := m.devices[m.rnd.IntN(len(m.devices))]
		for _, o := range m.devices {
			if o != p && o.d.user == p.d.user && !o.revoked && !p.revoked {
				m.note("revoke %v", p.d.id)
				p.revoked = true
				w.Revoke(p.d.user, p.d.id)
				return
			}
		}
	case n < 94: // Postgres crashes
		m.note("crash")
		w.Mu.Lock()
		w.Views.Crash(func() int { return m.rnd.IntN(8) })
		w.Mu.Unlock()
	case n < 96: // the tail is trimmed
		m.note("trim the tail")
		w.Mu.Lock()
		w.Past.Shaky = true
		w.Views.Trim(w.Clock-int64(m.rnd.IntN(300)), func() bool { return m.rnd.IntN(3) > 0 })
		w.Mu.Unlock()
	case n < 97 && len(m.threads) > 0: // what only a newer version reads
		t, u := m.threads[m.rnd.IntN(len(m.threads))], m.any()
		m.note("newer by %v in %v", u, t)
		w.SendNewer(t, u, m.deviceOf(u))
	case n < 98: // a projector of that version takes over
		m.note("drain")
		w.Mu.Lock()
		w.Views.Drain()
		w.Mu.Unlock()
	default:
		m.pause(200)
	}
}

func (m *model) pause(ms int) { time.Sleep(time.Duration(m.rnd.IntN(ms+1)) * time.Millisecond) }

func runModel(t *testing.T, seed uint64, steps int) {
	cfg := testConfig()
	rnd := rand.New(rand.NewPCG(seed, 2))
	if rnd.IntN(2) == 0 {
		cfg.replica.Backlog, cfg.fanout.pending = 3, 4
	}
	if rnd.IntN(2) == 0 {
		cfg.replica.Idle = time.Duration(1+rnd.IntN(100)) * time.Millisecond
	}
	recent := max(0, rnd.IntN(8)-3)
	m := &model{bench: newBench(t, seed, 2, cfg), rnd: rnd, peers: map[id.ThreadID][2]id.UserID{}, generation: 1}
	defer m.stop()
	m.cluster.Tardy()
	m.world.Mu.Lock()
	m.world.Views.Recent = recent
	m.world.Mu.Unlock()
	for n := range byte(3 + rnd.IntN(3)) {
		u := replicatest.User(n)
		m.users = append(m.users, u)
		d := id.NewDevice()
		m.devices = append(m.devices, &pair{d: newPhone(u, d, m.world.Register(u, d, 1))})
	}
	defer func() {
		for _, p := range m.devices {
			m.leave(p)
		}
	}()
	for range steps {
		m.step()
		if rnd.IntN(3) == 0 {
			m.pause(15)
		}
	}
	// Everything works again, and all are there.
	m.store(false)
	m.world.Mu.Lock()
	m.world.Past.Shaky = false
	m.world.Views.Drain()
	m.world.Mu.Unlock()
	m.cluster.Bound(0)
	for s := range topic.Slot(replicatest.Slots) {
		if !m.cluster.Owned(s) {
			m.cluster.Give(s, "a", rnd.IntN(10))
		}
	}
	for try := 0; ; try++ {
		for _, p := range m.devices {
			m.connect(p)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		fault := ""
		for _, p := range m.devices {
			if p.revoked {
				if p.s != nil && p.d.closed != wirev1.Code_CODE_DEVICE_REVOKED {
					fault = fmt.Sprintf("revoked device %v is still there", p.d.id)
				}
				continue
			}
			if p.s != nil { // of what a window has left
				_, _ = p.s.next(0)
			}
			if f := p.d.lacks(m.world); f != "" {
				fault = fmt.Sprintf("device %v of %v: %s", p.d.id, p.d.user, f)
			}
		}
		if fault == "" {
			return
		}
		if try >= 10 { // what had no room is asked for again within 40 seconds
			for _, h := range m.edges {
				t.Log(h.Describe())
			}
			for _, l := range m.trace {
				t.Log(l)
			}
			t.Fatalf("seed %d: %s", seed, fault)
		}
	}
}

// TestModel runs random schedules: events of every kind, links that break and slots that move with and without a gap,
// links without room for all, views that lag, fail, go back, are trimmed and give few of a thread's recent messages,
// sessions that come and go on two edges and overflow, messages that are sent again, or that only a newer version
// reads, members who are removed, devices that are linked and revoked. At the end every device has applied exactly what
// it may see, in order, and was never shown anything else. HELIO_EDGE_SEEDS says how many schedules; HELIO_EDGE_SEED
// runs one.
func TestModel(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 20
	}
	if n, err := strconv.Atoi(os.Getenv("HELIO_EDGE_SEEDS")); err == nil {
		seeds = n
	}
	first := 0
	if n, err := strconv.Atoi(os.Getenv("HELIO_EDGE_SEED")); err == nil {
		first, seeds = n, 1
	}
	for k := range seeds {
		seed := uint64(first + k)
		synctest.Test(t, func(t *testing.T) { runModel(t, seed, 40+int(seed*7%200)) })
		if t.Failed() {
			return
		}
	}
}
