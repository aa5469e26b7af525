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

// What a timer sends while Flush waits for its answer comes behind the question: Flush asks once more.
func TestFlushWaitsForWhatATimerSends(t *testing.T) {
	const marks = 1200 // more than one frame holds, so a timer sends the rest
	asked, answer, goOn := make(chan int), make(chan struct{}), make(chan struct{})
	questions, read := 0, 0
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Watermarks_case:
			if questions > 0 {
				<-goOn
			}
			read += len(f.GetWatermarks().GetItems())
			return true
		case wirev1.ClientFrame_GetUsers_case:
			if questions++; questions == 1 {
				asked <- read
				<-answer
			}
			p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Users: &wirev1.Users{}}.Build())
			return true
		}
		return false
	})
	cfg.Store, cfg.AckInterval = registered(t), time.Hour
	c, _ := start(t, cfg)
	ctx := within(t)
	must(t, c.WaitSynced(ctx))
	c.mu.Lock()
	c.flushed = time.Now() // so that none is sent before Flush
	c.mu.Unlock()
	for n := range marks {
		c.MarkRead(Place{Thread: id.NewGroup(), Position: topic.Position(n + 1), Ordinal: 1})
	}
	done := make(chan error, 1)
	go func() { done <- c.Flush(ctx) }()
	early := <-asked // all of them if the timer was faster than Flush, which then need not ask again
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.dirty) == 0
	})
	cn := connOf(c)
	requests := func() uint64 {
		cn.pmu.Lock()
		defer cn.pmu.Unlock()
		return cn.next
	}
	before := requests()
	close(answer)
	eventually(t, func() bool { return requests() > before || len(done) > 0 })
	if len(done) > 0 && early < marks {
		t.Error("Flush returned before the edge had read all")
	}
	close(goOn)
	must(t, <-done)
}
