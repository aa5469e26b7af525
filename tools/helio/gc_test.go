package main

import (
	"reflect"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestFloodIsOver(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		live, room, free uint64
		want             bool
	}{
		"after a flood of handshakes": {30 * mb, 10 * mb, 1000 * mb, true},
		"while it lasts":              {600 * mb, 2000 * mb, 400 * mb, false},
		"work that allocates much":    {100 * mb, 500 * mb, 400 * mb, false},
		"hardly anything is free":     {10 * mb, mb, 40 * mb, false},
		"less than what lives":        {900 * mb, 10 * mb, 300 * mb, false},
	} {
		if got := floodIsOver(c.live, c.room, c.free); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Memory goes back to the machine once a peak has gone, and neither before nor while it lasts.
func TestMemoryIsGivenBackAfterAPeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mb = 1 << 20
		r := newRoomy(growingHeap, 4096*mb)
		given := 0
		r.free, r.set = func() { given++ }, func(int) {}
		total, now := uint64(0), r.begun
		for _, step := range []struct {
			name                  string
			allocated, live, free uint64
			want                  int
		}{
			{"at rest", 10 * mb, 30 * mb, 10 * mb, 0},
			{"the flood comes", 900 * mb, 600 * mb, 100 * mb, 0},
			{"it lasts", 2000 * mb, 700 * mb, 600 * mb, 0},
			{"it ebbs", 500 * mb, 30 * mb, 900 * mb, 0},
			{"it is over", 10 * mb, 30 * mb, 1000 * mb, 1},
			{"at rest again", 10 * mb, 30 * mb, 10 * mb, 1},
		} {
			total, now = total+step.allocated, now.Add(gcEvery)
			r.look(now, step.live, total, step.free)
			synctest.Wait()
			if given != step.want {
				t.Errorf("%s: given back %d times, want %d", step.name, given, step.want)
			}
		}
	})
	if reflect.ValueOf(newRoomy(1, 1).free).Pointer() != reflect.ValueOf(debug.FreeOSMemory).Pointer() {
		t.Error("nothing is given back")
	}
}

// The heap is looked at after each of several collections, by what the runtime says of it.
func TestHeapIsLookedAtAfterCollections(t *testing.T) {
	looks := make(chan struct{}, 3)
	var last uint64
	afterCollections(func(_ time.Time, live, total, _ uint64) {
		if total < last || live > total {
			t.Errorf("%d bytes live, %d were allocated, %d before", live, total, last)
		}
		last = total
		select {
		case looks <- struct{}{}:
		default: // the test is over
		}
	})
	for len(looks) < cap(looks) { // the test's own timeout bounds it
		runtime.GC()
	}
}
