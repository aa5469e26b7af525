package session

import "time"

// Bounds of a worker pool.
const (
	maxIdle  = 64                     // workers that wait for work
	restTime = 200 * time.Millisecond // how long one waits
)

// workers is a worker pool: it runs short jobs on goroutines that are used again, since a new one begins with a small
// stack, and growing that costs more than the writing of a frame.
type workers struct {
	jobs chan func()   // unbuffered: a job is given only to a worker that waits
	idle chan struct{} // a place for each worker that waits
}

func newWorkers() *workers {
	return &workers{jobs: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// run has a job done at once, on a worker that waits or on a new one.
func (c *workers) run(job func()) {
	select {
	case c.jobs <- job:
	default:
		go c.work(job)
	}
}

func (c *workers) work(job func()) {
	job()
	rest := time.NewTimer(restTime)
	defer rest.Stop()
	for {
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		select {
		case job = <-c.jobs:
			<-c.idle
		case <-rest.C:
			<-c.idle
			return
		}
		job()
		rest.Reset(restTime)
	}
}
