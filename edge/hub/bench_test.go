package hub

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// sink is a session that takes everything.
type sink struct {
	user   id.UserID
	device id.DeviceID
	pushed atomic.Int64
}

func (s *sink) User() id.UserID                                          { return s.user }
func (s *sink) Device() id.DeviceID                                      { return s.device }
func (s *sink) Push([]byte) bool                                         { s.pushed.Add(1); return true }
func (s *sink) PushWait(context.Context, []byte) error                   { s.pushed.Add(1); return nil }
func (s *sink) PushReceipts(id.ThreadID, []*wirev1.MemberWatermark) bool { return true }
func (s *sink) WaitReceipts(context.Context) error                       { return nil }
func (s *sink) Lagged()                                                  {}
func (s *sink) Close(wirev1.Code)                                        {}

// liveGroup makes a hub with one live group of n members, all of them connected, and the log's records of so many
// messages.
func liveGroup(b *testing.B, n, messages int) (h *Hub, c *conn, s *slot, records []*linkv1.Record, sinks []*sink) {
	w := newWorld(1)
	t := id.NewGroup()
	var users []id.UserID
	for k := range n {
		u := id.User([]byte("key"), fmt.Sprint(k), 1)
		users = append(users, u)
		sinks = append(sinks, &sink{user: u, device: id.NewDevice()})
		w.register(u, sinks[k].device, 1)
	}
	w.create(t, users[0], users[1:]...)
	for range messages {
		w.send(t, users[0], sinks[0].device, id.NewMessage(), id.UserID{})
	}
	h = newHub(testConfig(), &w.views, nil, nil, nil, nil, nil)
	s = h.slotOf(topic.Subject(t))
	c = &conn{wake: make(chan struct{}, 1), dirty: map[*slot]bool{}}
	s.owner = c
	var after actions
	ts := s.addThread(t)
	ts.bornAt, ts.phase = 0, loading
	for k, u := range users {
		us := h.slotOf(topic.Subject(u)).addUser(u)
		cl := &client{sess: sinks[k], device: sinks[k].device, user: us, turn: make(chan struct{}, 1), state: open}
		us.clients.Store(&[]*client{cl})
		h.addLocal(ts, us, -1, &after)
	}
	h.born(ts, &after)
	records = w.log[s.n][0] // the threads, which are first in topic.Folded
	h.events(s, c, topic.Threads, records[:1])
	return h, c, s, records[1:], sinks
}

// BenchmarkFanOut takes messages of a group in from the link and hands them to its members; one operation is one
// message.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{2, 100, 1000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			h, c, s, records, sinks := liveGroup(b, n, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for k := 0; k < len(records); k += 8 {
				h.events(s, c, topic.Threads, records[k:min(k+8, len(records))])
			}
			b.StopTimer()
			if got := sinks[n-1].pushed.Load(); got < int64(b.N) {
				b.Fatalf("%d pushes of %d", got, b.N)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
		})
	}
}

// BenchmarkView is what a session asks for each message sent.
func BenchmarkView(b *testing.B) {
	h, _, s, _, sinks := liveGroup(b, 100, 0)
	var t id.ThreadID
	for k := range s.threads {
		t = k
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v, ok := h.View(t); !ok || !v.IsMember(sinks[5].user) {
				b.Error("not a member")
			}
		}
	})
}

// TestLoginStorm lets many users connect at once: what they ask of the store is asked together.
func TestLoginStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 400
		cfg := testConfig()
		cfg.Batch, cfg.Page = 256, 100
		b := newBench(t, 1, 1, cfg)
		defer b.stop()
		var people []*device
		for k := range n {
			u, d := id.User([]byte("key"), fmt.Sprint(k), 1), id.NewDevice()
			people = append(people, newDevice(u, d, b.world.register(u, d, 1)))
		}
		for k := range n {
			b.group(people[k].user, people[(k+1)%n].user)
		}
		for k := range people { // nothing is new to half of them
			if k%2 == 0 {
				continue
			}
			b.world.mu.Lock()
			for th, o := range b.world.oracles {
				if o.state.IsMember(people[k].user) {
					people[k].applied[th], people[k].got[th] = o.accepted[0], []topic.Position{o.accepted[0].position}
				}
			}
			b.world.mu.Unlock()
		}
		time.Sleep(20 * time.Second) // the views catch up
		b.world.mu.Lock()
		b.world.views.queries = 0
		b.world.mu.Unlock()
		var wg sync.WaitGroup
		sessions := make([]*testSession, n)
		for k, d := range people {
			wg.Go(func() { sessions[k] = b.online(d, 0) })
		}
		wg.Wait()
		b.settle()
		b.world.mu.Lock()
		queries := b.world.views.queries
		b.world.mu.Unlock()
		if queries > n/2 {
			t.Errorf("%d queries for %d logins", queries, n)
		}
		for k, d := range people {
			if f := d.lacks(b.world); f != "" {
				t.Errorf("device %d: %s", k, f)
			}
			sessions[k].leave()
		}
	})
}

// BenchmarkIdle reports what a user with one device and three direct threads costs the hub.
func BenchmarkIdle(b *testing.B) {
	const n = 2000
	for range b.N {
		w := newWorld(1)
		c := newCluster(w, "a")
		for s := range topic.Slot(testSlots) {
			c.give(s, "a", 0)
		}
		cfg := testConfig()
		cfg.Batch = 256
		h := newHub(cfg, &w.views, &w.past, c, c, nil, nil)
		var all []*sink
		for k := range n {
			s := &sink{user: id.User([]byte("key"), fmt.Sprint(k), 1), device: id.NewDevice()}
			all = append(all, s)
			w.register(s.user, s.device, 1)
		}
		for k := range n {
			for d := 1; d <= 3; d++ {
				o := all[(k+d)%n]
				t := id.DirectThread(all[k].user, o.user)
				w.join(t, 0, all[k].user, o.user)
				w.send(t, all[k].user, all[k].device, id.NewMessage(), o.user)
			}
		}
		w.views.fold(1 << 30)
		c.step(1 << 30)
		c.trim(0)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { c.run(ctx) })
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		wg.Go(func() { _ = h.Run(ctx) })
		var logins sync.WaitGroup
		for _, s := range all {
			logins.Go(func() {
				if _, err := h.Attach(ctx, s); err != nil {
					b.Error(err)
				}
				if err := h.Sync(ctx, s); err != nil {
					b.Error(err)
				}
			})
		}
		logins.Wait()
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/session")
		b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		cancel()
		wg.Wait()
	}
}
