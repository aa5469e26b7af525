package session

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorkersAreUsedAgain: jobs never wait for each other, workers are used again, and those that rest for long end.
func TestWorkersAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorkers()
		var all sync.WaitGroup
		hold := make(chan struct{})
		for range 3 * maxIdle { // each holds a worker
			all.Add(1)
			c.run(func() { <-hold; all.Done() })
		}
		close(hold)
		all.Wait()
		synctest.Wait()
		if n := len(c.idle); n != maxIdle {
			t.Errorf("%d workers rest, not %d", n, maxIdle)
		}
		done := make(chan struct{})
		c.run(func() { close(done) })
		<-done
		synctest.Wait()
		if n := len(c.idle); n != maxIdle {
			t.Errorf("%d workers rest after one was used again, not %d", n, maxIdle)
		}
		time.Sleep(2 * restTime)
		synctest.Wait()
		if n := len(c.idle); n != 0 {
			t.Errorf("%d workers rest for ever", n)
		}
	})
}
