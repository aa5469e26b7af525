package fanout

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/infra/link"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// sink is a session that takes everything.
type sink struct {
	user   id.UserID
	device id.DeviceID
	pushed atomic.Int64
	want   int64 // pushes, after which done is closed
	done   chan struct{}
}

func (s *sink) User() id.UserID     { return s.user }
func (s *sink) Device() id.DeviceID { return s.device }

func (s *sink) Push([]byte) bool {
	if s.pushed.Add(1) == s.want {
		close(s.done)
	}
	return true
}

func (s *sink) PushWait(context.Context, []byte) error               { s.pushed.Add(1); return nil }
func (s *sink) Logged(id.ThreadID, topic.Position, thread.Watermark) {}

func (s *sink) PushReceipts(id.ThreadID, []replica.Mark) bool { return true }
func (s *sink) WaitReceipts(context.Context) error            { return nil }
func (s *sink) Lagged()                                       {}
func (s *sink) Close(wirev1.Code)                             {}

// tap is a delivery instance that owns every slot and sends what it is given; its ring begins with the log.
type tap struct{ frames chan *linkv1.ToEdge }

func (t *tap) Instances(context.Context) ([]link.Instance, error) {
	return []link.Instance{{Name: "a"}}, nil
}
func (t *tap) Dial(context.Context, link.Instance) (link.EdgeEnd, error) { return t, nil }
func (t *tap) Close() error                                              { return nil }

func (t *tap) Send(_ context.Context, m *linkv1.ToDelivery) error {
	if s := m.GetSubscribe(); s != nil {
		t.frames <- linkv1.ToEdge_builder{Subscribed: linkv1.Subscribed_builder{
			Id: s.GetId(), Slot: s.GetSlot(), LiveFrom: link.EncodeCursor(topic.Cursor{}),
		}.Build()}.Build()
	}
	return nil
}

func (t *tap) Recv(ctx context.Context) (*linkv1.ToEdge, error) {
	select {
	case m := <-t.frames:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// liveGroup makes an edge with one live group of n members, all of them connected, and the frames of so many messages.
func liveGroup(b *testing.B, n, messages int) (e *edge, in *tap, g id.ThreadID, frames []*linkv1.ToEdge, last *sink) {
	w := replicatest.NewWorld(1)
	g = id.NewGroup()
	var users []id.UserID
	var sinks []*sink
	for k := range n {
		u := id.User([]byte("key"), fmt.Sprint(k), 1)
		users = append(users, u)
		// also that the thread is his, and its beginning
		sinks = append(sinks, &sink{
			user: u, device: id.NewDevice(), want: 2 + int64(messages), done: make(chan struct{}),
		})
	}
	w.Create(g, users[0], users[1:]...)
	for range messages {
		w.Send(g, users[0], sinks[0].device, id.NewMessage(), id.UserID{})
	}
	in = &tap{frames: make(chan *linkv1.ToEdge, 64)}
	cfg := testConfig()
	cfg.replica.Batch = 256
	e = newEdge(b, cfg, &w.Views, nil, in, in)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done }) //nolint:errcheck // ended as asked
	var all []int32
	for s := range int32(replicatest.Slots) {
		all = append(all, s)
	}
	in.frames <- linkv1.ToEdge_builder{Owned: linkv1.Owned_builder{Slots: all}.Build()}.Build()
	for k, u := range users {
		p := &person{of: e.Fanout, user: u}
		p.devices.Store(&[]*device{
			{sess: sinks[k], id: sinks[k].device, person: p, turn: make(chan struct{}, 1), state: open},
		})
		e.Follow(p)
		if _, _, err := e.Enter(ctx, p, g); err != nil {
			b.Fatal(err)
		}
	}
	slot := w.Slot(topic.Subject(g))
	records := w.Log[slot][0] // the threads, which are first in topic.Folded
	frame := func(r []*linkv1.Record) *linkv1.ToEdge {
		return linkv1.ToEdge_builder{Events: linkv1.Events_builder{
			Topic: topic.Threads.Number(), Slot: int32(slot), Records: r,
		}.Build()}.Build()
	}
	in.frames <- frame(records[:1])
	if err := e.WaitThread(ctx, g, 0); err != nil {
		b.Fatal(err)
	}
	for k := 1; k < len(records); k += 8 {
		frames = append(frames, frame(records[k:min(k+8, len(records))]))
	}
	return e, in, g, frames, sinks[n-1]
}

// BenchmarkFanOut takes messages of a group in from the link and hands them to its members; one operation is one
// message.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{2, 100, 1000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			_, in, _, frames, last := liveGroup(b, n, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for _, f := range frames {
				in.frames <- f
			}
			<-last.done
			b.StopTimer()
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
		})
	}
}

// BenchmarkView is what a session asks for each message sent.
func BenchmarkView(b *testing.B) {
	e, _, g, _, last := liveGroup(b, 100, 0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v, ok := e.View(g); !ok || !v.IsMember(last.user) {
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
		cfg.replica.Batch, cfg.fanout.page = 256, 100
		b := newBench(t, 1, 1, cfg)
		defer b.stop()
		var people []*phone
		for k := range n {
			u, d := id.User([]byte("key"), fmt.Sprint(k), 1), id.NewDevice()
			people = append(people, newPhone(u, d, b.world.Register(u, d, 1)))
		}
		for k := range n {
			b.group(people[k].user, people[(k+1)%n].user)
		}
		for k := range people { // nothing is new to half of them
			if k%2 == 0 {
				continue
			}
			b.world.Mu.Lock()
			for th, o := range b.world.Oracles {
				if o.State.IsMember(people[k].user) {
					people[k].applied[th], people[k].got[th] = o.Accepted[0], []topic.Position{o.Accepted[0].Position}
				}
			}
			b.world.Mu.Unlock()
		}
		time.Sleep(20 * time.Second) // the views catch up
		b.world.Mu.Lock()
		b.world.Views.Queries = 0
		b.world.Mu.Unlock()
		var wg sync.WaitGroup
		sessions := make([]*testSession, n)
		for k, d := range people {
			wg.Go(func() { sessions[k] = b.online(d, 0) })
		}
		wg.Wait()
		b.settle()
		b.world.Mu.Lock()
		queries := b.world.Views.Queries
		b.world.Mu.Unlock()
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

// BenchmarkIdle reports what a user with one device and three direct threads costs an edge.
func BenchmarkIdle(b *testing.B) {
	const n = 2000
	for range b.N {
		w := replicatest.NewWorld(1)
		c := replicatest.NewCluster(w, "a")
		for s := range topic.Slot(replicatest.Slots) {
			c.Give(s, "a", 0)
		}
		cfg := testConfig()
		cfg.replica.Batch = 256
		h := newEdge(b, cfg, &w.Views, &w.Past, c, c)
		var all []*sink
		for k := range n {
			s := &sink{user: id.User([]byte("key"), fmt.Sprint(k), 1), device: id.NewDevice()}
			all = append(all, s)
			w.Register(s.user, s.device, 1)
		}
		for k := range n {
			for d := 1; d <= 3; d++ {
				o := all[(k+d)%n]
				t := id.DirectThread(all[k].user, o.user)
				w.Join(t, 0, all[k].user, o.user)
				w.Send(t, all[k].user, all[k].device, id.NewMessage(), o.user)
			}
		}
		w.Views.Fold(1 << 30)
		c.Step(1 << 30)
		c.Trim(0)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(ctx) })
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
				if err := h.Sync(ctx, s, nil, 0); err != nil {
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
