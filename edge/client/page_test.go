package client

import (
	"context"
	"sync"
	"testing"
	"time"

	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// A page that comes after its call was given up disturbs no later one, and pages beyond the number of streams that may
// be open at once come as well, also when a stream's end follows in a packet of its own.
func TestPagesAfterOneThatWasGivenUp(t *testing.T) {
	var mu sync.Mutex
	var late func() // sends the page that was asked for first
	page := func(p *peer, f *wirev1.ClientFrame) {
		s, err := p.quic.OpenUniStreamSync(p.quic.Context())
		if err != nil {
			return // the client may be gone
		}
		b, err := frame.Append(nil, wirev1.ServerFrame_builder{
			RequestId:   f.GetRequestId(),
			HistoryPage: wirev1.HistoryPage_builder{NextBefore: f.GetGetHistory().GetBeforePosition()}.Build(),
		}.Build())
		if err != nil {
			p.t.Error(err)
		}
		_, _ = s.Write(b[:1]) // a packet for each, unless the writer is faster than the sender
		_, _ = s.Write(b[1:])
		_ = s.Close()
	}
	asked := make(chan struct{})
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_GetHistory_case {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if late == nil {
			late = func() { page(p, f) }
			close(asked)
			return true
		}
		go page(p, f)
		return true
	})
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, c.WaitSynced(ctx))
	th := id.NewGroup()
	short, give := context.WithCancel(ctx)
	go func() { <-asked; give() }()
	if _, _, err := c.History(short, th, 1, 10); err == nil {
		t.Error("a page that was not sent")
	}
	late()
	for n := range 30 {
		before := topic.Position(n + 2)
		if _, next, err := c.History(ctx, th, before, 10); err != nil || next != before {
			t.Fatalf("page %d: before %d, %v", n, next, err)
		}
	}
}
