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
func keepHeapRoomy(growing uint64, memory int64) {
	most, percent := roomyHeap(memory), 100
	begun, allocated, lived := time.Now(), uint64(0), uint64(0)
	var look func(*[64]byte)
	look = func(*[64]byte) {
		sample := []metrics.Sample{
			{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		}
		metrics.Read(sample)
		live, now, total := sample[0].Value.Uint64(), time.Now(), sample[1].Value.Uint64()
		room := uint64(float64(total-allocated) / max(0.001, now.Sub(begun).Seconds()) * gcEvery.Seconds())
		heap := min(live+room, most)
		if live > lived+lived/10 {
			heap = min(heap, growing)
		}
		want := 100
		if live > 0 && live < most/2 {
			want = int(min(5000, max(100, 100*(max(heap, live)-live)/live)))
		}
		if floodIsOver(live, room, sample[2].Value.Uint64()) {
			go debug.FreeOSMemory() // it collects, and so comes back here
		}
		begun, allocated, lived = now, total, live
		if diff := want - percent; diff > percent/10 || -diff > percent/10 {
			percent = want
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(new([64]byte), look) // runs at the next collection
	}
	look(nil)
}
