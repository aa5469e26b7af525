package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/id"
)

// An edge is killed and comes back at its address. Idle devices learn it by the answer to their next keep-alive, a
// stateless reset, and are live again: not after a silence of seconds, nor after QUIC's idle timeout.
func TestCrowdNoticesRestart(t *testing.T) {
	c := gather(t, 20, 200*time.Millisecond, false) // a crowd would make the edge itself late
	all := c.at(0)
	c.kill(0)
	c.restart(0)
	c.again(all)
	for i, why := range c.why {
		if !strings.HasSuffix(why, "received a stateless reset") {
			t.Errorf("device %d was told %q", i, why)
		}
	}
}

// BenchmarkCrowd measures after how long idle devices are live again, with the waits that devices have: after the
// restart of their edge, and after the death of an edge that does not come back.
func BenchmarkCrowd(b *testing.B) {
	for _, back := range []bool{true, false} {
		name := "restart"
		if !back {
			name = "death"
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c := gather(b, 150, 0, !back)
				there := c.at(0)
				c.kill(0)
				if back {
					time.Sleep(2 * time.Second)
					c.restart(0)
				}
				took := c.again(there)
				b.ReportMetric(took[len(took)/2].Seconds(), "s/median")
				b.ReportMetric(took[len(took)*99/100].Seconds(), "s/99%")
				b.ReportMetric(took[len(took)-1].Seconds(), "s/all")
			}
		})
	}
}

// crowd is devices that nobody writes to, at edges that can be killed.
type crowd struct {
	t     testing.TB
	cfg   Config
	world *world
	edges []*Edge
	kills []func()
	ids   []id.DeviceID
	told  []chan client.Event // by device
	why   []string            // by device, what ended its connection
}

// gather connects size devices to one edge; with spare there is another one for later.
func gather(t testing.TB, size int, keepAlive time.Duration, spare bool) *crowd {
	c := &crowd{t: t, world: newWorld(), why: make([]string, size)}
	c.cfg.Session.Partitions = partitions
	pem, err := os.ReadFile(identify(t, &c.cfg))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c.run("127.0.0.1:0")
	addrs := []string{c.edges[0].Addr().String()}
	if spare {
		c.run("127.0.0.1:0")
		addrs = append(addrs, c.edges[1].Addr().String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range size {
		conf := client.Config{KeepAlive: keepAlive, TLS: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}}
		store := client.NewMemoryStore()
		me, key, err := client.NewDevice([16]byte{1, byte(i >> 8), byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		c.world.mu.Lock()
		c.world.keys[me.Device], c.world.owners[me.Device], c.world.users[me.User] = key, me.User, true
		c.world.mu.Unlock()
		if err := store.SetIdentity(me); err != nil {
			t.Fatal(err)
		}
		conf.Addrs, conf.Store = addrs, store
		d, err := client.New(conf)
		if err != nil {
			t.Fatal(err)
		}
		c.ids = append(c.ids, me.Device)
		told := make(chan client.Event, 1000)
		c.told = append(c.told, told)
		wg.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			for e := range d.Events(ctx) {
				told <- e
			}
		})
	}
	for i := range c.told {
		c.until(i, false)
	}
	return c
}

// run runs one more edge.
func (c *crowd) run(listen string) {
	c.t.Helper()
	c.cfg.Listen = listen
	e, err := New(c.cfg, readSide{c.world}, readSide{c.world}, gate{c.world}, reads{c.world}, c.world, nil, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := e.Listen(); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx) // it is killed
	}()
	kill := sync.OnceFunc(func() {
		_ = e.socket.Close()
		cancel()
		<-done
	})
	c.t.Cleanup(kill)
	c.edges, c.kills = append(c.edges, e), append(c.kills, kill)
}

// kill ends an edge without a word to anybody: its socket is closed under it.
func (c *crowd) kill(i int) { c.kills[i]() }

// restart runs an edge in the place of one that was killed.
func (c *crowd) restart(i int) { c.run(c.edges[i].Addr().String()) }

// until takes what a device is told until it is synchronised; after a loss, when that is to come.
func (c *crowd) until(i int, lost bool) {
	c.t.Helper()
	for {
		select {
		case e := <-c.told[i]:
			switch e := e.(type) {
			case client.Disconnected:
				c.why[i], lost = e.Err.Error(), false
			case client.Synced:
				if !lost {
					return
				}
			}
		case <-time.After(patience):
			c.t.Errorf("device %d is not live", i)
			return
		}
	}
}

// at tells which devices are at an edge.
func (c *crowd) at(edge int) []int {
	var there []int
	for _, s := range c.edges[edge].registry.all() {
		there = append(there, slices.Index(c.ids, s.Device()))
	}
	return there
}

// again waits until devices are live again, and tells how long each took, the fastest first.
func (c *crowd) again(devices []int) []time.Duration {
	c.t.Helper()
	began := time.Now()
	took := make([]time.Duration, len(devices))
	var wg sync.WaitGroup
	for n, i := range devices {
		wg.Go(func() { c.until(i, true); took[n] = time.Since(began) })
	}
	wg.Wait()
	slices.Sort(took)
	return took
}
