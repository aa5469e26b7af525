package client

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// refusing is an edge whose answers to messages the test gives.
type refusing struct {
	t    *testing.T
	sent chan request
}

type request struct {
	p    *peer
	req  uint64
	text string
}

func (r refusing) next(want string) request {
	r.t.Helper()
	select {
	case s := <-r.sent:
		if s.text != want {
			r.t.Fatalf("the client sent %q, want %q", s.text, want)
		}
		return s
	case <-time.After(20 * time.Second):
		r.t.Fatalf("the client did not send %q", want)
		return request{}
	}
}

func (s request) refuse(c wirev1.Code) {
	s.p.write(wirev1.ServerFrame_builder{
		RequestId: s.req,
		Error:     wirev1.Error_builder{Code: c, RetryAfterMs: 1}.Build(),
	}.Build())
}

func (s request) ack() {
	s.p.write(wirev1.ServerFrame_builder{RequestId: s.req, Ack: &wirev1.Ack{}}.Build())
}

func refusingEdge(t *testing.T, mend ...func(*Config)) (refusing, *Client, func(th id.ThreadID, text string)) {
	t.Helper()
	r := refusing{t, make(chan request, 100)}
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_SendMessage_case {
			return false
		}
		r.sent <- request{p, f.GetRequestId(), string(f.GetSendMessage().GetContent().GetData())}
		return true
	})
	cfg.Store = registered(t)
	for _, m := range mend {
		m(&cfg)
	}
	c, _ := start(t, cfg)
	must(t, c.WaitSynced(within(t)))
	return r, c, func(th id.ThreadID, text string) {
		must(t, c.SendRaw(Outgoing{Thread: th, ID: id.NewMessage(), Data: []byte(text)}))
	}
}

// TestRefusedSendsKeepTheirOrder: what is behind a refused message is sent again after it, and not before all that was
// on its way is answered.
func TestRefusedSendsKeepTheirOrder(t *testing.T) {
	r, c, send := refusingEdge(t)
	th, other := id.NewGroup(), id.NewGroup()
	for _, s := range []string{"0", "1", "2", "3"} {
		send(th, s)
	}
	first, second, third, fourth := r.next("0"), r.next("1"), r.next("2"), r.next("3")
	second.refuse(wirev1.Code_CODE_UNAVAILABLE)
	eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.stopped) == 1 })
	send(other, "another thread")
	send(th, "4")
	// the pause is over, and nothing of the first thread was sent, which would have come before
	r.next("another thread").ack()
	first.refuse(wirev1.Code_CODE_UNAVAILABLE)
	third.ack() // an edge that does not hold it back
	fourth.refuse(wirev1.Code_CODE_UNAVAILABLE)
	for _, s := range []string{"0", "1", "3", "4"} {
		r.next(s).ack()
	}
	eventually(t, func() bool { return c.Outbox() == 0 })
}

// TestRefusedSendThatComesBackIsSentAgain: the log has it after all, but the edge takes nothing of its thread before it
// has come again.
func TestRefusedSendThatComesBackIsSentAgain(t *testing.T) {
	r, c, send := refusingEdge(t)
	me, _ := c.Identity()
	th, m := id.NewGroup(), id.NewMessage()
	must(t, c.SendRaw(Outgoing{Thread: th, ID: m, Data: []byte("0")}))
	send(th, "1")
	first, second := r.next("0"), r.next("1")
	first.refuse(wirev1.Code_CODE_UNAVAILABLE)
	eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.stopped) == 1 })
	first.p.write(eventFrame(t, th, 5, me, m, "0"))
	second.refuse(wirev1.Code_CODE_UNAVAILABLE)
	r.next("0").ack()
	r.next("1").ack()
}

// TestParkedThreadStopsAlone: other threads' messages go out although one's thread is parked, and its own do as soon as
// the edge says that it goes on.
func TestParkedThreadStopsAlone(t *testing.T) {
	r, c, send := refusingEdge(t)
	parked, other := id.NewGroup(), id.NewGroup()
	send(parked, "0")
	s := r.next("0")
	s.p.write(wirev1.ServerFrame_builder{RequestId: s.req, Error: wirev1.Error_builder{
		Code: wirev1.Code_CODE_THREAD_PARKED, RetryAfterMs: uint32(time.Hour.Milliseconds()),
	}.Build()}.Build())
	eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.stopped) == 1 })
	for e := range c.Events(within(t)) {
		if d, ok := e.(Delayed); ok {
			if d.Thread != parked || !errors.Is(d.Err, &wire.Error{Code: wirev1.Code_CODE_THREAD_PARKED}) {
				t.Errorf("got %+v", d)
			}
			break
		}
	}
	send(parked, "1")
	send(other, "2")
	r.next("2").ack()
	// The edge says that it goes on: nothing waits for the hour to pass.
	s.p.write(wirev1.ServerFrame_builder{ThreadLate: wirev1.ThreadLate_builder{ThreadId: parked[:]}.Build()}.Build())
	r.next("0").ack()
	r.next("1").ack()
	if !wire.Lookup(wirev1.Code_CODE_THREAD_PARKED).Retriable {
		t.Error("messages to a parked thread are given up")
	}
}

// TestAbandonedMessageLetsTheOthersPass: what is given up is not sent again, whether it waits or is on its way, and the
// edge is told of it, so that what is behind it goes on.
func TestAbandonedMessageLetsTheOthersPass(t *testing.T) {
	r, c, send := refusingEdge(t)
	th := id.NewGroup()
	var ids []id.MessageID
	for _, s := range []string{"0", "1", "2"} {
		m := id.NewMessage()
		must(t, c.SendRaw(Outgoing{Thread: th, ID: m, Data: []byte(s)}))
		ids = append(ids, m)
	}
	first, second, third := r.next("0"), r.next("1"), r.next("2")
	give := func(m id.MessageID, want bool) {
		t.Helper()
		if ok, err := c.Abandon(m); ok != want || err != nil {
			t.Errorf("giving up: %v, %v, want %v", ok, err, want)
		}
	}
	give(ids[0], true) // on its way
	first.refuse(wirev1.Code_CODE_UNAVAILABLE)
	second.refuse(wirev1.Code_CODE_OUT_OF_TURN)
	eventually(t, func() bool { return c.Outbox() == 2 })
	give(ids[1], true) // it waits, since the third is unanswered
	third.refuse(wirev1.Code_CODE_OUT_OF_TURN)
	give(id.NewMessage(), false)
	r.next("2").ack()
	eventually(t, func() bool { return c.Outbox() == 0 })
	var failed []id.MessageID
	for e := range c.Events(within(t)) {
		if f, ok := e.(Failed); ok && errors.Is(f.Err, ErrAbandoned) {
			if failed = append(failed, f.ID); len(failed) == 2 {
				break
			}
		}
	}
	if d := cmp.Diff(failed, ids[:2]); d != "" {
		t.Errorf("failed (-got +want):\n%s", d)
	}
	send(th, "3")
	r.next("3").ack()
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came to it")
		}
	}
}
