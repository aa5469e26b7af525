package engine

import (
	"os/exec"
	"runtime"
)

// Spawn starts the command and delivers the result of its Wait on the channel, once. A SysProcAttr.Pdeathsig then
// holds for the life of this process: the kernel binds that signal to the thread that forked, so the thread is kept
// until the child has ended.
func Spawn(cmd *exec.Cmd) (<-chan error, error) {
	started := make(chan error, 1)
	exited := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return exited, nil
}
