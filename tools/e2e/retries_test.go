package e2e

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

func outgoing(t *testing.T, to client.To, text string) client.Outgoing {
	t.Helper()
	data, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	must(t, err)
	return client.Outgoing{Thread: to.Thread, ID: id.NewMessage(), Data: data, DirectPeer: to.Peer, ClientTimeMS: 1}
}

// once checks that a message is in the thread once, for the log and for the devices.
func (e *env) once(t *testing.T, m id.MessageID, th id.ThreadID, ds ...*device) (tr *truth, at topic.Position) {
	t.Helper()
	tr = e.agree(t, ds...)
	n := 0
	for _, s := range tr.threads[th].accepted {
		if s.Message == m {
			n++
			at = s.At
		}
	}
	if n != 1 {
		t.Errorf("message %s was accepted %d times", m, n)
	}
	return tr, at
}

// testRetries: one message id, sent again in every way there is, is one message.
func testRetries(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	to := ann.to(bob)
	o := outgoing(t, to, "once")
	must(t, ann.u.SendRaw(o))
	first := ann.acked(o.ID)
	bob.has(o.ID)

	// Over another edge.
	ann.leave()
	ann.on(e, 1).come()
	ann.waitSynced()
	again := func(what string) {
		t.Helper()
		ann.mu.Lock()
		delete(ann.sent, o.ID)
		ann.mu.Unlock()
		must(t, ann.u.SendRaw(o))
		if got := ann.acked(o.ID); got.Position != first.Position {
			t.Errorf("%s: acknowledged at %d, first at %d", what, got.Position, first.Position)
		}
	}
	again("over another edge")

	// After a rebalance: the slot's owner goes, another instance takes over, and comes back.
	d := e.Role(cluster.Delivery, 0)
	must(t, d.Stop(ctx))
	again("while the slots move")
	must(t, d.Start(ctx))
	again("after the slots have moved")
	bob.has(bob.say(bob.to(ann), "still here"))

	// After the edge has forgotten everything.
	edge := e.Edge(1)
	must(t, edge.Kill())
	must(t, edge.Start(ctx))
	ann.waitSynced()
	again("after the edge was killed")

	// The log itself holds it twice, as when an edge died between the log's answer and its own.
	tr := e.readLog(t)
	copyRecord(t, e, tr, to.Thread, first.Position)
	last := ann.say(to, "last")
	bob.has(last)
	ann.has(last)
	tr, at := e.once(t, o.ID, to.Thread, ann, bob)
	if at != first.Position {
		t.Errorf("accepted at %d, acknowledged at %d", at, first.Position)
	}
	c := tr.threads[to.Thread]
	if vs := c.refused[o.ID]; len(vs) == 0 || vs[0].Outcome != thread.Duplicate {
		t.Errorf("the copy in the log was judged %+v, want a duplicate", vs)
	}
	e.viewsAgree(t)
}

// copyRecord appends a copy of a record to the log.
func copyRecord(t *testing.T, e *env, tr *truth, th id.ThreadID, at topic.Position) {
	t.Helper()
	slot := int32(topic.SlotOf(topic.Subject(th), e.Partitions()))
	for _, r := range tr.records[topic.Threads][slot] {
		if r.Offset == int64(at) {
			e.append(t, &kgo.Record{Topic: r.Topic, Partition: slot, Key: r.Key, Value: r.Value})
			return
		}
	}
	t.Fatalf("there is no record at %d of slot %d", at, slot)
}

// append produces a record as it is.
func (e *env) append(t *testing.T, rs ...*kgo.Record) {
	t.Helper()
	cl := e.plain(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	must(t, cl.ProduceSync(e.context(t), rs...).FirstErr())
}

// testBlackhole: the way back is cut while the way there is open. The log has the message, the device does not know;
// and what was pushed meanwhile does not count as delivered.
func testBlackhole(t *testing.T, e *env) {
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 0)
	to := ann.to(bob)
	ann.acked(ann.say(to, "before"))
	hole := newHole(t, e.Edge(0).Addr)
	ann.leave()
	ann.cfg.Addrs = []string{hole.addr()}
	ann.come()
	ann.waitSynced()

	hole.cut.Store(true)
	lost := ann.say(to, "whose ack is lost")
	bob.has(lost)
	unseen := bob.say(bob.to(ann), "into the hole")
	ack := bob.acked(unseen)
	if acked, _, _ := ann.outcome(lost); acked {
		t.Fatal("the ack came through the hole")
	}
	if ann.u.Outbox() != 1 {
		t.Errorf("%d messages in the outbox, want 1", ann.u.Outbox())
	}
	e.caughtUp(t)
	if w := bob.mark(to.Thread, ann.me.User); w.DeliveredPosition >= ack.Position {
		t.Errorf("delivered up to %d is shown, though %d was swallowed", w.DeliveredPosition, ack.Position)
	}

	// The half-dead connection is left for another edge: what was missed comes first, and the message is not sent
	// twice.
	ann.leave()
	ann.on(e, 1).come()
	ann.has(lost, unseen)
	ann.acked(lost)
	e.once(t, lost, to.Thread, ann, bob)
	until(
		t, "bob sees that ann has it now",
		func() bool { return bob.mark(to.Thread, ann.me.User).DeliveredPosition >= ack.Position },
	)
	e.viewsAgree(t)
}

// hole passes datagrams between devices and an edge; while cut, nothing comes back.
type hole struct {
	front net.PacketConn
	cut   atomic.Bool

	mu    sync.Mutex // guards backs
	backs map[string]net.Conn
}

func newHole(t *testing.T, edge string) *hole {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	h := &hole{front: front, backs: map[string]net.Conn{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			h.mu.Lock()
			back := h.backs[from.String()]
			if back == nil {
				if back, err = net.Dial("udp", edge); err != nil {
					h.mu.Unlock()
					return
				}
				h.backs[from.String()] = back
				wg.Go(func() { h.pump(back, from) })
			}
			h.mu.Unlock()
			_, _ = back.Write(buf[:n]) // a datagram may be lost
		}
	})
	t.Cleanup(func() {
		_ = front.Close() // ends the goroutine above
		h.mu.Lock()
		for _, b := range h.backs {
			_ = b.Close()
		}
		h.mu.Unlock()
		wg.Wait()
	})
	return h
}

func (h *hole) addr() string { return h.front.LocalAddr().String() }

func (h *hole) pump(back net.Conn, to net.Addr) {
	buf := make([]byte, 2048)
	for {
		n, err := back.Read(buf)
		if err != nil {
			return // closed
		}
		if !h.cut.Load() {
			_, _ = h.front.WriteTo(buf[:n], to) // a datagram may be lost
		}
	}
}

// numbered makes n texts.
func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %d", prefix, i+1)
	}
	return out
}
