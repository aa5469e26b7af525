package delivery

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// BenchmarkPush compares, on the same log: a bare kgo consumer, and events through an instance and a Pipe to an edge
// with 200 subjects.
func BenchmarkPush(b *testing.B) {
	w := newWorld(b)
	subjects := make([]topic.Subject, 200)
	for i := range subjects {
		subjects[i] = subject(i)
	}
	const n = 200_000
	value := make([]byte, 200)
	for i := range n {
		s := subjects[i%len(subjects)]
		r := w.cfg.NewRecord(topic.Threads, topic.SlotOf(s, partitions), s[:], value)
		w.cl.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
		if i%10_000 == 0 {
			if err := w.cl.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := w.cl.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Run("kgo", func(b *testing.B) {
		for b.Loop() {
			cl, err := kafka.Dial(
				w.cfg, kgo.ConsumeTopics(w.cfg.Name(topic.Threads)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			)
			if err != nil {
				b.Fatal(err)
			}
			for got := 0; got < n; {
				got += cl.PollFetches(b.Context()).NumRecords()
			}
			cl.Close()
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
	})
	run := 0
	b.Run("pipe", func(b *testing.B) {
		for b.Loop() {
			run++
			push(b, w, fmt.Sprint("bench", run), subjects, n)
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
	})
}

// push starts an instance whose group has committed nothing: it begins at the tail less its window, which here is the
// whole log.
func push(b *testing.B, w *world, group string, subjects []topic.Subject, n int) {
	b.StopTimer()
	s := w.service(Config{Group: group, maxGapRecords: n})
	edge, end := link.Pipe(0)
	ctx, cancel := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.ServeLink(ctx, end) }()
	hello(b, edge)
	b.StartTimer()
	go func() { ran <- s.Run(ctx) }()
	bySlot := make(map[topic.Slot][]topic.Subject)
	for _, x := range subjects {
		slot := topic.SlotOf(x, partitions)
		bySlot[slot] = append(bySlot[slot], x)
	}
	asked := make(map[topic.Slot]bool)
	for got := 0; got < n; {
		m, err := edge.Recv(ctx)
		if err != nil {
			b.Fatal(err)
		}
		switch m.WhichBody() {
		case linkv1.ToEdge_Owned_case:
			for _, number := range m.GetOwned().GetSlots() {
				if slot := topic.Slot(number); !asked[slot] {
					asked[slot] = true
					all := subscribeFrame(uint64(slot)+1, slot, &topic.Cursor{}, bySlot[slot]...)
					if err := edge.Send(ctx, all); err != nil {
						b.Fatal(err)
					}
				}
			}
		case linkv1.ToEdge_Events_case:
			got += len(m.GetEvents().GetRecords())
		}
	}
	b.StopTimer()
	edge.Close()
	cancel()
	<-served //nolint:errcheck // the link was closed on purpose
	if err := <-ran; err != nil {
		b.Error(err)
	}
	b.StartTimer()
}

// BenchmarkLatency is the time from Produce of one event until an edge in the same process has it.
func BenchmarkLatency(b *testing.B) {
	w := newWorld(b)
	s := w.service(Config{})
	w.start(s)
	w.owns(s, partitions)
	edge := w.open(s)
	x := inSlot(2, 0)
	if err := edge.Send(b.Context(), subscribeFrame(1, 2, nil, x)); err != nil {
		b.Fatal(err)
	}
	for {
		m, err := edge.Recv(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if m.GetSubscribed().GetId() == 1 {
			break
		}
	}
	for b.Loop() {
		w.produce(topic.Threads, x, "event")
		for {
			m, err := edge.Recv(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if len(m.GetEvents().GetRecords()) > 0 {
				break
			}
		}
	}
}
