package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

// seen is an event of a thread as a device or the log has it.
type seen struct {
	At      topic.Position
	Ordinal int64
	Kind    int // field number of the body; 10 is a message
	Sender  id.UserID
	Message id.MessageID     // zero for other events
	Reply   event.MessageRef // the message that it answers; zero: none
	Text    string
	TimeMS  int64
}

// device is a phone: it comes and goes, its store stays, and all that it ever got is written down.
type device struct {
	t     *testing.T
	name  string
	store client.Store
	cfg   client.Config
	me    client.Identity

	heard func(client.Event) // is told of each event as it is taken; nil: nobody

	u     *cluster.User // nil while it is away
	ended chan struct{} // the reader of events has ended

	mu       sync.Mutex // guards what follows
	got      map[id.ThreadID][]seen
	sent     map[id.MessageID]client.Ack
	failed   map[id.MessageID]error
	delayed  map[id.MessageID]error
	rejected map[id.MessageID]client.Rejected
	marks    map[id.ThreadID]map[id.UserID]thread.Watermark
	places   map[id.MessageID]client.Place
	listed   map[id.ThreadID]bool
	invited  map[id.ThreadID]client.Invitation // the last that was told of each
	synced   int
	events   int
	faults   []string
	hold     chan struct{} // the reader waits while it is open; nil: it reads
}

// newDevice returns one that is away. edges are those it knows; none: all.
func (e *env) newDevice(t *testing.T, name string, edges ...int) *device {
	t.Helper()
	d := &device{
		t: t, name: name, store: client.NewMemoryStore(), cfg: e.Client(edges...),
		got: map[id.ThreadID][]seen{}, sent: map[id.MessageID]client.Ack{}, failed: map[id.MessageID]error{},
		delayed: map[id.MessageID]error{}, rejected: map[id.MessageID]client.Rejected{},
		marks: map[id.ThreadID]map[id.UserID]thread.Watermark{}, places: map[id.MessageID]client.Place{},
		listed: map[id.ThreadID]bool{}, invited: map[id.ThreadID]client.Invitation{},
	}
	d.cfg.Store, d.cfg.Name = d.store, name
	d.cfg.MaxBackoff, d.cfg.AckInterval = 500*time.Millisecond, 10*time.Millisecond
	t.Cleanup(d.leave)
	return d
}

// user registers a new user and brings the device in.
func (e *env) user(t *testing.T, name string, edges ...int) *device {
	t.Helper()
	return e.userAt(t, e.phone(), name, edges...)
}

func (e *env) userAt(t *testing.T, phone, name string, edges ...int) *device {
	t.Helper()
	d := e.newDevice(t, name, edges...)
	me, err := e.Register(e.context(t), e.registering(d), phone, name)
	must(t, err)
	d.me = me
	d.come()
	d.waitSynced()
	return d
}

// registering is the configuration by which a device registers: with its store.
func (e *env) registering(d *device) client.Config {
	cfg := d.cfg
	return cfg
}

// linked brings a further device of a user in.
func (e *env) linked(t *testing.T, by *device, name string, edges ...int) *device {
	t.Helper()
	d := e.newDevice(t, name, edges...)
	me, key, err := client.NewDevice(by.me.User)
	must(t, err)
	must(t, by.u.LinkDevice(e.context(t), me.Device, key, name))
	must(t, d.store.SetIdentity(me))
	d.me = me
	d.come()
	return d
}

// on has the device know other edges when it comes next.
func (d *device) on(e *env, edges ...int) *device {
	d.cfg.Addrs = e.Client(edges...).Addrs
	return d
}

// come connects.
func (d *device) come() {
	d.t.Helper()
	u, err := cluster.Connect(d.cfg)
	must(d.t, err)
	ended := make(chan struct{})
	d.u, d.ended = u, ended
	go func() {
		defer close(ended)
		for ev := range u.Events(context.Background()) {
			d.take(ev)
		}
	}()
}

// leave disconnects; what the client had in hand is taken first.
func (d *device) leave() {
	if d.u == nil {
		return
	}
	d.read()
	if err := d.u.Close(); err != nil {
		d.t.Errorf("%s: close: %v", d.name, err)
	}
	<-d.ended
	d.u = nil
}

// stall has the device take nothing until read.
func (d *device) stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hold == nil {
		d.hold = make(chan struct{})
	}
}

func (d *device) read() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hold != nil {
		close(d.hold)
		d.hold = nil
	}
}

func (d *device) take(ev client.Event) {
	d.mu.Lock()
	for d.hold != nil {
		hold := d.hold
		d.mu.Unlock()
		<-hold
		d.mu.Lock()
	}
	defer d.mu.Unlock()
	d.events++
	if d.heard != nil {
		d.heard(ev)
	}
	switch ev := ev.(type) {
	case client.Message:
		d.add(ev.Place, seen{Kind: 10, Sender: ev.Sender, Message: ev.ID, Reply: ev.Reply, Text: ev.Text})
		d.places[ev.ID] = ev.Place
	case client.ThreadEvent:
		u, err := id.From[id.UserID](ev.Event.GetUserId())
		if err != nil {
			d.fault("event at %d without a user", ev.Position)
		}
		d.add(ev.Place, seen{Kind: int(ev.Event.WhichBody()), Sender: u, Text: titleOf(ev.Event)})
	case client.Receipt:
		if d.marks[ev.Thread] == nil {
			d.marks[ev.Thread] = map[id.UserID]thread.Watermark{}
		}
		d.marks[ev.Thread][ev.User] = d.marks[ev.Thread][ev.User].Merge(ev.Watermark)
	case client.ThreadChanged:
		if t, err := id.From[id.ThreadID](ev.Summary.GetThreadId()); err == nil {
			d.listed[t] = true
		}
	case client.Invitation:
		d.invited[ev.Thread] = ev
	case client.Sent:
		if was, ok := d.sent[ev.ID]; ok && was.Position != ev.Ack.Position {
			d.fault("message %s was acknowledged at %d and at %d", ev.ID, was.Position, ev.Ack.Position)
		}
		d.sent[ev.ID] = ev.Ack
	case client.Failed:
		d.failed[ev.ID] = ev.Err
	case client.Delayed:
		d.delayed[ev.ID] = ev.Err
	case client.Rejected:
		d.rejected[ev.ID] = ev
	case client.Synced:
		d.synced++
	}
}

// invitation is the last that the device was told of one into a thread.
func (d *device) invitation(t id.ThreadID) client.Invitation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.invited[t]
}

func titleOf(e *eventv1.Event) string {
	switch e.WhichBody() {
	case eventv1.Event_ThreadCreated_case:
		return e.GetThreadCreated().GetTitle()
	case eventv1.Event_ThreadRenamed_case:
		return e.GetThreadRenamed().GetTitle()
	}
	return ""
}

// add writes an event down and notes a break of P2 at once. mu is held.
func (d *device) add(p client.Place, s seen) {
	s.At, s.Ordinal, s.TimeMS = p.Position, p.Ordinal, p.Time.UnixMilli()
	list := d.got[p.Thread]
	if n := len(list); n > 0 && list[n-1].At >= s.At {
		d.fault("thread %s: position %d came after %d", p.Thread, s.At, list[n-1].At)
	}
	d.got[p.Thread] = append(list, s)
}

func (d *device) fault(format string, args ...any) {
	d.faults = append(d.faults, d.name+": "+fmt.Sprintf(format, args...))
}

// say sends a text.
func (d *device) say(to client.To, text string) id.MessageID {
	d.t.Helper()
	m, err := d.u.Send(to, text)
	must(d.t, err)
	return m
}

// to names the direct thread with another device's user.
func (d *device) to(other *device) client.To {
	d.t.Helper()
	to, err := d.u.Direct(other.me.User)
	must(d.t, err)
	return to
}

func (d *device) waitSynced() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.u.WaitSynced(ctx); err != nil {
		d.t.Fatalf("%s does not come in: %v", d.name, err)
	}
}

// acked waits until the log has the messages and returns the last one's place.
func (d *device) acked(ms ...id.MessageID) client.Ack {
	d.t.Helper()
	var last client.Ack
	for _, m := range ms {
		until(d.t, d.name+" gets its ack", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			var ok bool
			last, ok = d.sent[m]
			return ok
		}, func() string { return d.state(m) })
	}
	return last
}

func (d *device) state(m id.MessageID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("message %s: failed %v, rejected %v, outbox %d, online %v",
		m, d.failed[m], d.rejected[m], d.u.Outbox(), d.u.Online())
}

// has waits until the device has the messages.
func (d *device) has(ms ...id.MessageID) {
	d.t.Helper()
	for _, m := range ms {
		until(d.t, fmt.Sprintf("%s gets message %s", d.name, m), func() bool {
			_, ok := d.place(m)
			return ok
		})
	}
}

func (d *device) place(m id.MessageID) (client.Place, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.places[m]
	return p, ok
}

// count is how many events of a thread the device has.
func (d *device) count(t id.ThreadID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.got[t])
}

// texts are those of the thread's messages, in the order in which they came.
func (d *device) texts(t id.ThreadID) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, s := range d.got[t] {
		if s.Kind == 10 {
			out = append(out, s.Text)
		}
	}
	return out
}

func (d *device) copyOf(t id.ThreadID) []seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.got[t])
}

func (d *device) mark(t id.ThreadID, u id.UserID) thread.Watermark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.marks[t][u]
}

// outcome tells what became of a message: acked, failed, rejected, or nothing yet.
func (d *device) outcome(m id.MessageID) (acked bool, failed error, rejected bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, acked = d.sent[m]
	_, rejected = d.rejected[m]
	return acked, d.failed[m], rejected
}
