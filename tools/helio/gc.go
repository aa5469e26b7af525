package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The bounds of what keepHeapRoomy lets the heap grow to, and its share of the memory that this process may use.
const (
	leastHeap = 64 << 20
	mostHeap  = 512 << 20
	heapShare = 32
)

// growingHeap is how large the heap of a process that serves may grow while what lives grows, in bytes.
const growingHeap = 128 << 20

// gcEvery is how much time should lie between two collections.
const gcEvery = 10 * time.Second

// roomyHeap is how large the heap may grow before it is collected, however little of it lives, in bytes.
func roomyHeap() uint64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return leastHeap
	}
	may := info.Totalram * uint64(info.Unit)
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil { // a container's; "max" when there is no bound
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			may = min(may, n)
		}
	}
	return min(mostHeap, max(leastHeap, may/heapShare))
}

// keepHeapRoomy makes collections rare while much is allocated. One that runs beside the servers' work takes half of
// the processors for its while, and who allocates meanwhile helps to do it: that is what the slowest messages wait for.
// So a small heap may grow for gcEvery, up to roomyHeap. But while what lives grows, as when thousands connect, it is
// collected early, above growing: else what stays would lie scattered among what goes, and each idle connection would
// hold the pages of much more than itself. Above half of roomyHeap the runtime's own rule holds. It is called once.
func keepHeapRoomy(growing uint64) {
	most, percent := roomyHeap(), 100
	begun, allocated, lived := time.Now(), uint64(0), uint64(0)
	var look func(*[64]byte)
	look = func(*[64]byte) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
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
		begun, allocated, lived = now, total, live
		if diff := want - percent; diff > percent/10 || -diff > percent/10 {
			percent = want
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(new([64]byte), look) // runs at the next collection
	}
	look(nil)
}
