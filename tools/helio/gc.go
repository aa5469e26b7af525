package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The bounds of what keepHeapRoomy lets the heap grow to, and its share of the memory that this process may use.
const (
	leastHeap = 64 << 20
	mostHeap  = 512 << 20
	heapShare = 16
)

// growingHeap is how large the heap of a process that serves may grow while what lives grows, in bytes.
const growingHeap = 128 << 20

// gcEvery is how much time should lie between two collections.
const gcEvery = 10 * time.Second

// roomyHeap is how large the heap may grow before it is collected, however little of it lives, in bytes, of so many
// that the process may use.
func roomyHeap(memory int64) uint64 { return min(mostHeap, max(leastHeap, uint64(memory)/heapShare)) }

// floodIsOver tells whether the process holds much memory that it does not need: free pages, of which what is allocated
// within gcEvery (room) takes little, beside what lives. The runtime keeps what it reckons with for its next cycle,
// which after a flood of connections or a backlog is for good.
func floodIsOver(live, room, free uint64) bool {
	return free > leastHeap && free > live && room < free/4
}

// keepHeapRoomy makes collections rare while much is allocated. One that runs beside the servers' work takes half of
// the processors for its while, and who allocates meanwhile helps to do it: that is what the slowest messages wait for.
// So a small heap may grow for gcEvery, up to roomyHeap. But while what lives grows, as when thousands connect, it is
// collected early, above growing: else what stays would lie scattered among what goes, and each idle connection would
// hold the pages of much more than itself. Above half of roomyHeap the runtime's own rule holds. When a flood is
// over, its memory goes back to the machine. It is called once.
func keepHeapRoomy(growing uint64, memory int64) { afterCollections(newRoomy(growing, memory).look) }

// roomy is what is known from one collection to the next.
type roomy struct {
	growing, most uint64
	set           func(percent int) // of the runtime
	free          func()            // gives free pages back; it collects, and so comes back here

	percent         int
	begun           time.Time
	allocated, live uint64
}

func newRoomy(growing uint64, memory int64) *roomy {
	return &roomy{
		growing: growing, most: roomyHeap(memory), percent: 100, begun: time.Now(),
		set: func(percent int) { debug.SetGCPercent(percent) }, free: debug.FreeOSMemory,
	}
}

// afterCollections has step look at the heap now, and on the goroutine of the finalizers after each collection: what
// lives, how much was ever allocated, and how much is free.
func afterCollections(step func(now time.Time, live, total, free uint64)) {
	var look func(*[64]byte)
	look = func(*[64]byte) {
		sample := []metrics.Sample{
			{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		}
		metrics.Read(sample)
		step(time.Now(), sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64())
		runtime.SetFinalizer(new([64]byte), look) // runs at the next collection
	}
	look(nil)
}

// look takes in what afterCollections tells.
func (r *roomy) look(now time.Time, live, total, free uint64) {
	room := uint64(float64(total-r.allocated) / max(0.001, now.Sub(r.begun).Seconds()) * gcEvery.Seconds())
	heap := min(live+room, r.most)
	if live > r.live+r.live/10 {
		heap = min(heap, r.growing)
	}
	want := 100
	if live > 0 && live < r.most/2 {
		want = int(min(5000, max(100, 100*(max(heap, live)-live)/live)))
	}
	if floodIsOver(live, room, free) {
		go r.free()
	}
	r.begun, r.allocated, r.live = now, total, live
	if diff := want - r.percent; diff > r.percent/10 || -diff > r.percent/10 {
		r.percent = want
		r.set(want)
	}
}
