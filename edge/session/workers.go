package session

import "time"

// Bounds of a crew.
const (
	maxIdle  = 64                     // workers that wait for work
	restTime = 200 * time.Millisecond // how long one waits
)

// crew runs short jobs on goroutines that are used again: a new goroutine begins with a small stack, and growing it
// costs more than the writing of a frame.
type crew struct {
	jobs chan func()   // unbuffered: a job is given only to a worker that waits
	idle chan struct{} // a place for each worker that waits
}

func newCrew() *crew { return &crew{jobs: make(chan func()), idle: make(chan struct{}, maxIdle)} }

// run has a job done at once, on a worker that waits or on a new one.
func (c *crew) run(job func()) {
	select {
	case c.jobs <- job:
	default:
		go c.work(job)
	}
}

func (c *crew) work(job func()) {
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
