package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// heapFloor is how large the heap of a server may grow before it is collected, however little of it lives: a small heap would otherwise be collected several
// times a second under load, and what is being allocated meanwhile helps to do it, which shows in the slowest messages. Above half the floor the
// runtime's own rule holds, so memory for each idle connection stays what it is.
const heapFloor = 128 << 20

// keepHeapFloor follows the live heap from collection to collection. It is for processes that serve; it is called once.
func keepHeapFloor() {
	percent := 100
	var look func(*[64]byte)
	look = func(*[64]byte) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		want := 100
		if live := sample[0].Value.Uint64(); live > 0 && live < heapFloor/2 {
			want = min(1000, int(100*(heapFloor-live)/live))
		}
		if diff := want - percent; diff > percent/10 || -diff > percent/10 {
			percent = want
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(new([64]byte), look) // runs at the next collection
	}
	look(nil)
}
