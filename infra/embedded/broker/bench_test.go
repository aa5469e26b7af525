package broker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkAcks compares what acknowledgements cost that do not wait for the disk, wait for it together, and wait for
// it one by one: at a rate that all can keep (1,000 a second), and with 256 senders that each wait for the last one.
// The three take turns, in six rounds of a second, on one disk. It is meant for -benchtime 1x.
//
//	go test -run '^$' -bench Acks -benchtime 1x ./infra/embedded/broker
func BenchmarkAcks(b *testing.B) {
	ctx := context.Background()
	const parts, rounds = 16, 6
	modes := []struct {
		name string
		cfg  Config
	}{{"nosync", Config{NoSync: true}}, {"group", Config{}}, {"perbatch", Config{perBatch: true}}}
	clients := make([]*kgo.Client, len(modes))
	for i := range modes {
		modes[i].cfg.DataDir = b.TempDir()
		addr, stop := running(b, modes[i].cfg)
		defer quietly(stop)
		clients[i] = dial(b, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if _, err := kadm.NewClient(clients[i]).CreateTopic(ctx, parts, 1, nil, "t"); err != nil {
			b.Fatal(err)
		}
	}
	send := func(cl *kgo.Client, n int, done func(time.Duration)) {
		began := time.Now()
		r := &kgo.Record{Topic: "t", Partition: int32(n % parts), Value: make([]byte, 200)}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
			done(time.Since(began))
		})
	}
	loads := []struct {
		name string
		run  func(cl *kgo.Client, d time.Duration) []time.Duration
	}{
		{"paced", func(cl *kgo.Client, d time.Duration) (took []time.Duration) {
			var mu sync.Mutex
			var all sync.WaitGroup
			began := time.Now()
			for n := range int(d / time.Millisecond) {
				time.Sleep(time.Until(began.Add(time.Duration(n) * time.Millisecond)))
				all.Add(1)
				send(cl, n, func(t time.Duration) {
					mu.Lock()
					took = append(took, t)
					mu.Unlock()
					all.Done()
				})
			}
			all.Wait()
			return took
		}},
		{"full", func(cl *kgo.Client, d time.Duration) (took []time.Duration) {
			var mu sync.Mutex
			var all sync.WaitGroup
			until := time.Now().Add(d)
			for i := range 256 {
				all.Go(func() {
					one := make(chan time.Duration, 1)
					for n := i; time.Now().Before(until); n++ {
						send(cl, n, func(t time.Duration) { one <- t })
						t := <-one
						mu.Lock()
						took = append(took, t)
						mu.Unlock()
					}
				})
			}
			all.Wait()
			return took
		}},
	}
	for b.Loop() {
		for _, load := range loads {
			all := make([][]time.Duration, len(modes))
			for i := range modes {
				load.run(clients[i], 100*time.Millisecond)
			}
			for range rounds {
				for i := range modes {
					all[i] = append(all[i], load.run(clients[i], time.Second)...)
				}
			}
			for i, took := range all {
				slices.Sort(took)
				name := load.name + "-" + modes[i].name
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, name+"-p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, name+"-p99-ms")
				b.ReportMetric(float64(len(took))/rounds, name+"-acks/s")
			}
		}
	}
}
