package replicatest

import (
	"context"
	"sync"
	"time"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// Cluster is delivery instances over the world's log; it is the Directory and the Dialer of replicas.
type Cluster struct {
	world *World

	mu        sync.Mutex // taken outside world.Mu
	instances map[string]*instance
	refuse    bool // dials fail
	tardy     bool // one request in four waits for its turn
	slow      bool // the rest of each answer comes slowly, not only of one in six
	delay     time.Duration
	lose      int // so many Subscribes
	bound     int // subjects of a link; 0: any number
	denied    map[topic.Subject]bool
	wg        sync.WaitGroup
}

type instance struct {
	name  string
	slots map[topic.Slot]*ownedSlot
	links map[*edgeLink]bool
}

type ownedSlot struct {
	start, next topic.Cursor // the ring
}

type edgeLink struct {
	end  link.DeliveryEnd
	subs map[topic.Slot]map[topic.Subject]bool
	held bool // an answer is on its way slowly
	late []*linkv1.ToEdge
}

func (l *edgeLink) send(m *linkv1.ToEdge) {
	if l.held {
		l.late = append(l.late, m)
		return
	}
	_ = l.end.Send(m)
}

// NewCluster returns a cluster of instances that own nothing.
func NewCluster(w *World, names ...string) *Cluster {
	c := &Cluster{world: w, instances: map[string]*instance{}}
	for _, n := range names {
		c.instances[n] = &instance{name: n, slots: map[topic.Slot]*ownedSlot{}, links: map[*edgeLink]bool{}}
	}
	return c
}

// Instances implements link.Directory.
func (c *Cluster) Instances(context.Context) ([]link.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []link.Instance
	for n := range c.instances {
		out = append(out, link.Instance{Name: n})
	}
	return out, nil
}

// Dial implements link.Dialer.
func (c *Cluster) Dial(ctx context.Context, to link.Instance) (link.EdgeEnd, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.instances[to.Name]
	if in == nil || c.refuse {
		return nil, link.ErrClosed
	}
	edge, end := link.Pipe(0)
	l := &edgeLink{end: end, subs: map[topic.Slot]map[topic.Subject]bool{}}
	in.links[l] = true
	c.owned(in, l)
	c.wg.Go(func() { c.serve(in, l) })
	return edge, nil
}

// owned tells a link what the instance owns, and how far it is.
func (c *Cluster) owned(in *instance, l *edgeLink) {
	var slots []int32
	for s := range in.slots {
		slots = append(slots, int32(s))
	}
	l.send(linkv1.ToEdge_builder{Owned: linkv1.Owned_builder{Slots: slots}.Build()}.Build())
	for s := range l.subs {
		if in.slots[s] == nil {
			delete(l.subs, s)
		}
	}
	for s, o := range in.slots {
		c.progress(l, s, o)
	}
}

func (c *Cluster) progress(l *edgeLink, s topic.Slot, o *ownedSlot) {
	l.send(linkv1.ToEdge_builder{Progress: linkv1.Progress_builder{Slots: []*linkv1.SlotProgress{
		linkv1.SlotProgress_builder{Slot: int32(s), Next: link.EncodeCursor(o.next)}.Build(),
	}}.Build()}.Build())
}

func (c *Cluster) serve(in *instance, l *edgeLink) {
	defer func() {
		c.mu.Lock()
		delete(in.links, l)
		c.mu.Unlock()
		l.end.Close()
	}()
	for {
		m, err := l.end.Recv(context.Background())
		if err != nil {
			return
		}
		opened, late := c.opened(in, m)
		time.Sleep(late) // while it waits for its turn, the slot may be closed and opened anew
		c.mu.Lock()
		switch m.WhichBody() {
		case linkv1.ToDelivery_Subscribe_case:
			if c.lose > 0 {
				c.lose--
				break
			}
			c.subscribe(in, l, opened, m.GetSubscribe())
		case linkv1.ToDelivery_AskOwned_case:
			c.owned(in, l)
		case linkv1.ToDelivery_Unsubscribe_case:
			for _, k := range m.GetUnsubscribe().GetSubjects() {
				delete(l.subs[topic.Slot(m.GetUnsubscribe().GetSlot())], topic.Subject(k))
			}
		}
		c.mu.Unlock()
	}
}

// Tardy has one request in four wait for its turn.
func (c *Cluster) Tardy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tardy = true
}

// Slow has the events of each answer come after the snapshot that it lets in.
func (c *Cluster) Slow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = true
}

// Delay has each request wait for its turn.
func (c *Cluster) Delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

// Lose has the next so many Subscribes get lost.
func (c *Cluster) Lose(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose = n
}

// Bound has each link refuse the subjects beyond so many, and nothing else.
func (c *Cluster) Bound(subjects int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = subjects
}

// Deny has every link refuse some subjects, as if it had no room, until it is called with others or none.
func (c *Cluster) Deny(subjects ...topic.Subject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = map[topic.Subject]bool{}
	for _, k := range subjects {
		c.denied[k] = true
	}
}

// fit takes the subjects out of a Subscribe for which the link has no room.
func (c *Cluster) fit(l *edgeLink, r *linkv1.Subscribe) (left, refused [][]byte) {
	has := 0
	for _, subs := range l.subs {
		has += len(subs)
	}
	for _, k := range r.GetSubjects() {
		switch {
		case c.denied[topic.Subject(k)]:
			refused = append(refused, k)
		case l.subs[topic.Slot(r.GetSlot())][topic.Subject(k)]:
			left = append(left, k)
		case c.bound == 0 || has < c.bound:
			left, has = append(left, k), has+1
		default:
			refused = append(refused, k)
		}
	}
	return left, refused
}

// opened returns the slot that a Subscribe is about as the instance had it opened when that came, and how long the
// request waits.
func (c *Cluster) opened(in *instance, m *linkv1.ToDelivery) (o *ownedSlot, late time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	late = c.delay
	if c.tardy {
		c.world.Mu.Lock()
		if c.world.Rnd.IntN(4) == 0 {
			late += 10 * time.Millisecond
		}
		c.world.Mu.Unlock()
	}
	return in.slots[topic.Slot(m.GetSubscribe().GetSlot())], late
}

// subscribe answers a Subscribe that came when the slot was opened as given. As with a real instance, the answer to one
// from before the slot was closed comes when Owned may list the slot again.
func (c *Cluster) subscribe(in *instance, l *edgeLink, opened *ownedSlot, r *linkv1.Subscribe) {
	s := topic.Slot(r.GetSlot())
	o := in.slots[s]
	answer := linkv1.Subscribed_builder{Id: r.GetId(), Slot: r.GetSlot()}
	if o == nil || o != opened {
		answer.NotOwner = true
		l.send(linkv1.ToEdge_builder{Subscribed: answer.Build()}.Build())
		return
	}
	from := o.start
	if r.HasFrom() {
		from = from.Highest(link.DecodeCursor(r.GetFrom()))
	}
	subjects, refused := c.fit(l, r)
	if answer.Refused = refused; len(refused) > 0 {
		answer.Reason = linkv1.Refusal_REFUSAL_FULL
	}
	answer.LiveFrom = link.EncodeCursor(from)
	l.send(linkv1.ToEdge_builder{Subscribed: answer.Build()}.Build())
	c.world.Mu.Lock()
	slow := c.world.Rnd.IntN(6) == 0 || c.slow
	c.world.Mu.Unlock()
	if slow && !l.held { // the rest of the answer may never come
		l.held = true
		c.wg.Go(func() {
			time.Sleep(25 * time.Millisecond)
			c.mu.Lock()
			defer c.mu.Unlock()
			l.held = false
			for _, m := range l.late {
				l.send(m)
			}
			l.late = nil
		})
	}
	if l.subs[s] == nil {
		l.subs[s] = map[topic.Subject]bool{}
	}
	only := map[topic.Subject]bool{}
	for _, k := range subjects {
		only[topic.Subject(k)] = true
		l.subs[s][topic.Subject(k)] = true
	}
	for i := range from {
		c.records(l, s, i, from[i], o.next[i], only, r.GetId())
	}
	c.progress(l, s, o)
}

func (c *Cluster) records(
	l *edgeLink, s topic.Slot, i int, from, to topic.Position, only map[topic.Subject]bool, sub uint64,
) {
	c.world.Mu.Lock()
	var out []*linkv1.Record
	for at := from; at < to; at++ {
		r := c.world.Log[s][i][at]
		if only[topic.Subject(r.GetKey()[:16])] {
			out = append(out, r)
		}
	}
	c.world.Mu.Unlock()
	if len(out) > 0 {
		l.send(linkv1.ToEdge_builder{Events: linkv1.Events_builder{
			Topic: topic.Folded[i].Number(), Slot: int32(s), Records: out, Subscription: sub,
		}.Build()}.Build())
	}
}

// Run reads the log for all instances until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	tick := time.NewTicker(700 * time.Millisecond)
	defer tick.Stop()
	for {
		c.world.Mu.Lock()
		grown := c.world.Grown
		c.world.Mu.Unlock()
		c.Step(1 << 20)
		select {
		case <-grown:
		case <-tick.C:
			c.mu.Lock()
			for _, in := range c.instances {
				for s, o := range in.slots {
					for l := range in.links {
						c.progress(l, s, o)
					}
				}
			}
			c.mu.Unlock()
		case <-ctx.Done():
			c.mu.Lock()
			for _, in := range c.instances {
				for l := range in.links {
					l.end.Close()
				}
			}
			c.mu.Unlock()
			c.wg.Wait()
			return
		}
	}
}

// Step lets every instance read up to n more events of each topic.
func (c *Cluster) Step(n topic.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.instances {
		for s, o := range in.slots {
			c.world.Mu.Lock()
			end := c.world.End(s)
			c.world.Mu.Unlock()
			moved := false
			for i := range end {
				to := min(end[i], o.next[i]+n)
				if to <= o.next[i] {
					continue
				}
				moved = true
				for l := range in.links {
					c.records(l, s, i, o.next[i], to, l.subs[s], 0)
				}
				o.next[i] = to
			}
			if moved {
				for l := range in.links {
					c.progress(l, s, o)
				}
			}
		}
	}
}

// Give makes an instance the owner of a slot, with a ring that begins back events before the end of the log.
func (c *Cluster) Give(s topic.Slot, to string, back int) { c.give(s, to, back, true) }

// GiveInSilence is Give, of which the new owner tells nobody.
func (c *Cluster) GiveInSilence(s topic.Slot, to string, back int) { c.give(s, to, back, false) }

func (c *Cluster) give(s topic.Slot, to string, back int, say bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.instances {
		if in.slots[s] != nil {
			delete(in.slots, s)
			for l := range in.links {
				c.owned(in, l)
			}
		}
	}
	if to == "" {
		return
	}
	c.world.Mu.Lock()
	end := c.world.End(s)
	c.world.Mu.Unlock()
	start := topic.Cursor{}
	for i := range start {
		start[i] = max(0, end[i]-topic.Position(back))
	}
	in := c.instances[to]
	in.slots[s] = &ownedSlot{start: start, next: start}
	for l := range in.links {
		if say {
			c.owned(in, l)
		}
	}
}

// Trim lets the rings forget all but the last keep events.
func (c *Cluster) Trim(keep int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.instances {
		for _, o := range in.slots {
			for i := range o.start {
				o.start[i] = max(o.start[i], o.next[i]-topic.Position(keep))
			}
		}
	}
}

// BreakLinks closes every link of an instance.
func (c *Cluster) BreakLinks(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.instances[name].links {
		l.end.Close()
		delete(c.instances[name].links, l)
	}
}

// Owned tells whether an instance owns the slot.
func (c *Cluster) Owned(s topic.Slot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.instances {
		if in.slots[s] != nil {
			return true
		}
	}
	return false
}

// Subscriptions is how many subjects all links together are subscribed to.
func (c *Cluster) Subscriptions() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.instances {
		for l := range in.links {
			for _, of := range l.subs {
				n += len(of)
			}
		}
	}
	return n
}
