package engine

import (
	"os/exec"
	"runtime"
)

// Exit is the end of a child, now or later. Its methods may be called from any goroutine.
type Exit struct {
	done chan struct{}
	err  error // set before done is closed
}

// Done is closed when the child has ended and its output has been read.
func (e *Exit) Done() <-chan struct{} { return e.done }

// Err waits for the end and returns the result of the command's Wait.
func (e *Exit) Err() error {
	<-e.done
	return e.err
}

// Spawn starts the command. A SysProcAttr.Pdeathsig then holds for the life of this process: the kernel binds that
// signal to the thread that forked, so the thread is kept until the child has ended.
func Spawn(cmd *exec.Cmd) (*Exit, error) {
	started := make(chan error, 1)
	exit := &Exit{done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exit.err = cmd.Wait()
			close(exit.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return exit, nil
}
