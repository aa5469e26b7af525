package client

import (
	"context"
	"sync"
	"testing"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// When Flush has returned, the edge has read every watermark, however long they would have waited for company.
func TestFlush(t *testing.T) {
	var mu sync.Mutex
	read := map[id.ThreadID]int64{}
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Watermarks_case:
			mu.Lock()
			defer mu.Unlock()
			for _, w := range f.GetWatermarks().GetItems() {
				read[id.ThreadID(w.GetThreadId())] = w.GetReadPosition()
			}
			return true
		case wirev1.ClientFrame_GetUsers_case:
			p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Users: &wirev1.Users{}}.Build())
			return true
		}
		return false
	})
	cfg.Store, cfg.AckInterval = registered(t), time.Hour
	c, _ := start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, c.WaitSynced(ctx))
	want := map[id.ThreadID]int64{}
	for n := range 1200 { // more than one frame holds
		th := id.NewGroup()
		want[th] = int64(n + 1)
		c.MarkRead(Place{Thread: th, Position: topic.Position(n + 1), Ordinal: 1})
	}
	must(t, c.Flush(ctx))
	mu.Lock()
	defer mu.Unlock()
	for th, at := range want {
		if read[th] != at {
			t.Fatalf("of %d watermarks the edge has %d; one is at %d, want %d", len(want), len(read), read[th], at)
		}
	}
}
